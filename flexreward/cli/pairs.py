"""``flexreward pairs``: completions in, preference pairs out."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from flexreward.cli.options import SampledOptions, takes_job

if TYPE_CHECKING:
    from flexreward.files.outcomes import Item
    from flexreward.files.samples import Sample

RAY = "Ray"


@takes_job
def pairs(
    job: SampledOptions,
    out: Annotated[
        str,
        typer.Option(
            "--out",
            metavar="DIR",
            help="A folder that `datasets` can load; with --ray also at an address that fsspec opens (s3://...).",
            show_default=False,
        ),
    ],
    keep: Annotated[
        str,
        typer.Option(
            "--keep",
            metavar="K",
            help="consistent, margin=NUMBER, widest=COUNT, ratio=NUMBER, first, uncut; several between commas.",
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
    truth: Annotated[
        str | None,
        typer.Option(
            "--truth",
            metavar="COLUMN",
            help="List of true/false or numbers, how good each completion is: the report then says how often the "
            "better one won. Default: 'right' where there is one.",
        ),
    ] = None,
    ray: Annotated[
        bool,
        typer.Option(
            "--ray",
            rich_help_panel=RAY,
            help="Spread the rows over the cluster that RAY_ADDRESS names, or over one begun on this machine. The "
            "folder ends as it does without.",
        ),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            rich_help_panel=RAY,
            help="Processes that hold judge and policy. Default: one a GPU of the cluster, else one.",
        ),
    ] = None,
    worker_gpus: Annotated[
        float | None,
        typer.Option(metavar="G", min=0, rich_help_panel=RAY, help="Of each. Default: 1 where the cluster has some."),
    ] = None,
    part_rows: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, rich_help_panel=RAY, help="Rows that are judged and written together. Default: 256."
        ),
    ] = None,
) -> None:
    """Judge the completions of each prompt two by two, and keep the pairs that survive an order flip.

    A pair is kept when the judge names the same winner in both orders and --keep asks for nothing more. What is dropped
    stands in dropped.jsonl with its reason: unscored, tied, flipped (each order names another winner), half_tied (one
    order ties), margin, not_widest, ratio (one text is more than NUMBER times as long), not_first (the later completion
    won), cut (one text was cut at its limit), unbalanced (surplus of --balance), duplicate (equal texts, never judged).
    Other rules on the same judgments: run it again with another --keep, nothing is judged twice.

    With --policy the file holds prompts: completions are drawn beside the judging and stand in sampled.jsonl with
    temperature, seed and whether they were cut. They are shown to the policy in its chat template and written as
    conversations, so that a trainer shows them in the same way.

    [bold]flexreward pairs sampled.jsonl --out runs/pairs --keep margin=2,widest=1[/bold]

    [bold]flexreward pairs prompts.jsonl --policy my-org/policy --completions 4 --out runs/pairs --keep uncut[/bold]

    With --ray workers judge the rows in parts, which stand in DIR/parts until all are there; run again, it goes on with
    those that are not. SAMPLES and --store are on the machine that the command runs on; media and models that are named
    by a path must be seen by every worker. At an address parts stand as they end, and what they are put together to is
    made in TMPDIR and sent there; nobody but you sees to it that one run at a time writes there.
    """
    from flexreward.cli import job as jobs
    from flexreward.cli.drawing import policy_recipe, source_of
    from flexreward.cli.pairs_estimate import print_pairs_estimate
    from flexreward.cli.pairs_ray import place_of, run_spread, spread_of
    from flexreward.errors import RecipeError
    from flexreward.files.outcomes import FIELDS as OUTCOME_FIELDS
    from flexreward.files.whole import update_summary
    from flexreward.pairs import build, card
    from flexreward.pairs.balance import parse_balance
    from flexreward.pairs.keep import parse_keep
    from flexreward.pairs.ray.parts import PARTS
    from flexreward.policy.sampled import SAMPLED
    from flexreward.report.pairs.page import write_pairs_report

    if not ray and (workers, worker_gpus, part_rows) != (None, None, None):
        raise RecipeError("--workers, --worker-gpus, --part-rows: need --ray")
    policy = policy_recipe(job)
    if policy is not None and policy.completions * len(policy.temperatures) < 2:
        raise RecipeError("a pair needs two completions: set --completions, or two --temperatures")
    if policy is not None and truth is not None:
        raise RecipeError(
            "--truth: holds one value a completion, and --policy draws other completions; --right tells of those"
        )
    recipe = jobs.recipe_of(job)
    plan = build.Plan(
        rules=parse_keep(keep),
        balance=parse_balance(balance),
        per_prompt=per_prompt,
        seed=job.seed or 0,
        limits=recipe.limits,
        truth="right" if truth is None and (policy is None or job.right) else truth,
    )
    reserved = {*OUTCOME_FIELDS, *build.FIELDS, *build.READ_BY_TRAINERS}

    def items_of(samples: Iterable[Sample]) -> Iterator[Item]:
        return build.pair_items(samples, per_prompt=plan.per_prompt, seed=plan.seed, template=opened.judge.template)

    with place_of(out, ray=ray) as place:
        folder = place.folder
        source = source_of(job, policy, folder / SAMPLED, reserved=reserved)
        if truth is not None:
            source.prompts = functools.partial(_with_truth, source.prompts, truth)
        first = source.first()
        if not recipe.both_orders:
            raise RecipeError("both_orders: false in the recipe, but a pair needs both orders; take another --judge")
        template = build.template_for(job.template, recipe.template, first)
        began, built = time.monotonic(), None
        if ray and not job.estimate:

            def is_whole() -> bool:
                nonlocal built
                built = build.build_judged(source.read, folder, plan)
                return built is not None

            spread = spread_of(job, source, recipe, workers=workers, gpus=worker_gpus, rows=part_rows)
            ran = run_spread(job, recipe, template, source, plan, place, spread, is_whole)
            built = built or build.build(source.read, folder, plan)
            done = jobs.Done(
                counts=built.judged,
                num_judged=ran.num_judged,
                num_cached=ran.num_cached,
                seconds=time.monotonic() - began,
            )
        else:
            opened = jobs.open_for(job, recipe, template)
            if job.estimate:
                print_pairs_estimate(job, opened, source, plan, items_of)
                return
            began = time.monotonic()
            if not job.overwrite and jobs.has_begun(opened, folder / build.OUTCOMES):
                built = build.build_judged(source.read, folder, plan)
            if built is None:
                done = source.judge_into(job, opened, items_of, folder / build.OUTCOMES)
                built = build.build(source.read, folder, plan)
            else:
                done = jobs.nothing_left(opened, built.judged, began)
        summary = {**built.summary(), "parse_rate": done.counts.parse_rate}
        update_summary(folder / "summary.json", summary)
        card.write_card(folder, summary)
        page = write_pairs_report(folder)
        place.send_all()
        place.remove(PARTS)
        lines = [*source.lines(), jobs.headline(done, folder / build.OUTCOMES), *card.lines_of(built, folder)]
        told = [place.told(line) for line in (*lines, f"report: {page}")]
        jobs.finish(job, done, {"out": place.told(str(folder)), **summary}, told)


def _with_truth(samples: Callable[[], Iterator[Sample]], column: str) -> Iterator[Sample]:
    """The samples, each of which says in ``column`` how good its completions are; raises SampleError at one that does
    not."""
    from flexreward.pairs.choose import truth_of

    for sample in samples():
        truth_of(sample, column)
        yield sample
