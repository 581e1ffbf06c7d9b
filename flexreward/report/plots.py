"""Charts of any measured curve or share: geometry in the units of an SVG's viewBox, drawn by ``parts/plots.html.j2``.

Marks, lines and heights of labels are those of ``charts.py``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from flexreward.report.charts import BOTTOM, LEFT, RIGHT, TOP, Line, Mark, spread
from flexreward.report.words import number, percent

WIDE = 400.0
"""Where the plotting area of bars ends: they have no labels to their right."""


class At(NamedTuple):
    """One measured point."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    words: str = ""
    """Said beside the value when a reader points at it."""


class Series(NamedTuple):
    name: str
    style: str
    """Class of the line or bar: ``judge``, ``people``, ``ideal``, ``after``."""
    points: Sequence[At]


class Rect(NamedTuple):
    x: float
    y: float
    width: float
    height: float
    style: str
    words: str
    label: str
    """Above the bar; empty for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A drawn chart with the sentence that says what to see in it."""

    id: str
    """Of its title element: unique on the page."""
    title: str
    words: str
    axis: str
    """What runs along the bottom."""
    lines: tuple[Line, ...] = ()
    bands: tuple[tuple[str, str], ...] = ()
    """Style and polygon of each interval."""
    rects: tuple[Rect, ...] = ()
    legend: tuple[tuple[str, str], ...] = ()
    """Style and name of each kind of bar, where there is more than one."""
    ticks_x: tuple[tuple[float, str], ...] = ()
    ticks_y: tuple[tuple[float, str], ...] = ()
    right: float = RIGHT


def line_plot(
    id: str,
    title: str,
    words: str,
    series: Sequence[Series],
    *,
    axis: str,
    ticks_x: Sequence[tuple[float, str]],
    share: bool = True,
    whole: bool = False,
    signed: bool = False,
) -> Plot | None:
    """Lines over a number; nothing to draw without two points of the first series.

    Args:
        ticks_x: Value and words.
        share: Whether heights are shares of 1, shown in percent.
        whole: Whether the heights run from 0 to 1 whatever was measured.
        signed: Whether heights are differences, which may be negative.
    """
    if not series or len(series[0].points) < 2:
        return None
    heights = [value for one in series for at in one.points for value in (at.y, at.low, at.high) if value is not None]
    low, high, step = (0.0, 1.0, 0.25) if whole else _rounded(min(heights), max(heights), share and not signed)
    places = [x for x, _ in ticks_x] + [at.x for one in series for at in one.points]
    left, right = min(places), max(places)

    def across(x: float) -> float:
        pad = 14.0
        return LEFT + pad + (RIGHT - LEFT - 2 * pad) * (x - left) / ((right - left) or 1.0)

    def up(y: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (min(high, max(low, y)) - low) / ((high - low) or 1.0)

    said = percent if share else number
    marks = [
        tuple(Mark(across(at.x), up(at.y), _told(one.name, said(at.y), at.words)) for at in one.points)
        for one in series
    ]
    labels = spread([found[-1].y for found in marks])
    bands = []
    for one in series:
        edges = [(across(at.x), at.low, at.high) for at in one.points if at.low is not None and at.high is not None]
        if len(edges) > 1:
            outline = [(x, top) for x, _, top in edges] + [(x, bottom) for x, bottom, _ in reversed(edges)]
            bands.append((one.style, " ".join(f"{x:.1f},{up(y):.1f}" for x, y in outline)))
    return Plot(
        id=id,
        title=title,
        words=words,
        axis=axis,
        lines=tuple(
            Line(name=one.name, style=one.style, marks=found, label_y=y)
            for one, found, y in zip(series, marks, labels, strict=True)
        ),
        bands=tuple(bands),
        ticks_x=tuple((across(x), text) for x, text in ticks_x),
        ticks_y=_ticks_y(low, high, step, share),
    )


def bar_plot(
    id: str,
    title: str,
    words: str,
    names: Sequence[str],
    series: Sequence[Series],
    *,
    axis: str,
    share: bool = True,
) -> Plot | None:
    """Bars side by side, one of each series by name; ``At.x`` is the place of the name. Nothing to draw without any."""
    values = [at.y for one in series for at in one.points]
    if not names or not values:
        return None
    high = max(values)
    slot = (WIDE - LEFT) / len(names)
    width = min(46.0, slot * 0.78 / len(series))
    rects = []
    for i, one in enumerate(series):
        for at in one.points:
            height = (BOTTOM - TOP - 14) * at.y / (high or 1.0)
            x = LEFT + slot * (at.x + 0.5) + width * (i - len(series) / 2)
            value = percent(at.y, 0) if share else number(at.y)
            told = _told(f"{names[int(at.x)]}, {one.name}", percent(at.y) if share else value, at.words)
            label = value if width > 21 else ""
            rects.append(Rect(x, BOTTOM - height, width - 1.5, max(height, 1.0), one.style, told, label))
    every = max(1, math.ceil(len(names) * max(len(name) for name in names) * 6.5 / (WIDE - LEFT)))
    return Plot(
        id=id,
        title=title,
        words=words,
        axis=axis,
        rects=tuple(rects),
        legend=tuple((one.style, one.name) for one in series) if len(series) > 1 else (),
        ticks_x=tuple((LEFT + slot * (i + 0.5), name) for i, name in enumerate(names) if i % every == 0),
        right=WIDE,
    )


def _told(name: str, value: str, words: str) -> str:
    return f"{name}: {value}, {words}" if words else f"{name}: {value}"


def _rounded(low: float, high: float, share: bool) -> tuple[float, float, float]:
    """Ends and step of an axis around what was measured, in round numbers; shares stay between 0 and 1."""
    gap = max(high - low, 0.04)
    raw = gap / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    bottom, top = math.floor(low / step) * step, math.ceil(high / step) * step
    if bottom == top:  # one value, on a step
        bottom, top = bottom - step, top + step
    if share:
        bottom, top = max(0.0, bottom), min(1.0, top)
    return bottom, top, step


def _ticks_y(low: float, high: float, step: float, share: bool) -> tuple[tuple[float, str], ...]:
    count = round((high - low) / step)
    digits = 0 if step >= 0.01 else 1
    values = [low + step * i for i in range(count + 1)]
    return tuple(
        (BOTTOM - (BOTTOM - TOP) * (value - low) / (high - low), percent(value, digits) if share else f"{value:.3g}")
        for value in values
    )
