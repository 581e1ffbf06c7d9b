"""``flexreward pairs --ray``: what the workers of a cluster are told."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from flexreward.cli import job as jobs
from flexreward.cli.drawing import Source
from flexreward.cli.options import SampledOptions
from flexreward.config import SERVED, JudgeRecipe
from flexreward.errors import RecipeError
from flexreward.files.away import Place, away, is_address
from flexreward.files.outcome_file import timings_path
from flexreward.files.outcomes import read_outcomes
from flexreward.pairs.build import OUTCOMES
from flexreward.pairs.ray.parts import PARTS, drop_halves
from flexreward.policy.sampled import SAMPLED

if TYPE_CHECKING:
    from flexreward.ledger import Ledger
    from flexreward.pairs.build import Plan
    from flexreward.pairs.ray.run import Ran, Spread
    from flexreward.pairs.ray.worker import Models

ELSEWHERE = (SERVED, "openai", "scripted")
"""Engines whose models do not run in the worker."""


@contextmanager
def place_of(out: str, *, ray: bool) -> Iterator[Place]:
    """Where ``--out`` is.

    Raises:
        RecipeError: It is at an address, and one machine writes as it goes, line by line.
    """
    if not is_address(out):
        yield Place(Path(out))
    elif not ray:
        raise RecipeError(f"--out {out}: an address needs --ray; or give a folder here, and copy it there")
    else:
        with away(out) as place:
            yield place


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

    recipes = [recipe, *([source.recipe] if source.recipe else [])]
    return Spread(
        workers=workers,
        gpus=gpus,
        part_rows=rows or PART_ROWS,
        model_gpus=max(one.options.get("tensor_parallel", 1) for one in recipes),
        embedded=any(one.engine not in ELSEWHERE for one in recipes),
        store="none" if job.no_store else str((job.store or default_path()).absolute()),
    )


def run_spread(
    job: SampledOptions,
    recipe: JudgeRecipe,
    template: str,
    source: Source,
    plan: Plan,
    place: Place,
    spread: Spread,
    is_whole: Callable[[], bool],
) -> Ran:
    """Draw and judge on the cluster, what stands at the place already left out; on an interrupt say how to go on."""
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
    _bring(place, overwrite=job.overwrite)
    try:
        ran = spread_out(
            source.prompts,
            work,
            place.folder,
            spread,
            is_whole=is_whole,
            overwrite=job.overwrite,
            say=jobs.say,
            kept=place.send,
        )
    except KeyboardInterrupt:
        where = place.told(str(place.folder / PARTS))
        print(f"flexreward: interrupted; {where} keeps what was judged: run the same again to go on", file=sys.stderr)
        raise
    if source.recipe is not None:
        rows = read_outcomes(source.path)
        source.failures.update(row["failure"]["reason"] for row in rows if "failure" in row)
    return ran


def _bring(place: Place, *, overwrite: bool) -> None:
    """What an earlier run left there."""
    if overwrite:
        place.remove(PARTS)
        return
    drop_halves(place.fetch_all(PARTS))
    place.fetch("summary.json")
    if not (place.folder / PARTS).exists():
        place.fetch(OUTCOMES, timings_path(Path(OUTCOMES)).name, SAMPLED)
