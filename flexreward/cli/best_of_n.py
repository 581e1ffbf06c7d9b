"""``flexreward best-of-n``: the best completion of each prompt, and what choosing among N is worth."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flexreward.cli.options import SampledOptions, takes_job

if TYPE_CHECKING:
    from flexreward.files.outcomes import Item
    from flexreward.files.samples import Sample
    from flexreward.types import Judgment


@takes_job
def best_of_n(
    job: SampledOptions,
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
    method: Annotated[
        str,
        typer.Option("--method", metavar="M", help="pointwise, knockout, round-robin, bradley-terry or listwise."),
    ] = "pointwise",
    ties: Annotated[
        str,
        typer.Option(
            "--ties",
            help="draws: averaged over them, or one seeded draw in a knockout. expected: broken by the expected score "
            "at the answer's number, from the engine's log-probabilities.",
        ),
    ] = "draws",
    list_size: Annotated[
        int,
        typer.Option(
            "--list-size", metavar="L", help="Most completions in one listwise prompt; more are a knockout of lists."
        ),
    ] = 16,
) -> None:
    """Choose the best completion of each prompt, and draw the curve over N.

    Five methods. pointwise scores each alone: k judgments for k completions. knockout sets two against each other in
    both orders, and the better goes on: k - 1 judgments, a round at a time. round-robin sets every two against each
    other, and the highest win rate is best: k (k - 1) / 2 judgments. bradley-terry reads the same judgments as
    strengths. listwise shows all at once, forward and reversed: one judgment, or a knockout of lists where there are
    more than --list-size. Equal completions are bought once.

    What cannot be read is never a score and beats nobody that was read: it ranks below every scored completion, and a
    pair without a verdict counts for neither. In a knockout such a pair is decided by who was read before, else by a
    seeded draw, and counted (unread); a pair whose orders disagree by its averaged scores (flipped), and a tie by a
    seeded draw (drawn). Where nothing could be read there is no choice.

    The whole curve comes from one sampling, and no N is judged anew. pointwise is exact: the average over all subsets
    of that size and all draws among equal scores. listwise is the same within a list, by the scores given there.
    round-robin and bradley-terry count only games between a subset's members, over all subsets, or 128 (70) of them. A
    knockout's N are the parts of its own drawn bracket: 1, 2, 4 ... and all. Beside the judge stand the oracle, which
    knows the truth, and a control whose choices are shuffled within each prompt, which gains nothing; intervals are
    95 % of a bootstrap over prompts. Without a truth it shows the judge's own scores, which says nothing of accuracy.

    [bold]flexreward best-of-n sampled.jsonl --out runs/best --truth right[/bold]

    [bold]flexreward best-of-n sampled.jsonl --out runs/cup --method knockout --n 1,2,4,8[/bold]

    [bold]flexreward best-of-n prompts.jsonl --policy my-org/policy --n 1,2,4,8 --right number --out runs/best[/bold]
    """
    from flexreward.cli import job as jobs
    from flexreward.cli.drawing import policy_recipe, source_of
    from flexreward.cli.policy_estimate import print_drawn_estimate
    from flexreward.errors import RecipeError
    from flexreward.files.away import here
    from flexreward.pairs import choose, plot, rank, rounds
    from flexreward.pairs.contest import Plan

    counts = choose.parse_counts(n) if n else None
    plan = Plan(method=method, list_size=list_size, seed=job.seed or 0)  # type: ignore[arg-type]  # it checks the name
    files = choose.Files.beside(here(out))
    policy = policy_recipe(job, temperatures=[1.0], completions=max(counts or choose.DEFAULT_COUNTS))
    source = source_of(job, policy, files.sampled, reserved=choose.FIELDS)
    first = source.first()
    column = truth or ("right" if "right" in first.extra else None)
    recipe = jobs.recipe_of(job)
    if plan.compares and not recipe.both_orders:
        raise RecipeError(f"both_orders: false in the recipe, but {plan.method} needs both; take another --judge")
    opened = jobs.open_for(job, recipe, rounds.template_for(job.template, recipe.template, plan, first))
    judge = rank.judge_for(opened.judge, ties)  # type: ignore[arg-type]  # it checks the name
    opened = replace(opened, judge=judge)
    expect = rank.expect_of(judge)

    def checked(samples: Iterable[Sample]) -> Iterator[Sample]:
        return choose.checked(samples, counts=counts, truth=column, plan=plan, template=judge.template)

    def next_round(done: Sequence[int]) -> Iterator[Item]:
        return rounds.round_items(checked(source.read()), files.outcomes, plan, done)

    def items_of(samples: Iterable[Sample]) -> Iterator[Item]:
        return rounds.round_items(checked(samples), files.outcomes, plan, ())

    def columns(judgment: Judgment) -> dict[str, Any]:
        return {} if ties == "draws" else {"expected": expect(judgment)}

    if job.estimate and policy is not None:
        most = (lambda samples: rounds.most_judgments(samples, plan)) if plan.has_rounds else None
        print_drawn_estimate(job, opened, source, items_of, most)
        return
    if plan.has_rounds:
        source.draw(job, opened)
    total = rounds.most_judgments(checked(source.read()), plan) if plan.has_rounds else None
    if job.estimate:
        jobs.print_estimate(job, opened, lambda: next_round(()), total=total)
        return
    if plan.has_rounds:
        done = jobs.judge_into(
            job, opened, lambda: next_round(()), files.outcomes, total=total, rounds=next_round, columns=columns
        )
    else:
        done = source.judge_into(job, opened, items_of, files.outcomes, columns=columns)
    found = choose.choose_all(checked(source.read()), files, truth=column, counts=counts, seed=job.seed or 0, plan=plan)
    jobs.finish(
        job,
        done,
        {"out": str(files.best), "curve": str(files.curve), "plot": str(files.plot), **found},
        [
            *source.lines(),
            *plot.table(found),
            jobs.headline(done, files.outcomes),
            f"choices: {files.best}, plot: {files.plot}",
        ],
    )
