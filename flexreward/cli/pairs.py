"""``flexreward pairs``: completions in, preference pairs out."""

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
def pairs(
    job: JobOptions,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="A folder that `datasets` can load.", show_default=False)
    ],
    keep: Annotated[
        str,
        typer.Option(
            "--keep",
            metavar="K",
            help="consistent, margin=NUMBER, widest=COUNT, ratio=NUMBER, first; several between commas.",
        ),
    ] = "consistent",
    balance: Annotated[
        str,
        typer.Option(
            metavar="TRAIT",
            help="length: as many longer winners as shorter ones. position: as many that stood first. Or both.",
        ),
    ] = "",
    per_prompt: Annotated[
        int | None,
        typer.Option(
            "--pairs-per-prompt", metavar="P", min=1, help="Judge only P of a prompt's pairs, drawn by --seed."
        ),
    ] = None,
) -> None:
    """Judge the completions of each prompt two by two, and keep the pairs that survive an order flip.

    A pair is kept when the judge names the same winner in both orders and --keep asks for nothing more. What is dropped
    stands in dropped.jsonl with its reason: unscored, tied, flipped (each order names another winner), half_tied (one
    order ties), margin, not_widest, ratio (one text is more than NUMBER times as long), not_first (the later completion
    won), unbalanced (surplus of --balance), duplicate (equal texts, never judged). Other rules on the same judgments:
    run it again with another --keep, nothing is judged twice.

    [bold]flexreward pairs sampled.jsonl --out runs/pairs --keep margin=2,widest=1[/bold]
    """
    from flexreward.cli import job as jobs
    from flexreward.errors import RecipeError
    from flexreward.files.outcomes import FIELDS as OUTCOME_FIELDS
    from flexreward.files.whole import update_summary
    from flexreward.pairs import build, card
    from flexreward.pairs.balance import parse_balance
    from flexreward.pairs.keep import parse_keep

    recipe = jobs.recipe_of(job)
    plan = build.Plan(
        rules=parse_keep(keep),
        balance=parse_balance(balance),
        per_prompt=per_prompt,
        seed=job.seed or 0,
        limits=recipe.limits,
    )
    reserved = {*OUTCOME_FIELDS, *build.FIELDS, *build.READ_BY_TRAINERS}

    def read() -> Iterator[Sample]:
        return jobs.read(job, reserved=reserved)

    first = jobs.first_of(read())
    if not recipe.both_orders:
        raise RecipeError("both_orders: false in the recipe, but a pair needs both orders; take another --judge")
    opened = jobs.open_for(job, recipe, build.template_for(job.template, recipe.template, first))

    def items() -> Iterator[Item]:
        return build.pair_items(read(), per_prompt=plan.per_prompt, seed=plan.seed, template=opened.judge.template)

    if job.estimate:
        jobs.print_estimate(job, opened, items)
        return
    done = jobs.judge_into(job, opened, items, out / build.OUTCOMES)
    counts = build.build(read, out, plan)
    summary = {**counts.summary(), "parse_rate": done.counts.parse_rate}
    update_summary(out / "summary.json", summary)
    card.write_card(out, summary)
    jobs.finish(
        job,
        done,
        {"out": str(out), **summary},
        [jobs.headline(done, out / build.OUTCOMES), *card.lines_of(counts, out)],
    )
