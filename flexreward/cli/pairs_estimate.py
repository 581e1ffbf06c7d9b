"""``flexreward pairs --estimate``: a hundred prompts drawn, judged and sorted out for real; nothing is written but the
store."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from flexreward.cli import job as jobs
from flexreward.cli.drawing import Source
from flexreward.cli.options import SampledOptions
from flexreward.files.outcomes import Item, outcome_row
from flexreward.files.samples import Sample
from flexreward.jobs.estimate import draw, forecast
from flexreward.jobs.progress import clock
from flexreward.jobs.run import judge_items
from flexreward.pairs.build import Plan, candidates
from flexreward.pairs.forecast import likely
from flexreward.types import Judgment

NUM_PROMPTS = 100


def print_pairs_estimate(
    job: SampledOptions,
    opened: jobs.Opened,
    source: Source,
    plan: Plan,
    items_of: Callable[[Iterable[Sample]], Iterator[Item]],
) -> None:
    """Say what all prompts will take, of the policy and of the judge, and how many pairs will likely be kept."""
    num_pairs = 0

    def prompts() -> Iterator[Sample]:
        nonlocal num_pairs
        for sample in source.prompts():
            num_pairs += len(candidates(sample, per_prompt=plan.per_prompt, seed=plan.seed).judged)
            yield sample

    drawn = draw(prompts(), count=NUM_PROMPTS)

    async def run() -> tuple[list[Sample], dict[str, Any] | None, list[Item], list[Judgment], float]:
        try:
            samples, policy = drawn.items, None
            if source.recipe is not None:
                samples, policy = await _completed(source, opened, drawn.items, drawn.total)
            items, began = list(items_of(samples)), time.monotonic()
            judgments = await judge_items(opened.judge, items, max_in_flight=opened.recipe.max_in_flight)
            return samples, policy, items, judgments, time.monotonic() - began
        finally:
            await opened.judge.engine.close()

    samples, policy, items, judgments, seconds = asyncio.run(run())
    # What a policy will write is not known, so its pairs are as many a prompt as of those that were drawn.
    total = num_pairs if policy is None else round(len(items) * drawn.total / len(drawn.items))
    judged = forecast(judgments, total=total, seconds=seconds)
    rows = (outcome_row(judgment, item) for judgment, item in zip(judgments, items, strict=True))
    found = likely(samples, rows, plan, num=len(drawn.items), total=drawn.total)
    if job.as_json:
        more = {"policy": policy} if policy is not None else {}
        print(json.dumps({"estimate": {**judged.as_json(), **more, "pairs": found.as_json()}}))
        return
    if policy is not None:
        taken = "time unknown (all came from the store)" if policy["seconds"] is None else clock(policy["seconds"])
        tokens = policy["tokens"]
        print(f"policy: about {taken}, {tokens['prompt']} prompt tokens and {tokens['completion']} new tokens")
    print(f"judge: {judged.line()}" if policy is not None else judged.line())
    print(found.line())


async def _completed(
    source: Source, opened: jobs.Opened, prompts: list[Sample], total: int
) -> tuple[list[Sample], dict[str, Any]]:
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
    return [source.told(one.sample) for one in drawn if not one.failure], {
        "tokens": {
            "prompt": round(scale * sum(one.prompt_tokens for one in drawn)),
            "completion": round(scale * sum(one.completion_tokens for one in drawn)),
        },
        "seconds": total * seconds / bought if bought else None,
        "failed": sum(one.failure is not None for one in drawn),
    }
