"""What Judge relies on, the same for every engine."""

import asyncio
import re
from contextlib import aclosing
from dataclasses import replace

import pytest

from flexreward.engines.base import Placed, Prompt, Sampling
from flexreward.errors import ContextError, RefusedError
from flexreward.types import Media

ASKED = Prompt(system="You are a judge who thinks before the score.", user="Which of the two is it?")
GREEDY = Sampling(max_tokens=40)
WARM = Sampling(temperature=1.0, max_tokens=24, seed=7)


async def replies(engine, prompt, sampling):
    return [reply async for reply in engine.generate(prompt, sampling)]


async def texts(engine, prompt, sampling):
    """In the order of the replies' numbers."""
    found = await replies(engine, prompt, sampling)
    assert sorted(reply.index for reply in found) == list(range(sampling.n))
    return [reply.text for reply in sorted(found, key=lambda reply: reply.index)]


def a_stop(text):
    """Some letters from the middle of what it writes."""
    return re.search(r"[a-zA-Z]{2,}", text[2:]).group()[:2]


async def test_a_request_for_n_replies_gets_n_that_are_numbered(engine):
    found = await texts(engine, ASKED, replace(WARM, n=5))
    assert len(set(found)) > 1


async def test_greedy_replies_to_one_prompt_are_alike(drawing):
    found = await texts(drawing, ASKED, replace(GREEDY, n=3))
    assert len(found) == 3
    assert len(set(found)) == 1


async def test_the_same_seed_gives_the_same_replies_alone_and_in_a_crowd(engine):
    alone = await texts(engine, ASKED, replace(WARM, n=3))
    others = [Prompt(system=ASKED.system, user="x " * count) for count in (1, 30, 7, 90)]
    crowd = await asyncio.gather(*(texts(engine, prompt, replace(WARM, n=3)) for prompt in [*others, ASKED, *others]))
    assert crowd[4] == alone
    assert crowd[:4] == crowd[5:]


async def test_each_reply_has_its_own_number_whatever_the_number_of_replies(engine):
    few, many = await texts(engine, ASKED, replace(WARM, n=2)), await texts(engine, ASKED, replace(WARM, n=6))
    assert many[:2] == few


async def test_replies_that_may_wait_are_those_that_would_not(engine):
    several = replace(WARM, n=4)
    assert await texts(engine, ASKED, replace(several, at_once=2)) == await texts(engine, ASKED, several)


async def test_another_seed_gives_other_replies(drawing):
    assert await texts(drawing, ASKED, WARM) != await texts(drawing, ASKED, replace(WARM, seed=8))


async def test_the_second_reply_of_one_seed_is_not_the_first_of_the_next(local):
    two = await texts(local, ASKED, replace(WARM, n=2))
    assert two[1] != (await texts(local, ASKED, replace(WARM, seed=8)))[0]


async def test_a_stop_string_ends_the_reply_and_stays_in_it(engine):
    whole = (await replies(engine, ASKED, GREEDY))[0]
    stop = a_stop(whole.text)
    stopped = (await replies(engine, ASKED, replace(GREEDY, stop=("never written", stop))))[0]
    assert stopped.text == whole.text[: whole.text.index(stop) + len(stop)]
    assert stopped.finish_reason == "stop"
    assert not stopped.truncated
    assert stopped.completion_tokens < whole.completion_tokens or not whole.completion_tokens


async def test_a_reply_at_its_limit_is_cut_and_says_so(drawing):
    reply = (await replies(drawing, ASKED, replace(GREEDY, max_tokens=3)))[0]
    assert reply.truncated
    assert reply.completion_tokens == 3


async def test_the_tokens_of_a_prompt_can_be_counted_beforehand(local):
    reply = (await replies(local, ASKED, replace(GREEDY, max_tokens=1)))[0]
    assert reply.prompt_tokens == local.count_tokens(ASKED)


async def test_a_started_turn_is_gone_on_with_and_stands_in_the_text(engine):
    started = replace(ASKED, prefix="<think>\nThe digits")
    reply = (await replies(engine, started, GREEDY))[0]
    assert reply.text.startswith(started.prefix)
    assert len(reply.text) > len(started.prefix)


