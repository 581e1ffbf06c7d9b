"""The judge over HTTP: what is sent, and what is read."""

from __future__ import annotations

from math import inf

import pytest

from flexreward.engines.base import Prompt, Sampling, Turn
from flexreward.engines.escape import JOINER
from flexreward.errors import ContextError, RefusedError
from flexreward.types import TokenLogprob
from tests.flexreward.openai_engine.server import DRAWN, Answer, completion, engine_of, in_turn, replies_of


async def test_n_replies_come_from_one_request_with_all_that_the_recipe_says(server):
    server.script = lambda body: completion("a", "b", "c")
    replies = await replies_of(engine_of(server), sampling=DRAWN)
    assert [(r.text, r.index, r.finish_reason) for r in replies] == [
        ("a", 0, "stop"),
        ("b", 1, "stop"),
        ("c", 2, "stop"),
    ]
    assert sum(r.completion_tokens for r in replies) == 10
    assert [r.prompt_tokens for r in replies] == [11] * 3
    (body,) = server.bodies
    assert body.pop("messages") == [
        {"role": "system", "content": "You judge."},
        {"role": "user", "content": "Which is better?"},
    ]
    assert body == {
        "model": "judge-7b",
        "n": 3,
        "temperature": 0.7,
        "top_p": 1.0,
        "max_tokens": 1024,
        "seed": 5,
    }


async def test_earlier_turns_are_sent_in_their_places_and_escaped(server):
    turns = (Turn("user", "Hi"), Turn("assistant", "<|im_end|>"))
    await replies_of(engine_of(server), Prompt(system="Be brief.", user="And now?", turns=turns))
    messages = server.bodies[-1]["messages"]
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]
    assert messages[1]["content"] == "Hi"
    assert messages[2]["content"].replace(JOINER, "") == "<|im_end|>" != messages[2]["content"]


async def test_a_greedy_reply_is_bought_once_and_needs_no_seed(server):
    replies = await replies_of(engine_of(server), sampling=Sampling(n=3))
    assert [(r.text, r.index) for r in replies] == [("good", 0), ("good", 1), ("good", 2)]
    assert [body["n"] for body in server.bodies] == [1]
    assert "seed" not in server.bodies[0]


async def test_replies_without_usage_have_no_token_counts_and_a_cut_one_is_truncated(server):
    server.script = lambda body: completion("cut off", finish="length", usage=False)
    (reply,) = await replies_of(engine_of(server), sampling=Sampling())
    assert (reply.text, reply.truncated, reply.prompt_tokens, reply.completion_tokens) == ("cut off", True, 0, 0)


async def test_votes_can_be_asked_for_one_by_one_and_come_as_they_end(server):
    def slow_first(body):
        return Answer(completion(str(body["seed"])), delay_s=0.3 if body["seed"] == first else 0)

    probe = engine_of(server, split_votes=True)
    server.script = lambda body: completion(str(body["seed"]))
    seeds = [r.text for r in sorted(await replies_of(probe), key=lambda r: r.index)]
    assert len(set(seeds)) == 3
    first = int(seeds[0])
    server.script = slow_first
    again = await replies_of(engine_of(server, split_votes=True))
    assert [r.index for r in again][-1] == 0
    assert [r.text for r in sorted(again, key=lambda r: r.index)] == seeds
    assert {body["n"] for body in server.bodies} == {1}


async def test_a_started_turn_is_continued_on_vllm_and_refused_elsewhere(server):
    server.script = lambda body: completion(" better</think>")
    started = Prompt(system="", user="u", prefix="<think>\nThe first<|im_end|> is")
    (reply,) = await replies_of(engine_of(server, dialect="vllm"), started, Sampling())
    assert reply.text == "<think>\nThe first<|im_end|> is better</think>"
    body = server.bodies[0]
    assert body["messages"][-1] == {"role": "assistant", "content": f"<think>\nThe first<{JOINER}|im_end|> is"}
    assert (body["add_generation_prompt"], body["continue_final_message"]) == (False, True)
    with pytest.raises(RefusedError, match="dialect: vllm"):
        await replies_of(engine_of(server), started)
    assert (engine_of(server, dialect="vllm").can.prefix, engine_of(server).can.prefix) == (True, False)


async def test_a_reply_is_held_to_a_pattern_on_vllm_and_refused_elsewhere(server):
    held = Sampling(pattern="[1-5]")
    server.script = lambda body: completion("4", finish="length")
    (reply,) = await replies_of(engine_of(server, dialect="vllm"), sampling=held)
    assert server.bodies[-1]["structured_outputs"] == {"regex": "[1-5]"}
    assert not reply.truncated
    with pytest.raises(RefusedError, match="not known to hold replies to a pattern; if it is vLLM, set dialect: vllm"):
        await replies_of(engine_of(server), sampling=held)
    with pytest.raises(RefusedError, match="only of what the pattern lets through; leave out logprobs and expected"):
        await replies_of(engine_of(server, dialect="vllm"), sampling=Sampling(pattern="[1-5]", logprobs=2))
    assert (engine_of(server, dialect="vllm").can.constrained, engine_of(server).can.constrained) == (True, False)
    await replies_of(engine_of(server, dialect="vllm"), sampling=Sampling())
    assert "structured_outputs" not in server.bodies[-1]


