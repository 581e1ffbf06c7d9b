"""The plots of a study of pairs, by section; what the study does not hold is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flexreward.report.plots import At, Plot, Series, bar_plot, line_plot
from flexreward.report.words import interval, number, plural

Part = Mapping[str, Any]

HIGHER = "margin between the averaged scores"
LONGER = "so many times as long as the shorter"


def plots_of(study: Part) -> dict[str, tuple[Plot, ...]]:
    """``place``, ``truth``, ``winners`` and ``spread``."""
    truth = study.get("truth") or {}
    drawn: dict[str, tuple[Plot | None, ...]] = {
        "place": (
            _shares(
                "flips-margin",
                "Where do the orders disagree?",
                "Share of the readable pairs whose winner turns with the order, by how far apart the averaged scores "
                "are. The band is the 95 % interval.",
                [Series("flips", "judge", _points(study["flips"]["by_margin"]))],
                study["flips"]["by_margin"],
                axis=HIGHER,
            ),
            _shares(
                "flips-length",
                "Do lengths turn it?",
                "The same, by how much longer the longer completion is.",
                [Series("flips", "judge", _points(study["flips"]["by_length"]))],
                study["flips"]["by_length"],
                axis=LONGER,
                times=True,
            ),
        ),
        "truth": (
            _shares(
                "truth-margin",
                "Is a wide margin a better sign?",
                "How often the better completion wins, of the pairs of which one is better and one wins, by margin.",
                [Series("right", "judge", _points(truth.get("by_margin") or ()))],
                truth.get("by_margin") or (),
                axis=HIGHER,
            ),
            _before_after("truth-kept", "What keeping buys", AGREES, [("the better won", truth)]) if truth else None,
        ),
        "winners": (
            _before_after("traits", "What do winners have in common?", TRAITS, _traits(study)),
            _shares(
                "longer",
                "Does the longer one win?",
                "How often the longer completion wins, of the pairs with a winner, by how much longer it is. A judge "
                "without a leaning stays near the middle, unless longer completions are better.",
                [Series("longer", "judge", _points(study["longer_won"].get("by_length") or ()))],
                study["longer_won"].get("by_length") or (),
                axis=LONGER,
                times=True,
            ),
        ),
        "spread": tuple(_histogram(name, study["histograms"][name]) for name in ("margin", "length", "score")),
    }
    return {section: tuple(plot for plot in found if plot) for section, found in drawn.items()}


def _traits(study: Part) -> list[tuple[str, Part]]:
    traits = [("the longer", study["longer_won"]), ("the earlier", study["earlier_won"]), ("slot 1", study["slot_1"])]
    for pair in study.get("temperatures") or ():
        low, high = pair["temperatures"]
        traits.append((f"{low:g} over {high:g}", pair["cooler_won"]))
    return traits


def _before_after(id: str, title: str, words: str, traits: Sequence[tuple[str, Part]]) -> Plot | None:
    known = [(name, part) for name, part in traits if part["before"]["value"] is not None]
    series = [
        Series(
            name,
            style,
            [
                At(i, part[key]["value"], words=_spread(part[key]))
                for i, (_, part) in enumerate(known)
                if part[key]["value"] is not None
            ],
        )
        for name, style, key in (("all with a winner", "people", "before"), ("kept", "judge", "after"))
    ]
    return bar_plot(id, title, words, [name for name, _ in known], series, axis="")


def _shares(
    id: str, title: str, words: str, series: Sequence[Series], bins: Sequence[Part], *, axis: str, times: bool = False
) -> Plot | None:
    every = max(1, len(bins) // 6)
    return line_plot(
        id,
        title,
        words,
        series,
        axis=axis,
        ticks_x=[(i, _bin(one["from"], one["to"], times)) for i, one in enumerate(bins) if i % every == 0],
        whole=True,
    )


def _points(bins: Sequence[Part]) -> list[At]:
    return [At(i, one["value"], one["low"], one["high"], _spread(one)) for i, one in enumerate(bins)]


def _histogram(name: str, found: Part) -> Plot | None:
    num_kept, num_dropped = sum(found["kept"]), sum(found["dropped"])
    series = [
        Series(side, style, [At(i, num / total, words=plural(num, noun)) for i, num in enumerate(found[side])])
        for side, style, total in (("kept", "judge", num_kept), ("dropped", "people", num_dropped))
        for noun in ("score" if name == "score" else "pair",)
        if total
    ]
    title, words, axis = HISTOGRAMS[name]
    marks = found["bins"]
    names = (
        [number(one) for one in marks]
        if name == "score"
        else [_bin(low, high, name == "length") for low, high in marks]
    )
    return bar_plot(f"histogram-{name}", title, words, names, series, axis=axis)


def _bin(low: float, high: float | None, times: bool) -> str:
    if not times:
        return f"{number(low)}–{number(high)}"
    if high is None:
        return f">{number(low)}"
    return "equal" if low == high else f"≤{high:g}"


def _spread(found: Part) -> str:
    return f"{interval(found['low'], found['high'])}, of {found['n']:,}"


TRAITS = (
    "How often the winner is the longer text, the earlier completion of its sample, what stood in slot 1, or of the "
    "lower temperature, over all pairs with a winner and over the kept ones. Kept pairs name each slot once: of them "
    "slot 1 has half by their making."
)
AGREES = "How often the better completion wins, of the pairs of which one is better, before and after the rules."
HISTOGRAMS = {
    "margin": ("How far apart?", "Share of the kept and of the other readable pairs, by margin.", HIGHER),
    "length": ("How unlike in length?", "Share of the kept and of the other pairs, by length.", LONGER),
    "score": ("Which scores?", "Share of the scores, averaged over the orders, of kept and of other pairs.", "score"),
}
