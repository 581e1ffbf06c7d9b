"""How often a policy is right on prompts whose answers are known: what a training is for, measured on nothing else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from flexreward.engines import load_engine
from flexreward.engines.base import Engine, Prompt, Sampling
from flexreward.errors import SampleError
from flexreward.files.samples import read_samples
from flexreward.policy.asking import prompt_of
from flexreward.right import right_named
from training.recipe import Check

Figures = dict[str, float]


def questions(asked: Check) -> list[tuple[Prompt, str]]:
    """The prompts, as a policy is shown them, with their references.

    Raises:
        SampleError: A row is none, or has no reference.
    """
    found = []
    for sample in read_samples(asked.prompts, limit=asked.limit, completed=False):
        if sample.reference is None:
            raise SampleError(f"{sample.where}: has no reference to tell what is right")
        found.append((prompt_of(sample), sample.reference))
    return found


def refuse_known(asked_of: Sequence[tuple[Prompt, str]], trained: Sequence[str], asked: Check) -> None:
    """Say before any training what would make its check worthless, or impossible.

    Args:
        trained: The prompts of the training, with whatever else stands around their texts.

    Raises:
        RecipeError: There is no such way to be right.
        SampleError: A prompt is among those of the training.
    """
    right_named(asked.right, "check.right")
    texts = "\n".join(trained)
    again = [prompt for prompt, _ in asked_of if not prompt.media and json.dumps(prompt.user) in texts]
    if again:
        raise SampleError(
            f"{asked.prompts}: {len(again)} of its prompts are among the training pairs, as {again[0].user[:60]!r}; "
            "leave them out of one"
        )


def check(asked: Check, model: Path, *, seed: int) -> Figures:
    """The share of right completions, ``greedy`` and, where some are drawn, ``sampled``; a seed of its own a prompt."""
    right = right_named(asked.right, "check.right")
    asked_of = questions(asked)
    engine = load_engine("transformers", model=str(model))
    greedy = Sampling(max_tokens=asked.max_tokens)
    ways = {"greedy": greedy}
    if asked.samples:
        ways["sampled"] = replace(greedy, n=asked.samples, temperature=asked.temperature, seed=seed)

    async def share(sampling: Sampling) -> float:
        prompts = [prompt for prompt, _ in asked_of]
        texts = await asyncio.gather(
            *(_completions(engine, one, replace(sampling, seed=sampling.seed + i)) for i, one in enumerate(prompts))
        )
        marks = [right(text, ref) for (_, ref), drawn in zip(asked_of, texts, strict=True) for text in drawn]
        return sum(marks) / len(marks)

    async def all_of_them() -> Figures:
        try:
            return {how: await share(sampling) for how, sampling in ways.items()} | {"prompts": len(asked_of)}
        finally:
            await engine.close()

    return asyncio.run(all_of_them())


async def _completions(engine: Engine, prompt: Prompt, sampling: Sampling) -> list[str]:
    return [reply.text async for reply in engine.generate(prompt, sampling)]
