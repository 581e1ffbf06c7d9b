"""Contests over files: which template shows them, what each round asks, and what the outcome file knows of each.

A file holds a contest's rounds one after another, each in the order of the samples. What a round asks follows from the
samples and the rounds before it alone, so whoever reads them again finds the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flexreward.errors import OutputError, RecipeError, SampleError
from flexreward.files.outcomes import Item, read_header, read_outcomes, request_digest
from flexreward.files.samples import Sample
from flexreward.groups import first_equals
from flexreward.pairs.bracket import Found, Members
from flexreward.pairs.contest import Contest, Plan
from flexreward.templates.fitting import fitting_id
from flexreward.types import JudgeRequest, Media, Scale

if TYPE_CHECKING:
    from flexreward.templates import Template

SHOWS = {1: ("each completion alone", "score"), 2: ("two completions", "pair"), None: ("many completions", "batch")}
"""By how many a judgment shows: in words, and the bundled template for texts."""


def template_for(flag: str | None, recipe: str | None, plan: Plan, sample: Sample) -> str:
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
    first, *_ = sample.completions
    found = fitting_id((first,) * (plan.shown_at_once or 3), sample.media)
    if found is None:
        shown = first.kind if isinstance(first, Media) else "text"
        raise SampleError(
            f"{sample.where}: no bundled template shows {SHOWS[plan.shown_at_once][0]} that are {shown} with what the "
            f"prompt brings; give --template one that does, or take another --method"
        )
    return found


def check_shown(sample: Sample, plan: Plan, template: Template) -> None:
    """Refuse a sample whose media, or molecules, the template does not show.

    Raises:
        SampleError: One line that begins with where the sample stands.
    """
    if not (sample.inside or sample.media or sample.molecules or template.media):
        return
    everyone = range(len(sample.completions))
    width = plan.shown_at_once or min(plan.list_size, len(everyone))
    for members in [everyone[i : i + width] for i in range(max(len(everyone) - width, 0) + 1)]:
        if len(members) == width and len(members) >= (plan.shown_at_once or 2):
            try:
                template.render(request_of(sample, tuple(members)))
            except SampleError as error:
                raise SampleError(f"{sample.where}: {error}; --template takes one that shows such rows") from error


def contest_of(sample: Sample, plan: Plan) -> Contest:
    """The completions of a sample against each other."""
    # Scored alone, equal ones have a line each, and are one request, which is bought once.
    alone = plan.method == "pointwise"
    same = tuple(range(len(sample.completions))) if alone else first_equals(sample.completions)
    return Contest(plan=plan, id=sample.id, same=same)


def request_of(sample: Sample, members: Members) -> JudgeRequest:
    """``q1#0-3``: the first completion of q1 with its fourth."""
    return sample.only(members, id=f"{sample.id}#{'-'.join(map(str, members))}")


def round_items(samples: Iterable[Sample], path: Path, plan: Plan, counts: Sequence[int]) -> Iterator[Item]:
    """What is to be judged in the round after those of ``counts`` rows each, which stand in the outcome file."""
    number = {"round": len(counts) + 1} if plan.has_rounds else {}
    for sample, known in known_of(samples, path, plan, counts):
        for members in contest_of(sample, plan).asks(known):
            yield Item(request_of(sample, members), number)


def most_judgments(samples: Iterable[Sample], plan: Plan) -> int | None:
    """How many all of them take at most; ``None`` where a row is bad, which is said at its place."""
    try:
        return sum(contest_of(sample, plan).most_judgments() for sample in samples)
    except SampleError:
        return None


def known_of(
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
