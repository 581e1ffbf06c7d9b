"""What drawing from a policy will take, from a few prompts completed for real; and what it takes to choose among what
it drew."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flexreward.cli import job as jobs
from flexreward.cli.drawing import Source
from flexreward.cli.options import SampledOptions
from flexreward.files.outcomes import Item
from flexreward.files.samples import Sample
from flexreward.jobs.estimate import draw, forecast
from flexreward.jobs.progress import clock
from flexreward.jobs.run import judge_items
from flexreward.types import Judgment


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyForecast:
    """Means of the prompts that were completed, times all of them."""

    prompt_tokens: int
    completion_tokens: int
    seconds: float | None
    """``None`` where everything came from the store."""
    failed: int
    """Prompts without completions, of those that were measured."""

    def line(self) -> str:
        """For a person."""
        taken = "time unknown (all came from the store)" if self.seconds is None else clock(self.seconds)
        return f"policy: about {taken}, {self.prompt_tokens} prompt tokens and {self.completion_tokens} new tokens"

    def as_json(self) -> dict[str, Any]:
        return {
            "tokens": {"prompt": self.prompt_tokens, "completion": self.completion_tokens},
            "seconds": self.seconds,
            "failed": self.failed,
        }


async def completed(
    source: Source, opened: jobs.Opened, prompts: Sequence[Sample], total: int
) -> tuple[list[Sample], PolicyForecast]:
    """The prompts with what the policy draws for them, and what it will take for all ``total``."""
    policy, shared = source.policy(opened)
    began = time.monotonic()
    try:
        drawn = [one async for one in policy.complete_all(prompts)]
    finally:
        if not shared:
            await policy.engine.close()
    seconds, bought = time.monotonic() - began, sum(not one.cached for one in drawn)
    scale = total / len(drawn)
    return [source.told(one.sample) for one in drawn if not one.failure], PolicyForecast(
        prompt_tokens=round(scale * sum(one.prompt_tokens for one in drawn)),
        completion_tokens=round(scale * sum(one.completion_tokens for one in drawn)),
        seconds=total * seconds / bought if bought else None,
        failed=sum(one.failure is not None for one in drawn),
    )


def print_drawn_estimate(
    job: SampledOptions,
    opened: jobs.Opened,
    source: Source,
    items_of: Callable[[Iterable[Sample]], Iterator[Item]],
    most_of: Callable[[Iterable[Sample]], int | None] | None = None,
) -> None:
    """Say what all prompts will take, of the policy and of the judge.

    Args:
        items_of: What is judged of samples, in the first round where there are several.
        most_of: With rounds, the most judgments that samples take, all rounds together.
    """
    prompts, total = draw(source.prompts())

    async def run() -> tuple[int, PolicyForecast, list[Judgment], float]:
        try:
            samples, policy = await completed(source, opened, prompts, total)
            items, began = list(items_of(samples)), time.monotonic()
            judgments = await judge_items(opened.judge, items, max_in_flight=opened.recipe.max_in_flight)
            most = most_of(samples) if most_of else None
            return most or len(items), policy, judgments, time.monotonic() - began
        finally:
            await opened.judge.engine.close()

    count, policy, judgments, seconds = asyncio.run(run())
    judged = forecast(judgments, total=round(count * total / len(prompts)), seconds=seconds)
    if job.as_json:
        print(json.dumps({"estimate": {**judged.as_json(), "policy": policy.as_json()}}))
    else:
        print(policy.line(), f"judge: {judged.line()}", sep="\n")
