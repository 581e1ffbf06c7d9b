"""What judge, best-of-n and pairs have in common: samples in, a judge opened, outcomes written, a summary printed."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

import typer

from flexreward.cli.options import JobOptions, JudgeOptions
from flexreward.config import SERVED, JudgeRecipe, open_engine, open_judge, parse_recipe, resolve_judge
from flexreward.errors import RecipeError, SampleError, UserError
from flexreward.files.columns import parse_map
from flexreward.files.outcome_file import OutcomeFile
from flexreward.files.outcomes import Item, header_of, read_outcomes
from flexreward.files.rows import is_local
from flexreward.files.samples import Sample, parse_shard, read_samples
from flexreward.jobs.estimate import draw, forecast
from flexreward.jobs.progress import meter
from flexreward.jobs.run import Columns, Rounds, judge_items, judge_rounds_to_file, judge_to_file
from flexreward.jobs.tally import ADVICE, Tally, tally
from flexreward.types import Judgment, Reason

if TYPE_CHECKING:
    from flexreward.engines.base import Engine
    from flexreward.judge import Judge
    from flexreward.ledger import Ledger

Items = Callable[[], Iterator[Item]]


def read(job: JobOptions, *, reserved: Collection[str], completed: bool = True) -> Iterator[Sample]:
    """The samples that the options name.

    Args:
        completed: ``False`` where a policy is to complete them.
    """
    return read_samples(
        job.samples,
        mapping=parse_map(job.map or []),
        limit=job.limit,
        shard=parse_shard(job.shard) if job.shard else None,
        reserved=reserved,
        refuse_empty=job.refuse_empty,
        max_row_bytes=int(job.max_row_mib * 2**20),
        hosts=job.media_host or (),
        limits=resolve_judge(job.judge).limits,
        completed=completed,
    )


def first_of(samples: Iterator[Sample]) -> Sample:
    """The first sample, before a model is loaded for nothing."""
    for sample in samples:
        return sample
    raise SampleError("--shard and --limit leave no row")


def recipe_of(job: JudgeOptions, **more: Any) -> JudgeRecipe:
    """The judge's recipe with what the flags change."""
    recipe = resolve_judge(job.judge)
    flags = {"votes": job.votes, "waits": job.waits, "think": job.think, "temperature": job.temperature}
    flags |= {"seed": job.seed, **more}
    changes = {name: value for name, value in flags.items() if value is not None}
    return parse_recipe(recipe.model_dump() | changes, f"the judge {job.judge or recipe.model}") if changes else recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A judge ready to work."""

    judge: Judge
    recipe: JudgeRecipe
    engine: Engine
    """The judge's, without what the recipe puts around it."""
    ledger: Ledger


def open_for(
    job: JudgeOptions,
    recipe: JudgeRecipe,
    template: str,
    *,
    order_seed: int | None = None,
    ledger: Ledger | None = None,
) -> Opened:
    """The judge with its model loaded, and the store that the options name behind it.

    Args:
        order_seed: See ``Judge``.
        ledger: In place of one over that store.
    """
    from flexreward.ledger import Ledger
    from flexreward.ledger.store import Store
    from flexreward.templates import load_template

    if job.no_store and job.store:
        raise RecipeError("--store and --no-store exclude each other")
    if recipe.engine == SERVED:
        return _open_served(recipe, template, ordered=order_seed is not None, ledger=ledger or Ledger(None))
    if ledger is None:
        ledger = Ledger(None if job.no_store else Store(job.store, notify=say))
    load_template(template)  # a wrong name should not cost the loading of a model
    engine = open_engine(recipe)
    try:
        judge = open_judge(recipe, template=template, ledger=ledger, engine=engine, order_seed=order_seed)
        refuse_blind(judge, recipe)
    except UserError:
        asyncio.run(engine.close())
        raise
    return Opened(judge=judge, recipe=recipe, engine=engine, ledger=ledger)


def say(line: str) -> None:
    """On stderr, as everything that is no result."""
    print(f"flexreward: {line}", file=sys.stderr)


def _open_served(recipe: JudgeRecipe, template: str, *, ordered: bool, ledger: Ledger) -> Opened:
    from flexreward.served import open_served

    own = recipe.model_dump(exclude_defaults=True, exclude={"model", "engine", "max_in_flight"})
    if own or ordered:
        what = ", ".join(own) if own else "one order that is drawn"
        raise RecipeError(f"{what}: the recipe of the server at {recipe.model} says how its judge judges; leave it out")
    judge = open_served(recipe.model, template=template)
    recipe = recipe.model_copy(update={"both_orders": judge.both_orders})
    # Jobs ask a judge for judgments, its name and its template, and have its engine closed: all that this one has.
    return Opened(judge=cast("Judge", judge), recipe=recipe, engine=cast("Engine", judge.engine), ledger=ledger)


