"""Position and length bias in numbers and plots, from the summary's ``bias``; the judge's lean beside people's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flexreward.report.page import Gauge
from flexreward.report.plots import At, Plot, Series, bar_plot, line_plot
from flexreward.report.words import interval, number, percent, plural

Part = Mapping[str, Any]


def leanings(bias: Part) -> tuple[Gauge, ...]:
    """The numbers, each with its 95 % interval and a sentence."""
    position, length = bias.get("position") or {}, bias.get("length") or {}
    gauges = []
    for name, key, words in (
        ("orders disagree", "flips", FLIPS),
        ("always slot 1", "always_slot_1", ALWAYS),
        ("always slot 2", "always_slot_2", ALWAYS),
    ):
        if _known(position.get(key)):
            gauges.append(Gauge(name, percent(position[key]["value"]), f"{_spread(position[key])}{words}"))
    difference = length.get("difference") or {}
    if difference.get("difference") is not None:
        words = f"{_points(difference)} beside people. {LONGER if 'bins' in length else RATED}"
        value = length["judge"]["value"]
        gauges.append(Gauge("for the longer", percent(value) if "bins" in length else number(value), words))
    return tuple(gauges)


def bias_plots(bias: Part) -> tuple[Plot | None, ...]:
    """Slot 1 and ties beside people's, flips by margin, and the longer one's share of wins."""
    position, length = bias.get("position") or {}, bias.get("length") or {}
    return (_beside_people(position), _by_margin(position), _by_length(length))


def _beside_people(position: Part) -> Plot | None:
    pairs = [
        (name, position.get(judge), position.get(people))
        for name, judge, people in (
            ("for slot 1", "slot_1", "people_slot_1"),
            ("ties", "ties", "people_ties"),
            ("ties in one order", "ties_in_one_order", "people_ties"),
        )
    ]
    shown = [(name, judge, people) for name, judge, people in pairs if _known(judge) and _known(people)]
    series = [
        Series("judge", "judge", [_at(i, judge) for i, (_, judge, _) in enumerate(shown)]),
        Series("people", "people", [_at(i, people) for i, (_, _, people) in enumerate(shown)]),
    ]
    return bar_plot(
        "slots",
        "Does it follow the place?",
        "Share of choices for what stood first, and share of ties, beside people’s labels over the same rows. "
        "A fair judge chooses slot 1 as often as people prefer what stands there.",
        [name for name, _, _ in shown],
        series,
        axis="",
    )


def _by_margin(position: Part) -> Plot | None:
    parts = [part for part in position.get("by_margin") or () if part.get("flips") is not None]
    series = [Series("flips", "people", [At(i, part["flips"], words=_rows(part)) for i, part in enumerate(parts)])]
    if all(part.get("accuracy") is not None for part in parts):
        points = [At(i, part["accuracy"], words=_rows(part)) for i, part in enumerate(parts)]
        series.append(Series("right", "judge", points))
    return line_plot(
        "margin",
        "Where do the orders disagree?",
        "Share of rows on which the two orders choose differently, and share judged right, by how far apart the two "
        "averaged scores are.",
        series,
        axis="margin between the scores",
        ticks_x=[(i, _span(part)) for i, part in enumerate(parts)],
        whole=True,
    )


def _by_length(length: Part) -> Plot | None:
    bins = length.get("bins") or ()
    series = [
        Series(name, name, [At(i, part[name], words=_rows(part)) for i, part in enumerate(bins)])
        for name in ("judge", "people")
    ]
    return line_plot(
        "length",
        "Does it follow the length?",
        "How often the longer completion wins, a tie counting half, by how many more words it has. "
        "A judge without length bias runs along people’s line.",
        series,
        axis="more words",
        ticks_x=[(i, _span(part)) for i, part in enumerate(bins)],
        whole=True,
    )


def _at(place: int, found: Any) -> At:
    return At(place, found["value"], words=_spread(found).strip(". "))


def _known(found: Any) -> bool:
    return isinstance(found, Mapping) and found.get("value") is not None


def _spread(found: Part) -> str:
    low, high = found.get("low"), found.get("high")
    return "" if low is None or high is None else f"{interval(low, high)}. "


def _points(found: Part) -> str:
    value, low, high = found["difference"], found.get("low"), found.get("high")
    spread = "" if low is None or high is None else f" ({100 * low:+.1f} to {100 * high:+.1f})"
    return f"{100 * value:+.1f} points{spread}"


def _rows(part: Part) -> str:
    return plural(part["n"], "row")


def _span(part: Part) -> str:
    low, high = number(part["low"]), number(part["high"])
    return low if low == high else f"{low}–{high}"


FLIPS = "Rows on which the two orders do not choose alike: there the judge follows the place."
ALWAYS = "Rows on which both orders choose what stands there."
LONGER = "How often the longer completion wins, a tie counting half."
RATED = "Spearman’s correlation of the rating with the number of words, times 100 in points."
