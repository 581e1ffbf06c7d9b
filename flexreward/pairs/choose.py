"""Best-of-N over files: completions judged, the best chosen, the curve written and drawn."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flexreward.errors import OutputError, RecipeError, SampleError
from flexreward.files.outcomes import Item, encode, read_header, read_outcomes, request_digest
from flexreward.files.samples import Sample
from flexreward.files.whole import replaced, update_summary
from flexreward.groups import first_equals
from flexreward.pairs.best_of_n import Prompt, curve
from flexreward.pairs.bracket import Found, Known, Members
from flexreward.pairs.contest import Contest, Counts, Plan, Standing
from flexreward.pairs.plot import LINES, draw
from flexreward.templates.fitting import fitting_id
from flexreward.types import Completion, JudgeRequest, Media, Message, Scale

FIELDS = ("id", "prompt", "completion", "index", "score", "scores", "tied", "num_unscored")
"""What a line of the choices holds before the columns that are carried through."""

DEFAULT_COUNTS = (1, 2, 4, 8, 16)

POINTWISE = Plan()
SHOWS = {1: ("each completion alone", "score"), 2: ("two completions", "pair"), None: ("many completions", "batch")}
"""By how many a judgment shows: in words, and the bundled template for texts."""


class Files(NamedTuple):
    """Where the results stand."""

    best: Path
    outcomes: Path
    curve: Path
    plot: Path
    summary: Path

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
        )


def parse_counts(text: str) -> tuple[int, ...]:
    """``--n 1,2,4``."""
    parts = text.split(",")
    if all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        return tuple(sorted({int(part) for part in parts}))
    raise RecipeError(f"--n {text}: expected whole numbers between commas, such as 1,2,4")


def template_for(flag: str | None, recipe: str | None, plan: Plan = POINTWISE, sample: Sample | None = None) -> str:
    """A template that shows as many as the method does: the flag's, else the recipe's if it does, else the one that
    fits the first sample.

    Raises:
        RecipeError: The flag's does not.
        SampleError: No bundled one shows such a sample.
    """
    from flexreward.templates import load_template

    if flag is not None and load_template(flag).num_completions != plan.shown_at_once:
        takes, usual = SHOWS[plan.shown_at_once]
        raise RecipeError(f"--template {flag}: --method {plan.method} shows {takes}, such as {usual} does")
    if flag is None and recipe is not None and load_template(recipe).num_completions == plan.shown_at_once:
        return recipe
    if flag is not None:
        return flag
    if sample is None:
        return SHOWS[plan.shown_at_once][1]
    first, *_ = sample.completions
    found = fitting_id((first,) * (plan.shown_at_once or 3), sample.media)
    if found is None:
        shown = first.kind if isinstance(first, Media) else "text"
        raise SampleError(
            f"{sample.where}: no bundled template shows {SHOWS[plan.shown_at_once][0]} that are {shown} with what the "
            f"prompt brings; give --template one that does, or take another --method"
        )
    return found


def checked(
    samples: Iterable[Sample], *, counts: Sequence[int] | None, truth: str | None, plan: Plan = POINTWISE
) -> Iterator[Sample]:
    """The samples, each with enough completions and a truth for each of them."""
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


def contest_of(sample: Sample, plan: Plan) -> Contest:
    """The completions of a sample against each other."""
    # Scored alone, equal ones have a line each, and are one request, which is bought once.
    alone = plan.method == "pointwise"
    same = tuple(range(len(sample.completions))) if alone else first_equals(sample.completions)
    return Contest(plan=plan, id=sample.id, same=same)


def completion_items(samples: Iterable[Sample]) -> Iterator[Item]:
    """A request a completion: ``q1#0`` is the first of q1."""
    for sample in samples:
        for index in range(len(sample.completions)):
            yield Item(request_of(sample, (index,)), {})


def request_of(sample: Sample, members: Members) -> JudgeRequest:
    """``q1#0-3``: the first completion of q1 with its fourth."""
    return sample.only(members, id=f"{sample.id}#{'-'.join(map(str, members))}")


def round_items(samples: Iterable[Sample], path: Path, plan: Plan, counts: Sequence[int]) -> Iterator[Item]:
    """What is to be judged in the round after those of ``counts`` rows each, which stand in the outcome file."""
    number = {"round": len(counts) + 1} if plan.has_rounds else {}
    for sample, known in _known(samples, path, plan, counts):
        for members in contest_of(sample, plan).asks(known):
            yield Item(request_of(sample, members), number)


def most_judgments(samples: Iterable[Sample], plan: Plan) -> int | None:
    """How many all of them take at most; ``None`` where a row is bad, which is said at its place."""
    try:
        return sum(contest_of(sample, plan).most_judgments() for sample in samples)
    except SampleError:
        return None


def _known(
    samples: Iterable[Sample], path: Path, plan: Plan, counts: Sequence[int]
) -> Iterator[tuple[Sample, dict[Members, Found]]]:
    """Each sample with what rounds of ``counts`` rows each have found of it. Only one sample is held at a time."""
    if not counts:
        yield from ((sample, {}) for sample in samples)
        return
    scale = Scale(**dict(zip(("low", "high"), read_header(path)["template"]["scale"], strict=True)))
    starts = [sum(counts[:number]) for number in range(len(counts))]
    rounds = [
        itertools.islice(read_outcomes(path, after=start), count) for start, count in zip(starts, counts, strict=True)
    ]
    for sample in samples:
        contest = contest_of(sample, plan)
        known: dict[Members, Found] = {}
        for rows in rounds:
            for members in contest.asks(known):
                known[members] = _found(sample, members, next(rows, None), path, scale)
        yield sample, known


def _found(sample: Sample, members: Members, row: Mapping[str, Any] | None, path: Path, scale: Scale) -> Found:
    request = request_of(sample, members)
    if row is None or (row["id"], row["request"]) != (request.id, request_digest(request)):
        raise OutputError(
            f"{path}: does not go on with {request.id!r}: the samples changed; run again with --overwrite"
        )
    winners = {_winner(order["scores"]) for order in row["orders"] if order["scores"]}
    expected = row.get("expected")
    return Found(
        scores=tuple(row["scores"]) if row["scores"] else None,
        scale=scale,
        flipped=len(winners) > 1 and all(order["scores"] for order in row["orders"]),
        expected=tuple(expected) if expected else None,
    )


def _winner(scores: Sequence[float]) -> int | None:
    best = max(scores)
    return scores.index(best) if scores.count(best) == 1 else None


def round_counts(path: Path, plan: Plan) -> list[int]:
    """Rows of each round of a file that is complete."""
    if not plan.has_rounds:
        return [sum(1 for _ in read_outcomes(path))]
    numbers = (row["round"] for row in read_outcomes(path))
    return [sum(1 for _ in rows) for _, rows in itertools.groupby(numbers)]


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
        for sample, known in _known(samples, files.outcomes, plan, round_counts(files.outcomes, plan)):
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


def _plain(value: Completion | None) -> Any:
    """As JSON; of a medium where it lies, or what its bytes are known by."""
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