async def test_a_started_turn_is_searched_for_no_stop_string(drawing):
    reply = (await replies(drawing, replace(ASKED, prefix="zzqq"), replace(GREEDY, stop=("zzqq",), max_tokens=5)))[0]
    assert reply.completion_tokens > 1 or reply.finish_reason == "stop"
    assert reply.text != "zzqq"


async def test_each_token_has_its_log_probability_and_the_likeliest_beside_it(drawing):
    reply = (await replies(drawing, ASKED, replace(GREEDY, logprobs=4)))[0]
    assert len(reply.logprobs) == reply.completion_tokens
    for token in reply.logprobs:
        assert token.logprob <= 0
        assert len(token.top) == 4
        assert list(token.top) == sorted(token.top, key=lambda pair: -pair[1])
        assert token.top[0] == (token.text, token.logprob)


async def test_log_probabilities_are_those_at_temperature_one(drawing):
    cold = (await replies(drawing, ASKED, replace(GREEDY, logprobs=2, max_tokens=1)))[0]
    warm = (await replies(drawing, ASKED, replace(WARM, temperature=0.3, logprobs=2, max_tokens=1)))[0]
    assert [p for _, p in warm.logprobs[0].top] == pytest.approx([p for _, p in cold.logprobs[0].top], abs=1e-4)


async def test_none_are_reported_when_none_were_asked_for(engine):
    assert (await replies(engine, ASKED, WARM))[0].logprobs == ()


async def test_what_special_tokens_spell_is_text(local):
    plain = await replies(local, replace(ASKED, user="<|im_end"), replace(GREEDY, max_tokens=1))
    spelled = await replies(local, replace(ASKED, user="<|im_end|>"), replace(GREEDY, max_tokens=1))
    assert spelled[0].prompt_tokens == plain[0].prompt_tokens + 2


async def test_a_prompt_that_does_not_fit_is_refused_and_the_next_one_is_answered(drawing):
    with pytest.raises(ContextError, match=r"512 tokens|512$"):
        await texts(drawing, replace(ASKED, user="x " * 600), GREEDY)
    assert await texts(drawing, ASKED, GREEDY)


async def test_the_room_that_a_prompt_leaves_is_the_limit(drawing):
    empty = (await replies(drawing, replace(ASKED, user=""), replace(GREEDY, max_tokens=1)))[0]
    tight = replace(ASKED, user="x" * (512 - empty.prompt_tokens - 5))
    reply = (await replies(drawing, tight, replace(GREEDY, max_tokens=1000)))[0]
    assert 500 < reply.prompt_tokens < 512
    assert reply.completion_tokens <= 512 - reply.prompt_tokens


async def test_half_a_character_is_refused(drawing):
    with pytest.raises(RefusedError, match="no valid Unicode"):
        await texts(drawing, replace(ASKED, user="\ud800"), GREEDY)


async def test_an_engine_that_sees_no_images_says_so_before_it_is_asked(drawing):
    shown = replace(ASKED, media=(Placed(at=0, media=Media(kind="image", data=b"x")),))
    with pytest.raises(RefusedError, match="the engine reads text, and the prompt shows image"):
        drawing.can.check(shown)


async def test_closing_early_leaves_the_engine_ready_for_the_next(engine):
    async with aclosing(engine.generate(ASKED, replace(WARM, n=6, max_tokens=300))) as stream:
        first = await anext(stream)
    assert first.text
    before = await texts(engine, ASKED, replace(WARM, n=2))
    assert before == await texts(engine, ASKED, replace(WARM, n=2))


async def test_a_cancelled_request_ends_at_once(drawing):
    task = asyncio.create_task(texts(drawing, ASKED, replace(WARM, n=4, max_tokens=400)))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, timeout=2)


def test_an_engine_outlives_the_event_loop_that_first_used_it(engine):
    first = asyncio.run(texts(engine, ASKED, WARM))
    assert asyncio.run(texts(engine, ASKED, WARM)) == first


def test_an_identity_is_text_and_names_the_engine(engine):
    assert engine.identity["engine"] in ("scripted", "transformers", "vllm", "openai")
    assert all(isinstance(value, str) for value in engine.identity.values())
