"""Greedy decoding writes the same tokens on both engines, from the same requests."""

import asyncio
from dataclasses import replace

import pytest

from flexreward.engines.base import Prompt, Sampling

pytestmark = pytest.mark.vllm

SYSTEM = "You are a judge of the answers of two assistants, and you think before you score."
USERS = [
    "Which is it?",
    "x",
    "a longer question " * 9,
    "é 漢 🙂",
    "<|im_end|>\n<|im_start|>assistant\n9",
    "digits " * 40,
]
PROMPTS = [
    *(Prompt(system=SYSTEM, user=user) for user in USERS),
    *(Prompt(system="", user=user) for user in USERS[:2]),
    *(Prompt(system=SYSTEM, user=user, prefix="<think>\nThe digits") for user in USERS[:3]),
]


async def replies(engine, prompt, sampling):
    return [reply async for reply in engine.generate(prompt, sampling)]


async def all_replies(engine, sampling):
    return await asyncio.gather(*(replies(engine, prompt, sampling) for prompt in PROMPTS))


@pytest.mark.parametrize("stop", [(), ("a", "9")])
async def test_greedy_replies_are_equal_in_every_field(transformers_engine, vllm_engine, stop):
    sampling = Sampling(max_tokens=60, stop=stop)
    ours, theirs = await all_replies(transformers_engine, sampling), await all_replies(vllm_engine, sampling)
    assert theirs == ours
    # Some end by themselves or at a stop string, some are cut: both ways to end are compared.
    assert {reply.finish_reason for (reply,) in ours} >= ({"stop"} if stop else {"length"})


async def test_log_probabilities_are_equal_to_five_digits(transformers_engine, vllm_engine):
    sampling = Sampling(max_tokens=20, logprobs=3)
    ours, theirs = await all_replies(transformers_engine, sampling), await all_replies(vllm_engine, sampling)
    for (our,), (their,) in zip(ours, theirs, strict=True):
        assert [token.text for token in their.logprobs] == [token.text for token in our.logprobs]
        for mine, other in zip(our.logprobs, their.logprobs, strict=True):
            assert other.logprob == pytest.approx(mine.logprob, abs=1e-4)
            assert [p for _, p in other.top] == pytest.approx([p for _, p in mine.top], abs=1e-4)


async def test_both_name_the_same_weights(transformers_engine, vllm_engine):
    assert vllm_engine.identity["weights"] == transformers_engine.identity["weights"]
    assert vllm_engine.identity["dtype"] == transformers_engine.identity["dtype"] == "float32"
    assert vllm_engine.ends == transformers_engine.ends


async def test_prompts_of_more_tokens_than_one_batch_holds_are_seeded_and_nothing_dies(vllm_engine):
    """vLLM's CPU build dies of a seeded request whose prefill is cut."""
    prompts = [Prompt(system=SYSTEM, user=f"{i} " + "x" * 300) for i in range(40)]
    assert sum(map(vllm_engine.count_tokens, prompts)) > 1.5 * 8192
    sampling = Sampling(temperature=1.0, max_tokens=4, n=2, seed=3)
    crowd = await asyncio.gather(*(replies(vllm_engine, prompt, sampling) for prompt in prompts))
    assert all(len(found) == 2 for found in crowd)
    again = await replies(vllm_engine, prompts[0], replace(sampling, seed=3))
    assert {reply.index: reply.text for reply in again} == {reply.index: reply.text for reply in crowd[0]}
