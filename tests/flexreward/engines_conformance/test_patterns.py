"""Replies that are held to a pattern, the same for every engine that can."""

import asyncio
import re
from dataclasses import replace

import pytest

from flexreward.engines.base import Prompt, Sampling
from flexreward.engines.scripted import ScriptedEngine
from flexreward.errors import RefusedError

SYSTEM = "You are a judge who thinks before the score."
PROMPTS = [
    Prompt(system=SYSTEM, user="Which of the two is it?"),
    Prompt(system=SYSTEM, user="x", prefix="<think>\nThe digits</think>"),
    Prompt(system="", user="é 漢 🙂"),
]
ANSWERS = r"(?:[ \n]?<answer>(?:10|[1-9])</answer>){2}"
PATTERNS = [ANSWERS, "7|8\\.5", "[a-z]{3,6}", "(?:é|漢|🙂){2}", r"[ab]*c"]
GREEDY = Sampling(max_tokens=60)
WARM = Sampling(temperature=1.0, max_tokens=60, seed=7)


async def replies(engine, prompt, sampling):
    return [reply async for reply in engine.generate(prompt, sampling)]


@pytest.mark.parametrize("pattern", PATTERNS)
async def test_the_whole_of_what_is_written_matches(drawing, pattern):
    for prompt in PROMPTS:
        for reply in await replies(drawing, prompt, replace(WARM, n=4, pattern=pattern)):
            assert re.fullmatch(pattern, reply.text.removeprefix(prompt.prefix))
            assert reply.text.startswith(prompt.prefix)
            assert reply.finish_reason == "stop"


async def test_replies_that_may_write_anything_are_the_same_beside_those_that_may_not(drawing):
    alone = await replies(drawing, PROMPTS[0], WARM)
    held = replace(WARM, pattern=ANSWERS, n=2)
    mixed = await asyncio.gather(*(replies(drawing, PROMPTS[0], one) for one in (held, WARM, held)))
    assert mixed[1] == alone
    assert mixed[0] != alone


async def test_a_reply_whose_pattern_is_complete_at_the_limit_is_not_cut(drawing):
    (reply,) = await replies(drawing, PROMPTS[0], replace(GREEDY, max_tokens=3, pattern="[0-9]{3}"))
    assert reply.completion_tokens == 3
    assert not reply.truncated


async def test_a_reply_whose_pattern_is_not_complete_at_the_limit_is_cut(drawing):
    (reply,) = await replies(drawing, PROMPTS[0], replace(GREEDY, max_tokens=3, pattern="[0-9]{9}"))
    assert reply.completion_tokens == 3
    assert reply.truncated


async def test_a_stop_string_ends_a_held_reply_too(drawing):
    (reply,) = await replies(drawing, PROMPTS[0], replace(GREEDY, pattern=ANSWERS, stop=("</answer>",)))
    assert re.fullmatch(r"[ \n]?<answer>(?:10|[1-9])</answer>", reply.text)


async def test_log_probabilities_are_those_of_a_judge_that_may_write_anything(local):
    sampling = replace(GREEDY, logprobs=3)
    (free,) = await replies(local, PROMPTS[0], sampling)
    (held,) = await replies(local, PROMPTS[0], replace(sampling, pattern="[0-9]{4}"))
    assert [p for _, p in held.logprobs[0].top] == pytest.approx([p for _, p in free.logprobs[0].top], abs=1e-4)
    assert len(held.logprobs) == held.completion_tokens
    assert held.logprobs[0].logprob < held.logprobs[0].top[0][1]
    assert sum(token.logprob for token in held.logprobs) < -5


async def test_the_seed_decides_what_a_held_reply_says(drawing):
    sampling = replace(WARM, pattern="[0-9]{12}", n=3)
    first = await replies(drawing, PROMPTS[0], sampling)
    assert len({reply.text for reply in first}) == 3
    again = await replies(drawing, PROMPTS[0], sampling)
    assert {reply.index: reply.text for reply in again} == {reply.index: reply.text for reply in first}


@pytest.mark.vllm
@pytest.mark.parametrize("pattern", PATTERNS)
async def test_greedy_held_replies_are_equal_in_every_field(transformers_engine, vllm_engine, pattern):
    for prompt in PROMPTS:
        sampling = replace(GREEDY, pattern=pattern)
        assert await replies(vllm_engine, prompt, sampling) == await replies(transformers_engine, prompt, sampling)


@pytest.mark.vllm
@pytest.mark.parametrize("pattern", PATTERNS)
async def test_a_server_writes_the_same_held_replies_as_an_engine_in_process(vllm_engine, openai_engine, pattern):
    for prompt in PROMPTS:
        (ours,) = await replies(vllm_engine, prompt, replace(GREEDY, pattern=pattern))
        (theirs,) = await replies(openai_engine, prompt, replace(GREEDY, pattern=pattern))
        assert (theirs.text, theirs.finish_reason) == (ours.text, ours.finish_reason)


@pytest.mark.vllm
async def test_a_server_is_not_asked_for_log_probabilities_of_a_held_reply(openai_engine):
    assert not openai_engine.can.held_logprobs
    with pytest.raises(RefusedError, match="only of what the pattern lets through"):
        await replies(openai_engine, PROMPTS[0], replace(GREEDY, pattern=ANSWERS, logprobs=3))


@pytest.mark.vllm
async def test_log_probabilities_of_held_replies_are_equal_to_five_digits(transformers_engine, vllm_engine):
    for prompt in PROMPTS:
        sampling = replace(GREEDY, pattern=ANSWERS, logprobs=3)
        (ours,) = await replies(transformers_engine, prompt, sampling)
        (theirs,) = await replies(vllm_engine, prompt, sampling)
        assert [token.text for token in theirs.logprobs] == [token.text for token in ours.logprobs]
        for mine, other in zip(ours.logprobs, theirs.logprobs, strict=True):
            assert other.logprob == pytest.approx(mine.logprob, abs=1e-4)
            assert [p for _, p in other.top] == pytest.approx([p for _, p in mine.top], abs=1e-4)


async def test_what_is_no_pattern_is_refused_and_the_next_request_is_answered(transformers_engine):
    with pytest.raises(RefusedError, match=r"pattern: '\(a' is no regular expression"):
        await replies(transformers_engine, PROMPTS[0], replace(GREEDY, pattern="(a"))
    with pytest.raises(RefusedError, match="cannot be held to"):
        await replies(transformers_engine, PROMPTS[0], replace(GREEDY, pattern=r"(a)\1"))
    assert await replies(transformers_engine, PROMPTS[0], GREEDY)


async def test_an_engine_that_cannot_hold_a_reply_says_so():
    engine = ScriptedEngine(lambda prompt: "7")
    assert not engine.can.constrained
    with pytest.raises(RefusedError, match="the engine scripted holds no reply to a pattern"):
        await replies(engine, PROMPTS[0], replace(GREEDY, pattern="7"))