def refuse_blind(judge: Judge, recipe: JudgeRecipe) -> None:
    """Say it once, before any row, where the template shows media of a kind that the model is not shown.

    Raises:
        RecipeError: One line.
    """
    kinds = {slot.partition("_")[0] for slot in judge.template.media}
    kinds |= {"molecule"} if judge.template.molecules == "placed" else set()
    if unseen := sorted(kinds - judge.engine.can.modalities):
        reads = ", ".join(sorted(judge.engine.can.modalities))
        raise RecipeError(
            f"the judge {recipe.model} reads {reads}, and the template {judge.template.id} shows "
            f"{' and '.join(unseen)}; take a --judge that does"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A finished run over one outcome file."""

    counts: Tally
    """Over the whole file, rows of earlier runs included."""
    num_judged: int
    """In this run."""
    num_cached: int
    seconds: float


def judge_into(
    job: JudgeOptions,
    opened: Opened,
    items: Items | Callable[[], AsyncIterator[Item]],
    out: Path,
    *,
    total: int | None = None,
    rounds: Rounds | None = None,
    columns: Columns = lambda judgment: {},
) -> Done:
    """Judge what ``out`` does not hold yet; on an interrupt say how to go on.

    Args:
        items: May be asked for more than once, unless they come one by one; then their ``total`` is needed.
        total: How many items there are at most, where that is known.
        rounds: In place of ``items``.
        columns: As in ``judge_to_file``.
    """
    began = time.monotonic()
    with meter(_count(job, cast(Items, items)) if total is None else total, out.name) as progress:

        async def run() -> None:
            how: dict[str, Any] = {
                "overwrite": job.overwrite,
                "max_in_flight": job.max_in_flight or opened.recipe.max_in_flight,
                "on_row": progress.add,
                "on_resume": progress.resumed,
                "columns": columns,
            }
            try:
                if rounds is None:
                    await judge_to_file(opened.judge, items(), out, **how)
                else:
                    await judge_rounds_to_file(opened.judge, rounds, out, **how)
            finally:
                await opened.judge.engine.close()

        try:
            asyncio.run(run())
        except KeyboardInterrupt:
            print(f"flexreward: interrupted; {out} keeps what was judged: run the same again to go on", file=sys.stderr)
            raise
    return Done(
        counts=tally(read_outcomes(out)),
        num_judged=progress.pace.num_done,
        num_cached=progress.pace.num_cached,
        seconds=time.monotonic() - began,
    )


def has_begun(opened: Opened, out: Path) -> bool:
    """Whether ``out`` holds outcomes of this judge.

    Raises:
        OutputError: It holds something else, or is being written.
    """
    if not out.exists():
        return False
    with OutcomeFile(out, header_of(opened.judge)) as file:
        return not file.is_new


def nothing_left(opened: Opened, counts: Tally, began: float) -> Done:
    """Of a run that found everything judged; the judge is let go."""
    asyncio.run(opened.judge.engine.close())
    return Done(counts=counts, num_judged=0, num_cached=0, seconds=time.monotonic() - began)


def print_estimate(job: JudgeOptions, opened: Opened, items: Items, *, total: int | None = None) -> None:
    """Judge a few items for real and say what all of them will take.

    Args:
        total: How many there will be, where they are more than ``items``.
    """
    drawn = draw(items())
    began = time.monotonic()

    async def run() -> list[Judgment]:
        try:
            return await judge_items(opened.judge, drawn.items, max_in_flight=opened.recipe.max_in_flight)
        finally:
            await opened.judge.engine.close()

    judgments = asyncio.run(run())
    found = forecast(judgments, total=total or drawn.total, seconds=time.monotonic() - began)
    print(json.dumps({"estimate": found.as_json()}) if job.as_json else found.line())


def finish(
    job: JudgeOptions, done: Done, fields: dict[str, Any], lines: list[str], *, failed: bool = False
) -> NoReturn:
    """Print what came out, and exit 0, or 1 if it ``failed`` or above ``--max-unscored``."""
    counts = done.counts
    stream = sys.stderr if job.as_json else sys.stdout
    for line in (*lines, *counts.cut_lines):
        print(line, file=stream)
    if counts.unscored:
        num_unscored = counts.num_rows - counts.num_scored
        print(f"{num_unscored} of {counts.num_rows} have no score:", file=stream)
        for reason, count in counts.unscored.most_common():
            print(f"  {count:>7}  {reason}: {ADVICE[Reason(reason)]}", file=stream)
    if job.as_json:
        rate = done.num_judged / done.seconds if done.seconds else None
        timing = {"judged_now": done.num_judged, "from_store": done.num_cached, "seconds": round(done.seconds, 3)}
        print(json.dumps({**fields, **counts.summary(), **timing, "judgments_per_s": rate}, ensure_ascii=False))
    too_many = job.max_unscored is not None and counts.unscored_share > job.max_unscored
    if too_many:
        share = f"{100 * counts.unscored_share:.1f} %"
        print(f"flexreward: {share} unscored, more than --max-unscored allows", file=sys.stderr)
    raise typer.Exit(1 if too_many or failed else 0)


def headline(done: Done, out: Path) -> str:
    """``999 judged (4 from the store), 990 scored, 31 tied, 99.1 % of the replies read: out.jsonl``."""
    counts = done.counts
    parse_rate = "no reply" if counts.parse_rate is None else f"{100 * counts.parse_rate:.1f} % of the replies"
    judged = f"{counts.num_rows} judged ({done.num_judged} now, {done.num_cached} from the store)"
    return f"{judged}, {counts.num_scored} scored, {counts.num_ties} tied, {parse_rate} read: {out}"


def _count(job: JudgeOptions, items: Items) -> int | None:
    """How many there are; a pass over a local file is cheap beside the judging."""
    if isinstance(job, JobOptions) and not is_local(job.samples):
        return job.limit
    try:
        return sum(1 for _ in items())
    except SampleError:
        return None  # said at its place, after the rows before it are judged
