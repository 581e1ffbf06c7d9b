"""``flexreward pairs --estimate``: a hundred prompts drawn, judged and sorted out for real; nothing is written but the
store."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Iterator

from flexreward.cli import job as jobs
from flexreward.cli.drawing import Source
from flexreward.cli.options import SampledOptions
from flexreward.cli.policy_estimate import PolicyForecast, completed
from flexreward.files.outcomes import Item, outcome_row
from flexreward.files.samples import Sample
from flexreward.jobs.estimate import draw, forecast
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

    async def run() -> tuple[list[Sample], PolicyForecast | None, list[Item], list[Judgment], float]:
        try:
            samples, policy = drawn.items, None
            if source.recipe is not None:
                samples, policy = await completed(source, opened, drawn.items, drawn.total)
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
        more = {"policy": policy.as_json()} if policy is not None else {}
        print(json.dumps({"estimate": {**judged.as_json(), **more, "pairs": found.as_json()}}))
        return
    if policy is not None:
        print(policy.line())
    print(f"judge: {judged.line()}" if policy is not None else judged.line())
    print(found.line())
