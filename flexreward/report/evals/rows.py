"""The rows of an eval folder, read twice: once for what the list of verdicts says of each, once for its whole text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from flexreward.report.cards import label
from flexreward.report.folder import as_scores, best, read_lines
from flexreward.report.text import plain, visible
from flexreward.report.why import disagreement
from flexreward.report.words import number

Result: TypeAlias = Literal["right", "wrong", "tie", "unscored"]

CLOSE = 0.5
"""A rating is right where it lies no further than this from people's, in points of their scale."""
EXCERPT_CHARS = 110


class Place(NamedTuple):
    """Bytes at which a row's outcome and its sample begin."""

    outcome: int
    sample: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """What the list shows of one row, and what its filters ask."""

    place: Place
    id: str
    group: str
    result: str
    """A ``Result``; where two judges are compared, what became of both."""
    reason: str
    """Why it is unscored, or why one of its replies is; empty where all were read."""
    orders: str
    """``flipped``, ``half_tied`` or empty."""
    people: str
    judge: str
    said: str
    """The beginning of the prompt on one line."""
    rated: float | None = None
    """What people gave, where one completion is rated."""
    scored: tuple[tuple[float, bool | None], ...] = ()
    """The score of each completion, and whether people think it the best; ``None`` where it has no rival."""

    @property
    def stratum(self) -> tuple[str, str]:
        return self.group, self.result


def read_facts(outcomes: Path, samples: Path) -> list[Fact]:
    """Every row that was judged, in the order of the file.

    Raises:
        OutputError: A line is broken.
    """
    asked = {}
    if samples.is_file():
        for place, row in read_lines(samples):
            asked[str(row.get("id"))] = (place, excerpt(row))
    facts = [_fact(place, line, asked.get(str(line["id"]))) for place, line in read_lines(outcomes) if "status" in line]
    if 2 * len({fact.said for fact in facts}) > len(facts):
        return facts
    # Where the prompts are few, such as one for all recordings, ids tell the rows apart.
    return [replace(fact, said=f"{fact.id}: {fact.said}" if fact.said else "") for fact in facts]


def _fact(place: int, line: Mapping[str, Any], asked: tuple[int, str] | None) -> Fact:
    human, scores = as_scores(line.get("human")) or (), as_scores(line.get("scores"))
    orders = line.get("orders") or ()
    votes = [vote for order in orders for vote in order.get("votes") or ()]
    unread = next((str(vote.get("reason") or "") for vote in votes if vote.get("scores") is None), "")
    read = [found for order in orders if (found := as_scores(order.get("scores")))]
    return Fact(
        place=Place(place, asked[0] if asked else None),
        id=visible(str(line["id"])),
        group=visible(str(line.get("group") or "")),
        result=result_of(human, scores),
        reason=visible(str(line.get("reason") or unread)),
        orders=disagreement([best(found) for found in read]) if len(human) > 1 else "",
        people=in_brief(human),
        judge=in_brief(scores) if scores else "",
        said=asked[1] if asked else "",
        rated=human[0] if len(human) == 1 else None,
        scored=tuple((score, _is_best(human, i)) for i, score in enumerate(scores or ())),
    )


def _is_best(human: Sequence[float], index: int) -> bool | None:
    return human[index] == max(human) if index < len(human) and min(human) < max(human) else None


def result_of(human: Sequence[float], scores: Sequence[float] | None) -> Result:
    """What became of a row, by the one rule of the page.

    Right: the judge names the completion that people prefer, or sees a tie where they do; a judge that can say that
    both are good or both bad (labels, 1 and 0) must say which. Where people think several best, any of them is right. A
    tie of the judge's is a tie where people have a favourite. One completion alone: right within ``CLOSE`` points.
    """
    if scores is None:
        return "unscored"
    if len(human) == 1:
        return "right" if abs(human[0] - scores[0]) <= CLOSE + 1e-9 else "wrong"
    favourites = {i for i, value in enumerate(human) if value == max(human)}
    chosen = {i for i, value in enumerate(scores) if value == max(scores)}
    if len(favourites) == len(human):
        labels = {*human, *scores} <= {0.0, 1.0}
        same = len(chosen) == len(scores) and (not labels or human[0] == scores[0])
        return "right" if same else "wrong"
    if len(chosen) == 1:
        return "right" if chosen <= favourites else "wrong"
    return "tie"


def in_brief(values: Sequence[float]) -> str:
    """``A``, ``A > C = B``, ``tie``, ``both bad``; one value alone is itself."""
    if len(values) < 2:
        return number(values[0]) if values else ""
    levels = sorted(set(values), reverse=True)
    if len(levels) == 1:
        return "both bad" if values[0] == 0 and len(values) == 2 else "tie"
    ranks = [" = ".join(label(i) for i, value in enumerate(values) if value == level) for level in levels]
    return ranks[0] if len(values) == 2 or sum(value == levels[1] for value in values) > 1 else " > ".join(ranks)


def excerpt(row: Mapping[str, Any]) -> str:
    text = plain(row.get("prompt"))[: 4 * EXCERPT_CHARS]
    return visible(" ".join(text.split()))[:EXCERPT_CHARS]
