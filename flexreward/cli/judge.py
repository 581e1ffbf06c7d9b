"""``flexreward judge``: samples in, outcomes out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flexreward.cli.options import JUDGE, JobOptions, takes_job

if TYPE_CHECKING:
    from flexreward.files.outcomes import Item


@takes_job
def judge(
    job: JobOptions,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="Outcomes, JSONL; begun or gone on with.", show_default=False)
    ],
    one_order: Annotated[
        bool, typer.Option("--one-order", rich_help_panel=JUDGE, help="Show the completions only as they come.")
    ] = False,
) -> None:
    """Score every row's completions, each row one request.

    Two or more completions are shown to the judge in both orders, and their scores averaged. A reply that cannot be
    read is counted by its reason, never scored. Interrupted or killed, the same command goes on where it stopped.

    [bold]flexreward judge samples.jsonl --out outcomes.jsonl[/bold]

    [bold]flexreward judge testset-v1.json --out pandalm.jsonl --map id=idx --map completions=response1,response2
    --map prompt='{instruction} {input}'[/bold]
    """
    from flexreward.cli import job as jobs
    from flexreward.files.away import here
    from flexreward.files.outcomes import FIELDS
    from flexreward.jobs.run import fitting, items_of

    out = here(out)
    first = jobs.first_of(jobs.read(job, reserved=FIELDS))
    recipe = jobs.recipe_of(job, both_orders=False if one_order else None)
    opened = jobs.open_for(job, recipe, job.template or recipe.template or fitting(first))

    def items() -> Iterator[Item]:
        return items_of(jobs.read(job, reserved=FIELDS), opened.judge.template)

    if job.estimate:
        jobs.print_estimate(job, opened, items)
        return
    done = jobs.judge_into(job, opened, items, out)
    fields = {"out": str(out), "judge": opened.judge.fingerprint, "template": opened.judge.template.id}
    jobs.finish(job, done, fields, [jobs.headline(done, out)])