async def test_vllm_is_told_what_a_checkpoint_would_fill_in_and_a_recipe_may_say_otherwise(server):
    await replies_of(engine_of(server, dialect="vllm", extra_body={"top_k": 20, "seedling": 1}), sampling=Sampling())
    body = server.bodies[0]
    assert (body["top_k"], body["min_p"], body["repetition_penalty"], body["seedling"]) == (20, 0.0, 1.0, 1)


LONG = Answer(
    {"message": "maximum context length is 512 tokens. However, you requested 1024 output tokens and your prompt ..."},
    status=400,
)


async def test_a_reply_gets_the_room_that_its_prompt_leaves(server):
    server.script = lambda body: LONG if "max_tokens" in body else completion("cut", finish="length")
    (reply,) = await replies_of(engine_of(server), sampling=Sampling())
    assert reply.truncated
    assert [body.get("max_tokens") for body in server.bodies] == [1024, None]
    server.script = in_turn(LONG)
    with pytest.raises(ContextError):
        await replies_of(engine_of(server), sampling=Sampling())


async def test_a_stop_string_stays_in_the_text_whichever_server_it_is(server):
    sampling = Sampling(stop=("</think>",), logprobs=1)
    tokens = [{"token": t, "logprob": -0.5} for t in ("one", "</think>", "two")]
    server.script = lambda body: completion("one</think>two", finish="length", logprobs={"content": tokens})
    (reply,) = await replies_of(engine_of(server), sampling=sampling)
    assert (reply.text, reply.finish_reason) == ("one</think>", "stop")
    assert [t.text for t in reply.logprobs] == ["one", "</think>"]
    assert "stop" not in server.bodies[0]
    server.script = lambda body: completion("one</think>", logprobs={"content": tokens[:2]})
    (reply,) = await replies_of(engine_of(server, dialect="vllm"), sampling=sampling)
    assert (reply.text, reply.finish_reason) == ("one</think>", "stop")
    assert server.bodies[1]["stop"] == ["</think>"]
    assert server.bodies[1]["include_stop_str_in_output"] is True


async def test_vllm_counts_the_tokens_of_each_reply(server):
    def answer(body):
        found = completion("a", "b", "c")
        for choice, ids in zip(found["choices"], ([1], [1, 2, 3], [1, 2]), strict=True):
            choice["token_ids"] = ids
        return found

    server.script = answer
    replies = await replies_of(engine_of(server, dialect="vllm"))
    assert [r.completion_tokens for r in replies] == [1, 3, 2]
    assert server.bodies[0]["return_token_ids"] is True


async def test_logprobs_are_read_with_their_alternatives(server):
    top = [{"token": "7", "logprob": -0.1}, {"token": "8", "logprob": -9999.0}]
    server.script = lambda body: completion(
        "7", logprobs={"content": [{"token": "7", "logprob": -0.1, "top_logprobs": top}]}
    )
    (reply,) = await replies_of(engine_of(server), sampling=Sampling(logprobs=2))
    assert reply.logprobs == (TokenLogprob(text="7", logprob=-0.1, top=(("7", -0.1), ("8", -inf))),)
    assert (server.bodies[0]["logprobs"], server.bodies[0]["top_logprobs"]) == (True, 2)
    server.script = lambda body: completion("7")
    with pytest.raises(RefusedError, match="reports no log-probabilities; set logprobs to false"):
        await replies_of(engine_of(server), sampling=Sampling(logprobs=2))
    assert not engine_of(server, logprobs=False).can.logprobs


async def test_a_thought_that_the_server_sets_apart_stands_in_its_tags_again(server):
    server.script = lambda body: completion("<answer>7</answer>")
    for name in ("reasoning", "reasoning_content"):
        server.script = lambda body, name=name: {
            "choices": [{"message": {"content": "<answer>7</answer>", name: "Hm."}, "finish_reason": "stop"}]
        }
        (reply,) = await replies_of(engine_of(server), sampling=Sampling())
        assert reply.text == "<think>Hm.</think><answer>7</answer>"
    server.script = lambda body: {
        "choices": [{"message": {"content": None, "reasoning": "Hm"}, "finish_reason": "length"}]
    }
    (reply,) = await replies_of(engine_of(server), sampling=Sampling())
    assert (reply.text, reply.truncated) == ("<think>Hm", True)
