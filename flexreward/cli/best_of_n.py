"""``flexreward best-of-n``: the best completion of each prompt, and what choosing among N is worth."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flexreward.cli.options import JobOptions, takes_job

if TYPE_CHECKING:
    from flexreward.files.outcomes import Item
    from flexreward.files.samples import Sample


@takes_job
def best_of_n(
    job: JobOptions,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="FILE",
            help="best.jsonl, the choices; outcomes, curve and plot stand beside it. Or a folder for them all.",
            show_default=False,
        ),
    ],
    n: Annotated[
        str | None,
        typer.Option(
            "--n", metavar="1,2,...", help="Sizes of the choice. Default: 1,2,4,8,16 as far as the completions go."
        ),
    ] = None,
    truth: Annotated[
        str | None,
        typer.Option(
            "--truth",
            metavar="COLUMN",
            help="List of true/false or numbers, how good each completion is. Default: 'right' where there is one.",
        ),
    ] = None,
) -> None:
    """Score each completion alone, choose the best of each prompt, and draw the curve over N.

    The curve is exact: for each N the average over all subsets of that size and all draws among equal scores. An
    unscored completion ranks below every scored one. Beside the judge stand the oracle, which knows the truth, and a
    control whose scores are shuffled within each prompt, which gains nothing. Without a truth it shows the judge's own
    scores, which says nothing of accuracy.

    [bold]flexreward best-of-n sampled.jsonl --out runs/best --truth right[/bold]
    """
    from flexreward.cli import job as jobs
    from flexreward.pairs import choose, plot

    counts = choose.parse_counts(n) if n else None
    samples = jobs.read(job, reserved=choose.FIELDS)
    first = jobs.first_of(samples)
    column = truth or ("right" if "right" in first.extra else None)
    recipe = jobs.recipe_of(job)
    opened = jobs.open_for(job, recipe, choose.template_for(job.template, recipe.template))

    def checked() -> Iterator[Sample]:
        return choose.checked(jobs.read(job, reserved=choose.FIELDS), counts=counts, truth=column)

    def items() -> Iterator[Item]:
        return choose.completion_items(checked())

    if job.estimate:
        jobs.print_estimate(job, opened, items)
        return
    files = choose.Files.beside(out)
    done = jobs.judge_into(job, opened, items, files.outcomes)
    found = choose.choose_all(checked(), files, truth=column, counts=counts, seed=job.seed or 0)
    jobs.finish(
        job,
        done,
        {"out": str(files.best), "curve": str(files.curve), "plot": str(files.plot), **found},
        [*plot.table(found), jobs.headline(done, files.outcomes), f"choices: {files.best}, plot: {files.plot}"],
    )
