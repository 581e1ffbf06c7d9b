"""``flexreward eval``: how good a judge is, beside people, on a published benchmark."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flexreward.cli.options import JUDGE, ROWS, RUN, JudgeOptions, takes_job

if TYPE_CHECKING:
    from flexreward.cli.job import Done
    from flexreward.evals.run import RunFolder, Selection

BENCH = "Benchmark"


class Protocol(StrEnum):
    """How the judge is asked."""

    STRICT = "strict"
    PUBLISHED = "published"


class Shown(StrEnum):
    """In which order the judge sees the completions."""

    GIVEN = "given"
    BOTH = "both"
    RANDOM = "random"


class Reader(StrEnum):
    """Who reads replies that exist."""

    PUBLISHED = "published"
    TEMPLATE = "template"


@takes_job
def eval_(
    job: JudgeOptions,
    benchmark: Annotated[
        str | None,
        typer.Argument(metavar="BENCHMARK", help="Its name; --list shows them all.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            rich_help_panel=BENCH,
            help="The run folder; begun or gone on with.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="DIR",
            rich_help_panel=BENCH,
            help="A folder with the publisher's files as they are. Default: the hub, at the revision of the figures.",
        ),
    ] = None,
    revision: Annotated[
        str | None,
        typer.Option(
            "--revision",
            metavar="REV",
            rich_help_panel=BENCH,
            help="Another commit of the hub's data set. A run goes on only with the one it began on.",
        ),
    ] = None,
    replies: Annotated[
        Path | None,
        typer.Option(
            "--replies",
            metavar="FILE",
            rich_help_panel=BENCH,
            help="Replies that exist, JSONL of id and reply, and order and sample where needed. No model is called.",
        ),
    ] = None,
    reader: Annotated[
        Reader | None,
        typer.Option(
            "--reader",
            rich_help_panel=BENCH,
            help="Who reads --replies: the benchmark's publisher, where it has a reader of its own, or the template.",
        ),
    ] = None,
    protocol: Annotated[
        Protocol,
        typer.Option(
            "--protocol",
            rich_help_panel=BENCH,
            help="How to ask: strict, both orders and the judge's own sampling; published, as the source did. Both "
            "kinds of figures are told either way.",
        ),
    ] = Protocol.STRICT,
    orders: Annotated[
        Shown | None,
        typer.Option(
            "--orders",
            rich_help_panel=JUDGE,
            help="As in the file, both, or one drawn for each row. Default: the protocol's.",
        ),
    ] = None,
    subset: Annotated[
        str | None, typer.Option("--subset", metavar="GROUP", rich_help_panel=ROWS, help="Only rows of this group.")
    ] = None,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            rich_help_panel=RUN,
            help="Also write DIR/calibrator.json, which a recipe of this judge takes as calibrator.",
        ),
    ] = False,
    list_: Annotated[bool, typer.Option("--list", help="The benchmarks by name, and stop.")] = False,
) -> None:
    """Judge the rows of a benchmark and compare with what people said.

    The folder gets the outcomes, summary.json and report.html: the source's figures as its code computes them, the
    same computed strictly, and the difference; intervals, biases, calibration, what more votes buy, and every verdict
    to read. A reply that cannot be read is counted by its reason. Interrupted or killed, the same command goes on
    where it stopped, and until all rows are judged the run is a half-run, without a score.

    [bold]flexreward eval pandalm --data PandaLM/data --judge tiny --limit 8 --out runs/pandalm[/bold]

    [bold]flexreward eval judgebench --data JudgeBench --replies gpt4o.jsonl --out runs/gpt4o[/bold]
    """
    from flexreward.errors import RecipeError
    from flexreward.evals import load_benchmark
    from flexreward.evals.run import RunFolder, Selection
    from flexreward.evals.source import open_folder

    if list_:
        _print_list(as_json=job.as_json)
        return
    if benchmark is None:
        raise RecipeError("which benchmark? flexreward eval --list names them")
    chosen = load_benchmark(benchmark)
    if out is None and not job.estimate:
        raise RecipeError("--out DIR is missing: where the run goes")
    folder = open_folder(chosen.source, data, revision=revision)
    selection = Selection(benchmark=chosen, folder=folder, subset=subset, limit=job.limit)
    run = RunFolder(path=out or Path())
    if replies is None:
        if reader is not None:
            raise RecipeError("--reader is for --replies; a judge's own replies are read by its template")
        _judge(job, selection, run, protocol, orders, calibrate=calibrate)
    else:
        _refuse_beside_replies(job, orders, calibrate=calibrate)
        _read(job, selection, run, replies, reader)


def _judge(
    job: JudgeOptions,
    selection: Selection,
    run: RunFolder,
    protocol: Protocol,
    orders: Shown | None,
    *,
    calibrate: bool,
) -> None:
    """Ask a judge about every row that the run does not hold yet."""
    from dataclasses import replace

    from flexreward.cli import job as jobs
    from flexreward.errors import OutputError, RecipeError
    from flexreward.evals import run as runs
    from flexreward.files.outcome_file import OutcomeFile
    from flexreward.files.outcomes import header_of
    from flexreward.templates import load_template

    drawn = selection.benchmark.drawn
    asked = orders or (Shown(drawn.orders) if protocol is Protocol.PUBLISHED else Shown.BOTH)
    changes: dict[str, object] = {"both_orders": asked is Shown.BOTH}
    if protocol is Protocol.PUBLISHED:
        changes |= {"top_p": drawn.top_p}
        changes |= {"votes": drawn.samples} if job.votes is None else {}
        changes |= {"temperature": drawn.temperature} if job.temperature is None else {}
    recipe = jobs.recipe_of(job, **changes)
    if recipe.stop_error is not None:
        raise RecipeError("stop: an evaluation tells what each vote is worth, and reads them all; leave it out")
    if protocol is Protocol.PUBLISHED:
        selection = replace(selection, image_size=drawn.image_size)
    template = load_template(job.template or selection.benchmark.template)
    order_seed = recipe.seed if asked is Shown.RANDOM else None
    if job.estimate:
        opened = jobs.open_for(job, recipe, template.id, order_seed=order_seed)
        jobs.print_estimate(job, opened, selection.items)
        return
    fields = runs.fields_of(selection)
    runs.refuse_other(run, fields, overwrite=job.overwrite)
    num_rows = runs.survey(selection, template, run, overwrite=job.overwrite)
    opened = jobs.open_for(job, recipe, job.template or selection.benchmark.template, order_seed=order_seed)
    # Opened once for nothing, so that a folder of another judge is refused before its summary is touched.
    with OutcomeFile(run.outcomes, header_of(opened.judge), overwrite=job.overwrite):
        sampling = opened.judge.sampling
        told = {
            **{"name": protocol.value, "orders": asked.value, "votes": sampling.n, "waits": recipe.waits},
            **({} if recipe.think is None else {"think": recipe.think}),
            **{"temperature": sampling.temperature, "top_p": sampling.top_p, "seed": recipe.seed},
            **({} if selection.image_size is None else {"image_size": list(selection.image_size)}),
        }
        before = runs.begin(run, {**fields, "expected_rows": num_rows, "protocol": told}, overwrite=job.overwrite)
    try:
        done = jobs.judge_into(job, opened, selection.items, run.outcomes, total=num_rows)
    except OutputError:  # the rows are others than those that are there: what was a run still is one
        runs.restore(run, before)
        raise
    except KeyboardInterrupt:
        runs.conclude(run, selection.benchmark, seed=recipe.seed)
        raise
    runs.add_work(run, judged=done.num_judged - done.num_cached, seconds=done.seconds)
    _conclude(job, selection, run, done, seed=recipe.seed, calibrate=calibrate)


def _read(job: JudgeOptions, selection: Selection, run: RunFolder, replies: Path, reader: Reader | None) -> None:
    """Read replies that exist."""
    import sys
    import time

    from flexreward.cli.job import Done
    from flexreward.evals import run as runs
    from flexreward.evals.replies import RepliesJudge
    from flexreward.files.outcomes import read_outcomes
    from flexreward.jobs.tally import tally

    began = time.monotonic()
    judge = RepliesJudge(replies, selection.benchmark, reader=reader.value if reader else None, template=job.template)
    fields = runs.fields_of(selection)
    runs.refuse_other(run, fields, overwrite=job.overwrite)
    coverage = judge.check(selection.benchmark.rows(selection.folder))
    if coverage.line:
        print(f"flexreward: {replies}: {coverage.line}", file=sys.stderr)
    num_rows = runs.survey(selection, None, run, overwrite=True)
    with runs.outcome_file_of(judge, run, overwrite=job.overwrite) as file:
        told = {"name": "replies", "file": replies.name, "reader": judge.reader}
        runs.begin(run, {**fields, "expected_rows": num_rows, "protocol": told}, overwrite=job.overwrite)
        num_read = runs.write_replies(judge, selection, file)
    done = Done(
        counts=tally(read_outcomes(run.outcomes)), num_judged=num_read, num_cached=0, seconds=time.monotonic() - began
    )
    _conclude(job, selection, run, done, seed=job.seed or 0, calibrate=False)


def _conclude(
    job: JudgeOptions, selection: Selection, run: RunFolder, done: Done, *, seed: int, calibrate: bool
) -> None:
    """Work out the figures, write the pages, print the table."""
    from flexreward.calibrator import save_calibrator
    from flexreward.cli import job as jobs
    from flexreward.evals import run as runs
    from flexreward.evals.calibrate import required
    from flexreward.evals.table_text import lines_of
    from flexreward.report import write_report

    found, calibration = runs.conclude(run, selection.benchmark, seed=seed)
    if calibrate and calibration is not None:
        save_calibrator(required(calibration), run.calibrator)
    page = write_report(run.path, None)
    lines = lines_of(found)
    if calibrate and calibration is not None:
        lines.append(f"calibrator: {run.calibrator}")
    lines.append(f"page: {page}")
    told = {
        name: found.get(name) for name in ("benchmark", "headline", "complete", "expected_rows", "published", "strict")
    }
    jobs.finish(job, done, {"out": str(run.path), "page": str(page), **told}, lines, failed=not found["complete"])


def _refuse_beside_replies(job: JudgeOptions, orders: Shown | None, *, calibrate: bool) -> None:
    from flexreward.errors import RecipeError

    given = {
        "--judge": job.judge,
        "--votes": job.votes,
        "--waits": job.waits,
        "--think": job.think,
        "--temperature": job.temperature,
        "--orders": orders,
        "--estimate": job.estimate or None,
        "--calibrate": calibrate or None,
    }
    for name, value in given.items():
        if value is not None:
            raise RecipeError(f"{name} and --replies exclude each other: no judge is asked; leave one of them out")


def _print_list(*, as_json: bool) -> None:
    import json

    from flexreward.evals import BENCHMARKS, load_benchmark

    found = [load_benchmark(name) for name in BENCHMARKS]
    if as_json:
        rows = [{"name": b.name, "title": b.title, "task": b.task, "hub": b.source.hub} for b in found]
        print(json.dumps({"benchmarks": rows}, ensure_ascii=False))
        return
    for b in found:
        size = f"{b.source.num_rows} rows" if b.source.num_rows else ""
        where = f"hub {b.source.hub}" if b.source.hub else "--data needed"
        print(f"{b.name:<24} {b.task:<8} {size:<11} {where:<44} {b.title}")
