"""``flexreward pairs --ray``: what the workers of a cluster are told."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from flexreward.cli import job as jobs
from flexreward.cli.drawing import Source
from flexreward.cli.options import SampledOptions
from flexreward.config import SERVED, JudgeRecipe
from flexreward.files.outcomes import read_outcomes
from flexreward.pairs.ray.parts import PARTS

if TYPE_CHECKING:
    from flexreward.ledger import Ledger
    from flexreward.pairs.build import Plan
    from flexreward.pairs.ray.run import Ran, Spread
    from flexreward.pairs.ray.worker import Models

ELSEWHERE = (SERVED, "openai", "scripted")
"""Engines whose models do not run in the worker."""


def spread_of(
    job: SampledOptions,
    source: Source,
    recipe: JudgeRecipe,
    *,
    workers: int | None,
    gpus: float | None,
    rows: int | None,
) -> Spread:
    """How a run is spread over the cluster."""
    from flexreward.ledger.store import default_path
    from flexreward.pairs.ray.run import PART_ROWS, Spread

    engines = {recipe.engine} | ({source.recipe.engine} if source.recipe else set())
    return Spread(
        workers=workers,
        gpus=gpus,
        part_rows=rows or PART_ROWS,
        embedded=not engines <= {*ELSEWHERE},
        store="none" if job.no_store else str((job.store or default_path()).absolute()),
    )


def run_spread(
    job: SampledOptions,
    recipe: JudgeRecipe,
    template: str,
    source: Source,
    plan: Plan,
    out: Path,
    spread: Spread,
    is_whole: Callable[[], bool],
) -> Ran:
    """Draw and judge on the cluster; on an interrupt say how to go on."""
    from flexreward.pairs.ray.run import spread_out
    from flexreward.pairs.ray.worker import Models, Work

    def models(ledger: Ledger) -> Models:
        opened = jobs.open_for(job, recipe, template, ledger=ledger)
        if source.recipe is None:
            return Models(judge=opened.judge, policy=None)
        policy, shared = source.policy(opened)
        return Models(judge=opened.judge, policy=policy, shared=shared)

    work = Work(
        models=models,
        per_prompt=plan.per_prompt,
        seed=plan.seed,
        max_in_flight=job.max_in_flight or recipe.max_in_flight,
        folder=os.getcwd(),
    )
    try:
        ran = spread_out(source.prompts, work, out, spread, is_whole=is_whole, overwrite=job.overwrite, say=jobs.say)
    except KeyboardInterrupt:
        where = out / PARTS
        print(f"flexreward: interrupted; {where} keeps what was judged: run the same again to go on", file=sys.stderr)
        raise
    if source.recipe is not None:
        rows = read_outcomes(source.path)
        source.failures.update(row["failure"]["reason"] for row in rows if "failure" in row)
    return ran
