"""Best-of-N over files: completions judged, the best chosen, the curve written and drawn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from flexreward.errors import RecipeError, SampleError
from flexreward.files.outcomes import Item, encode
from flexreward.files.samples import Sample
from flexreward.files.whole import replaced, update_summary
from flexreward.pairs.best_of_n import Prompt, curve
from flexreward.pairs.bracket import Known
from flexreward.pairs.contest import Contest, Counts, Plan, Standing
from flexreward.pairs.plot import LINES, draw
from flexreward.pairs.rounds import check_shown, contest_of, known_of, request_of, round_counts
from flexreward.types import Completion, Media, Message, Molecule

if TYPE_CHECKING:
    from flexreward.templates import Template

FIELDS = ("id", "prompt", "completion", "index", "score", "scores", "tied", "num_unscored")
"""What a line of the choices holds before the columns that are carried through."""

DEFAULT_COUNTS = (1, 2, 4, 8, 16)

POINTWISE = Plan()


class Files(NamedTuple):
    """Where the results stand."""

    best: Path
    outcomes: Path
    curve: Path
    plot: Path
    summary: Path
    sampled: Path
    """What a policy has drawn."""

    @classmethod
    def beside(cls, out: Path) -> Files:
        """``runs/best.jsonl`` gets ``runs/best.outcomes.jsonl`` and so on; a folder holds them under plain names."""
        stem = out.with_suffix("").name + "." if out.suffix else ""
        folder = out.parent if out.suffix else out
        return cls(
            best=out if out.suffix else folder / "best.jsonl",
            outcomes=folder / f"{stem}outcomes.jsonl",
            curve=folder / f"{stem}curve.json",
            plot=folder / f"{stem}curve.png",
            summary=folder / f"{stem}summary.json",
            sampled=folder / f"{stem}sampled.jsonl",
        )


def parse_counts(text: str) -> tuple[int, ...]:
    """``--n 1,2,4``."""
    parts = text.split(",")
    if all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        return tuple(sorted({int(part) for part in parts}))
    raise RecipeError(f"--n {text}: expected whole numbers between commas, such as 1,2,4")


def checked(
    samples: Iterable[Sample],
    *,
    counts: Sequence[int] | None,
    truth: str | None,
    plan: Plan = POINTWISE,
    template: Template | None = None,
) -> Iterator[Sample]:
    """The samples, each with enough completions, a truth for each, and nothing that ``template`` cannot show."""
    for sample in samples:
        count = len(sample.completions)
        if counts and count < max(counts):
            raise SampleError(f"{sample.where}: has {count} completions, --n asks for {max(counts)}")
        known = contest_of(sample, plan).sizes()
        if unknown := sorted(set(counts or ()) - known):
            raise SampleError(
                f"{sample.where}: a bracket of {count} completions holds choices among "
                f"{', '.join(map(str, sorted(known)))}, --n asks for {unknown[0]}"
            )
        if truth is not None:
            truth_of(sample, truth)
        if template is not None:
            check_shown(sample, plan, template)
        yield sample


def truth_of(sample: Sample, column: str) -> tuple[float, ...]:
    """How good each completion really is."""
    values = sample.extra.get(column)
    if not isinstance(values, list) or not all(isinstance(v, bool | int | float) for v in values):
        raise SampleError(
            f"{sample.where}: --truth {column}: expected a list of true/false or numbers, one a completion"
        )
    if len(values) != len(sample.completions):
        raise SampleError(
            f"{sample.where}: --truth {column} has {len(values)} values for {len(sample.completions)} completions"
        )
    return tuple(float(value) for value in values)


def completion_items(samples: Iterable[Sample]) -> Iterator[Item]:
    """A request a completion: ``q1#0`` is the first of q1."""
    for sample in samples:
        for index in range(len(sample.completions)):
            yield Item(request_of(sample, (index,)), {})


def choose_all(
    samples: Iterable[Sample],
    files: Files,
    *,
    truth: str | None,
    counts: Sequence[int] | None,
    seed: int,
    plan: Plan = POINTWISE,
) -> dict[str, Any]:
    """Write the choices, the curve and its plot from the outcomes; the results as plain JSON.

    Without a truth the curve is over the judge's own scores, as shares of the scale: no oracle, no control, and only
    the prompts of which every completion has a score.
    """
    prompts: list[Prompt] = []
    num_left_out = 0
    totals = Counts()
    known_sizes = set(counts or DEFAULT_COUNTS)
    with replaced(files.best) as best:
        for sample, known in known_of(samples, files.outcomes, plan, round_counts(files.outcomes, plan)):
            contest = contest_of(sample, plan)
            standing = contest.standing(known)
            totals += standing.counts
            best.write(encode(_choice_row(sample, standing)))
            if truth is None and None in standing.given:
                num_left_out += 1
                continue
            known_sizes &= contest.sizes()
            prompts.append(_prompt(contest, known, standing, truth_of(sample, truth) if truth else None, known_sizes))
    sizes = sorted(known_sizes) if prompts else []
    found = {
        "truth": truth,
        **({} if plan.method == "pointwise" else {"method": plan.method, "counts": totals.as_json()}),
        "num_left_out": num_left_out,
        **curve(prompts, sizes, seed=seed).as_json(),
    }
    if not truth:
        del found["oracle"], found["shuffled"]
    with replaced(files.curve) as file:
        file.write(encode(found))
    means = {line: {n: e["mean"] for n, e in found[line].items()} for line in LINES if line in found}
    update_summary(files.summary, means if truth else {"score_by_n": means["best_of_n"]})
    draw(found, files.plot)
    return found


def _prompt(
    contest: Contest, known: Known, standing: Standing, truth: tuple[float, ...] | None, sizes: Iterable[int]
) -> Prompt:
    worth = tuple(share for share in standing.given if share is not None) if truth is None else truth
    if contest.plan.method == "pointwise":
        return Prompt(standing.places, worth)
    return Prompt(standing.places, worth, {n: contest.draws(known, n) for n in sizes})


def _choice_row(sample: Sample, standing: Standing) -> dict[str, Any]:
    """The first of those that share the best place is the choice; nothing is, where nothing could be read."""
    index = standing.best[0] if standing.best else None
    text = None if index is None else sample.completions[index]
    return {
        "id": sample.id,
        "prompt": _plain(sample.prompt),
        "completion": _plain(text),
        "index": index,
        "score": None if index is None else standing.scores[index],
        "scores": list(standing.scores),
        "tied": list(standing.best) if len(standing.best) > 1 else [],
        "num_unscored": standing.num_unscored,
        **sample.extra,
    }


def _plain(value: Completion | Molecule | None) -> Any:
    """As JSON; of a medium where it lies, or what its bytes are known by."""
    if isinstance(value, Molecule):
        return {value.kind: value.smiles}
    if isinstance(value, Media):
        return {value.kind: str(value.path) if value.path is not None else f"sha256:{value.digest}"}
    return [{"role": turn.role, "content": _parts(turn)} for turn in value] if isinstance(value, tuple) else value


def _parts(turn: Message) -> Any:
    if isinstance(turn.content, str):
        return turn.content
    return [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": part.kind, **_plain(part)}
        for part in turn.content
    ]
