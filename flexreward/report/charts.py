"""Where things stand in a chart: pure geometry in the units of an SVG's viewBox, drawn by ``parts/charts.html.j2``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from flexreward.types import Scale

LEFT, RIGHT, TOP, BOTTOM = 40.0, 300.0, 12.0, 210.0
"""The plotting area; the names of the lines stand to its right."""
LABEL_GAP = 15.0


class Point(NamedTuple):
    """Best-of-N at one N, as shares of problems answered right."""

    n: int
    accuracy: float
    low: float | None
    high: float | None
    oracle: float | None
    """A judge that is never wrong: right wherever any of the N completions is."""
    shuffled: float | None
    """A judge with the same scores, dealt out at random."""


class Mark(NamedTuple):
    x: float
    y: float
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    name: str
    """Shown at the line's end."""
    style: str
    """Class of the line: ``judge``, ``oracle`` or ``shuffled``."""
    marks: tuple[Mark, ...]
    label_y: float

    @property
    def path(self) -> str:
        return " ".join(f"{m.x:.1f},{m.y:.1f}" for m in self.marks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Accuracy by N, N spaced by rank, accuracy from 0 to 1."""

    points: tuple[Point, ...]
    lines: tuple[Line, ...]
    band: str
    """Polygon of the judge's interval; empty where none is known."""
    ticks_x: tuple[tuple[float, str], ...]
    ticks_y: tuple[tuple[float, str], ...]


def curve(points: Sequence[Point]) -> Curve | None:
    """The drawn form of best-of-N; nothing to draw below two points."""
    if len(points) < 2:
        return None
    xs = [LEFT + (RIGHT - LEFT) * (i + 0.5) / len(points) for i in range(len(points))]
    drawn = []
    for name, style, values in (
        ("oracle", "oracle", [p.oracle for p in points]),
        ("judge", "judge", [p.accuracy for p in points]),
        ("shuffled", "shuffled", [p.shuffled for p in points]),
    ):
        marks = tuple(
            Mark(x, _y(value), f"{name}, best of {p.n}: {value:.1%}")
            for x, p, value in zip(xs, points, values, strict=True)
            if value is not None
        )
        if marks:
            drawn.append((name, style, marks))
    label_ys = spread([marks[-1].y for _, _, marks in drawn])
    edges = [(x, p.low, p.high) for x, p in zip(xs, points, strict=True) if p.low is not None and p.high is not None]
    outline = [(x, high) for x, _, high in edges] + [(x, low) for x, low, _ in reversed(edges)]
    return Curve(
        points=tuple(points),
        lines=tuple(
            Line(name=name, style=style, marks=marks, label_y=y)
            for (name, style, marks), y in zip(drawn, label_ys, strict=True)
        ),
        band=" ".join(f"{x:.1f},{_y(value):.1f}" for x, value in outline),
        ticks_x=tuple((x, str(p.n)) for x, p in zip(xs, points, strict=True)),
        ticks_y=tuple((_y(i / 4), f"{25 * i}\N{NO-BREAK SPACE}%") for i in range(5)),
    )


def _y(share: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * min(1.0, max(0.0, share))


def spread(wanted: Sequence[float]) -> list[float]:
    """Label heights near the wanted ones, never closer than a line of text."""
    placed: dict[int, float] = {}
    floor = 0.0
    for i in sorted(range(len(wanted)), key=lambda i: wanted[i]):
        floor = placed[i] = max(wanted[i], floor + LABEL_GAP)
    over = max(0.0, floor - BOTTOM)
    return [placed[i] - over for i in range(len(wanted))]


class Bin(NamedTuple):
    label: str
    right: int
    wrong: int
    right_height: float
    wrong_height: float
    x: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """How often each score was given; to right and to wrong completions where the truth is known, else all as right."""

    bins: tuple[Bin, ...]
    known: bool
    """Whether the truth is known."""
    width: float
    """Of one bin."""


def histogram(scored: Sequence[tuple[float, bool | None]], scale: Scale) -> Histogram | None:
    """Bars over whole scores, over halves on a scale of one or two points, or over ten equal parts of any other."""
    if not scored:
        return None
    steps = int(scale.high - scale.low)
    halves = (
        steps == scale.high - scale.low and steps in (1, 2) and all((2 * score).is_integer() for score, _ in scored)
    )
    each = 1 if 3 <= steps <= 20 else 2 if halves else 0
    count = each * steps + 1 if each else 10
    tally: Counter[tuple[int, bool]] = Counter()
    for score, right in scored:
        place = scale.fraction(score) * (count - 1 if each else count)
        tally[min(count - 1, max(0, round(place) if each else int(place))), right is not False] += 1
    most = max(tally.values())
    height = (BOTTOM - 2 * TOP) / most
    width = (400.0 - LEFT) / count
    return Histogram(
        bins=tuple(
            Bin(
                label=f"{scale.low + (i / each if each else i * (scale.high - scale.low) / count):g}",
                right=tally[i, True],
                wrong=tally[i, False],
                right_height=height * tally[i, True],
                wrong_height=height * tally[i, False],
                x=LEFT + width * i,
            )
            for i in range(count)
        ),
        known=any(right is not None for _, right in scored),
        width=width,
    )
