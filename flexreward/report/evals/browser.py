"""The browser of verdicts as its page needs it: the list, what can be asked of it, and the words for the script."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from flexreward.report.evals.rows import Fact
from flexreward.report.evals.shards import Layout, as_json, lay_out, vocabulary
from flexreward.report.evals.verdict import Json
from flexreward.report.figures import in_plain

ORDERS = {"flipped": "the winner turns with the order", "half_tied": "one order names a winner, one sees a tie"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """How a page speaks of its rows."""

    results: Mapping[str, str]
    """What each outcome is called, in the order of the filter."""
    told: str
    """What these outcomes mean, a sentence or two."""
    by: str = "judge "
    """Before the judge's word in the list."""
    each: Mapping[str, str] = field(default_factory=dict)
    """What became of one judge's verdict, where ``results`` are of two."""
    noun: str = "verdict"
    group: str = "group"
    """What the filter of groups is called."""
    beside_people: bool = True
    """Whether people's word stands beside the judge's."""
    best: str = "people’s choice"
    """The badge of the best completion."""
    missing: str = "is not in this folder"
    """Said of media that cannot be shown."""
    good: Sequence[str] = ("right", "only_b", "both")
    """Outcomes in green; ``bad`` ones in red."""
    bad: Sequence[str] = ("wrong", "unscored", "only_a")
    drawn_by: str = "each group and outcome"
    """Of what the page holds equal parts."""


PAIRS = Words(
    results={"right": "right", "wrong": "wrong", "tie": "tie", "unscored": "unscored"},
    told="A verdict is right when the judge, over all its orders and votes, prefers what people prefer, and when both "
    "see a tie. It is a tie when the judge sees one where people have a favourite.",
)
RATINGS = Words(
    results={"right": "close", "wrong": "further off", "unscored": "unscored"},
    told="A rating is close when it lies within half a point of people’s.",
)


class Choice(NamedTuple):
    """One value of a filter."""

    value: int
    name: str
    num: int


class Filter(NamedTuple):
    column: str
    words: str
    choices: tuple[Choice, ...]


class Browser(NamedTuple):
    """Where the verdicts lie, and what can be asked of them."""

    settings: Markup
    layout: Layout
    total: int
    filters: tuple[Filter, ...]
    words: str
    shards: str
    """The folder beside the page."""
    noun: str
    drawn_by: str


def browser(facts: Sequence[Fact], tell: Callable[[Fact, bool], Json], shards: Path, words: Words) -> Browser:
    """The browser of these rows; what the page does not hold is written to the folder ``shards`` beside it.

    Args:
        tell: See ``lay_out``.
    """
    results, vocabularies = list(words.results), vocabulary(facts)
    settings = {
        **vocabularies,
        "order": results,
        "results": words.results,
        "each": words.each or words.results,
        "by": words.by,
        "assistant": "Assistant",
        "noun": words.noun,
        "beside_people": words.beside_people,
        "best": words.best,
        "missing": words.missing,
        "tones": dict.fromkeys(words.good, "good") | dict.fromkeys(words.bad, "bad"),
        "shards": shards.name,
    }
    filters = []
    for column, name, values in (
        ("result", "outcome", results),
        ("group", words.group, vocabularies["group"]),
        ("reason", "unread because", vocabularies["reason"]),
        ("orders", "orders", vocabularies["orders"]),
    ):
        counts = Counter(getattr(fact, column) for fact in facts)
        named = {"result": words.results, "orders": ORDERS}.get(column, {})
        choices = tuple(
            Choice(i, named.get(value) or (in_plain(value) if column == "reason" else value), counts[value])
            for i, value in enumerate(values)
            if value and counts[value]
        )
        if len(choices) > 1 or (choices and column in ("reason", "orders")):
            filters.append(Filter(column, name, choices))
    return Browser(
        settings=Markup(as_json(settings)),
        layout=lay_out(facts, tell, shards, results),
        total=len(facts),
        filters=tuple(filters),
        words=words.told,
        shards=shards.name,
        noun=words.noun,
        drawn_by=words.drawn_by,
    )
