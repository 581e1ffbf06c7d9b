"""The browser of verdicts as its page needs it: the list, what can be asked of it, and the words for the script."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from flexreward.report.evals.rows import RESULTS, Fact, Result
from flexreward.report.evals.shards import Layout, as_json, lay_out, vocabulary
from flexreward.report.evals.verdict import Json
from flexreward.report.figures import in_plain

SHARDS = "report.shards"
"""The folder beside the page. Its script knows the name too."""

ORDERS = {"flipped": "the winner turns with the order", "half_tied": "one order names a winner, one sees a tie"}
RESULT_WORDS: dict[Result, str] = {"right": "right", "wrong": "wrong", "tie": "tie", "unscored": "unscored"}
RATING_WORDS = RESULT_WORDS | {"right": "close", "wrong": "further off"}


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
    rating: bool
    """Whether rows are ratings of one completion, and right means close."""


def browser(facts: Sequence[Fact], tell: Callable[[Fact, bool], Json], folder: Path, *, rating: bool) -> Browser:
    """The browser of these rows; the shards are written below ``folder``.

    Args:
        tell: See ``lay_out``.
    """
    words, vocabularies = (RATING_WORDS if rating else RESULT_WORDS), vocabulary(facts)
    settings = {"order": RESULTS, "results": words, "assistant": "Assistant", **vocabularies}
    results = Counter(fact.result for fact in facts)
    outcomes = _choices([words[name] for name in RESULTS], [results[name] for name in RESULTS])
    filters = [Filter("result", "outcome", outcomes)]
    for column, name in (("group", "group"), ("reason", "unread because"), ("orders", "orders")):
        found = vocabularies[column]
        counts = Counter(getattr(fact, column) for fact in facts)
        names = [ORDERS.get(value, in_plain(value) if column == "reason" else value) for value in found]
        choices = _choices(names, [counts[value] for value in found])
        if choices and (len(choices) > 1 or column != "group"):
            filters.append(Filter(column, name, choices))
    return Browser(
        settings=Markup(as_json(settings)),
        layout=lay_out(facts, tell, folder / SHARDS),
        total=len(facts),
        filters=tuple(filters),
        rating=rating,
    )


def _choices(names: Sequence[str], counts: Sequence[int]) -> tuple[Choice, ...]:
    """Those that occur and have a name, by their place in ``names``."""
    return tuple(Choice(i, name, num) for i, (name, num) in enumerate(zip(names, counts, strict=True)) if name and num)
