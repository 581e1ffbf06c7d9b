"""What the judged pairs of a folder come to: yield, flips, agreement with a known truth, what winners have in common.

A study is a table of counts: pairs that are alike in all that the figures ask are one cell. It takes as little room for
a million pairs as for a thousand, two of them add up to the study of both, and every figure is a sum over cells.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, NamedTuple

from flexreward.files.samples import Sample
from flexreward.pairs.keep import DISAGREEMENTS, JudgedPair, PairCounts
from flexreward.types import Scale

KEPT = "kept"
RATIOS = (1.0, 1.1, 1.25, 1.5, 2.0, 4.0)
"""Upper ends of the bins of length: the longer text is at most so many times as long as the shorter. One bin more."""

Z = NormalDist().inv_cdf(0.975)

Figures = dict[str, Any]


class Cell(NamedTuple):
    """What the figures ask of one judged pair."""

    outcome: str
    """``kept``, or why it was dropped."""
    disagreement: str | None
    """See ``flexreward.pairs.keep.disagreement``."""
    margin: int
    """Bin of the averaged scores' margin."""
    length: int
    """Bin of how much longer the longer text is."""
    chosen: int | None
    """Which of the two has the better averaged score; ``None`` where they tie or are not both there."""
    longer: int | None
    """Which of the two is longer."""
    slot_1: int
    """How many of the two orders name what stood first."""
    named: int
    """How many of the two orders name a winner."""
    better: int | None
    """Which of the two is truly the better; ``None`` where they are equal or nothing is known."""
    cooler: tuple[float, float] | None
    """The two temperatures, the lower first; ``None`` where they are equal or not known."""
    cooler_index: int

    @property
    def readable(self) -> bool:
        return self.disagreement != "unscored"


class Bins:
    """Equal parts of a scale: whole points, or tenths where the scale has few points or very many."""

    def __init__(self, scale: Scale) -> None:
        width = scale.high - scale.low
        self.low = scale.low
        self.step = 1.0 if width == int(width) and 4 <= width <= 20 else width / 10
        self.size = round(width / self.step)

    def of_margin(self, margin: float) -> int:
        return min(self.size - 1, int(margin / self.step + 1e-9))

    def of_score(self, score: float) -> int:
        """The nearest mark: there is one more than parts."""
        return min(self.size, max(0, int((score - self.low) / self.step + 0.5)))

    def margins(self) -> list[tuple[float, float]]:
        return [(round(i * self.step, 6), round((i + 1) * self.step, 6)) for i in range(self.size)]

    def scores(self) -> list[float]:
        return [round(self.low + i * self.step, 6) for i in range(self.size + 1)]


@dataclass(slots=True)
class Study:
    """Counts over judged pairs.

    Args:
        scale: The template's.
        truth: The column that says how good each completion really is, where a sample has it.
    """

    scale: Scale
    truth: str | None = None
    cells: Counter[Cell] = field(default_factory=Counter)
    scores: Counter[tuple[bool, int]] = field(default_factory=Counter)
    """Averaged scores by bin, of kept pairs and of others."""
    duplicates: int = 0
    """Pairs that were never judged, as nothing could be learnt from them."""
    _bins: Bins = field(init=False)

    def __post_init__(self) -> None:
        self._bins = Bins(self.scale)

    def add(self, sample: Sample, pair: JudgedPair, reason: str | None) -> None:
        """Count one judged pair.

        Args:
            reason: Why it is dropped, if it is; what the orders disagree in comes before all else.
        """
        scores, lengths, (first, second) = pair.scores, pair.lengths, pair.indices
        chosen = None
        if scores is not None:
            if scores[0] != scores[1]:
                chosen = int(scores[1] > scores[0])
            for score in scores:
                self.scores[reason is None, self._bins.of_score(score)] += 1
        why = reason if reason in DISAGREEMENTS else None
        slot_1, named = _slots(pair, why)
        longer = None if lengths[0] == lengths[1] else int(lengths[1] > lengths[0])
        better = None
        if self.truth is not None and (known := known_truth(sample, self.truth)) is not None:
            better = None if known[first] == known[second] else int(known[second] > known[first])
        cooler, cooler_index = None, 0
        if sample.origins:
            one, other = sample.origins[first].temperature, sample.origins[second].temperature
            if one is not None and other is not None and one != other:
                cooler, cooler_index = (min(one, other), max(one, other)), int(other < one)
        margin, length = self._bins.of_margin(pair.margin), length_bin(lengths)
        self.cells[
            Cell(
                *(reason or KEPT, why, margin, length, chosen, longer, slot_1, named, better, cooler, cooler_index),
            )
        ] += 1

    def counts(self) -> PairCounts:
        """What became of all pairs, those that were never judged included."""
        found = PairCounts()
        for cell, count in self.cells.items():
            found.judged += count
            found.readable += count * cell.readable
            if cell.outcome == KEPT:
                found.kept += count
            else:
                found.dropped[cell.outcome] += count
            match cell.disagreement:
                case "tied":
                    found.tied += count
                case "half_tied":
                    found.half_tied += count
                case "flipped":
                    found.flipped += count
                    found.flipped_to_slot_1 += count * (cell.slot_1 == 2)
        if self.duplicates:
            found.dropped["duplicate"] += self.duplicates
        return found

    def __add__(self, other: Study) -> Study:
        """The study of the pairs of both."""
        assert (self.scale, self.truth) == (other.scale, other.truth)
        return Study(
            self.scale,
            self.truth,
            self.cells + other.cells,
            self.scores + other.scores,
            self.duplicates + other.duplicates,
        )

    def summary(self) -> Figures:
        """As plain JSON: each share ``{value, low, high, n}`` with its 95 % Wilson interval, pairs taken as independent
        of each other; bins are ``from`` and ``to``; what is not known is left out."""
        by_outcome = self._by_outcome()
        kept = share(by_outcome.get(KEPT, 0), sum(by_outcome.values()))
        found: Figures = {
            "yield": {"kept": kept, "by_outcome": by_outcome, "duplicates": self.duplicates},
            "flips": self._flips(),
            "longer_won": self._winners(lambda c: None if c.longer is None else c.chosen == c.longer, by_length=True),
            "earlier_won": self._winners(lambda cell: cell.chosen == 0),
            "slot_1": {"before": self._slots(kept=False), "after": self._slots(kept=True)},
            "histograms": self._histograms(),
        }
        if any(cell.better is not None for cell in self.cells):
            found["truth"] = self._agreement()
        if temperatures := self._temperatures():
            found["temperatures"] = temperatures
        return found

    def _share(self, among: Iterable[tuple[bool, int]]) -> Figures:
        listed = list(among)
        return share(sum(count for is_one, count in listed if is_one), sum(count for _, count in listed))

    def _by_outcome(self) -> dict[str, int]:
        counts: Counter[str] = Counter()
        for cell, count in self.cells.items():
            counts[cell.outcome] += count
        return dict(sorted(counts.items(), key=lambda item: (item[0] != KEPT, -item[1], item[0])))

    def _flips(self) -> Figures:
        read = [(cell, count) for cell, count in self.cells.items() if cell.readable]

        def of(cells: Sequence[tuple[Cell, int]]) -> Figures:
            return self._share((cell.disagreement == "flipped", count) for cell, count in cells)

        by_margin = [
            {"from": low, "to": high, **of([one for one in read if one[0].margin == i])}
            for i, (low, high) in enumerate(self._bins.margins())
        ]
        by_length = [
            {"from": low, "to": high, **of([one for one in read if one[0].length == i])}
            for i, (low, high) in enumerate(length_bins())
        ]
        return {**of(read), "by_margin": _filled(by_margin), "by_length": _filled(by_length)}

    def _winners(self, has: Callable[[Cell], bool | None], *, by_length: bool = False) -> Figures:
        """How often winners have a trait: ``before``, of all that have a winner on average, and ``after``, of the kept.

        Args:
            has: Whether the winner of a decided pair has it; ``None`` where neither side does.
        """
        decided = [
            (cell, found, count)
            for cell, count in self.cells.items()
            if cell.readable and cell.chosen is not None and (found := has(cell)) is not None
        ]
        shares = {
            "before": self._share((found, count) for _, found, count in decided),
            "after": self._share((found, count) for cell, found, count in decided if cell.outcome == KEPT),
        }
        if not by_length:
            return shares
        bins = [
            {
                "from": low,
                "to": high,
                **self._share((found, count) for cell, found, count in decided if cell.length == i),
            }
            for i, (low, high) in enumerate(length_bins())
        ]
        return {**shares, "by_length": _filled(bins)}

    def _slots(self, *, kept: bool) -> Figures:
        cells = [(c, count) for c, count in self.cells.items() if c.readable and (not kept or c.outcome == KEPT)]
        return share(sum(cell.slot_1 * count for cell, count in cells), sum(c.named * count for c, count in cells))

    def _agreement(self) -> Figures:
        differ = [(cell, count) for cell, count in self.cells.items() if cell.readable and cell.better is not None]
        decided = [(cell, count) for cell, count in differ if cell.chosen is not None]

        def of(cells: Sequence[tuple[Cell, int]]) -> Figures:
            return self._share((cell.chosen == cell.better, count) for cell, count in cells)

        by_margin = [
            {"from": low, "to": high, **of([one for one in decided if one[0].margin == i])}
            for i, (low, high) in enumerate(self._bins.margins())
        ]
        return {
            "column": self.truth,
            "differ": sum(count for _, count in differ),
            "undecided": sum(count for cell, count in differ if cell.chosen is None),
            "before": of(decided),
            "after": of([one for one in decided if one[0].outcome == KEPT]),
            "by_margin": _filled(by_margin),
        }

    def _temperatures(self) -> list[Figures]:
        found = sorted({cell.cooler for cell in self.cells if cell.cooler is not None})
        return [
            {
                "temperatures": list(pair),
                "cooler_won": self._winners(
                    lambda cell, pair=pair: cell.chosen == cell.cooler_index if cell.cooler == pair else None  # type: ignore[misc]
                ),
            }
            for pair in found
        ]

    def _histograms(self) -> Figures:
        margins, lengths = self._bins.margins(), length_bins()
        counted: dict[tuple[str, bool], list[int]] = {
            (name, kept): [0] * size
            for name, size in (("margin", len(margins)), ("length", len(lengths)))
            for kept in (True, False)
        }
        for cell, count in self.cells.items():
            counted["length", cell.outcome == KEPT][cell.length] += count
            if cell.readable:
                counted["margin", cell.outcome == KEPT][cell.margin] += count
        return {
            "margin": {"bins": margins, "kept": counted["margin", True], "dropped": counted["margin", False]},
            "length": {"bins": lengths, "kept": counted["length", True], "dropped": counted["length", False]},
            "score": {
                "bins": self._bins.scores(),
                "kept": [self.scores[True, i] for i in range(self._bins.size + 1)],
                "dropped": [self.scores[False, i] for i in range(self._bins.size + 1)],
            },
        }


def _slots(pair: JudgedPair, why: str | None) -> tuple[int, int]:
    """How many of the orders name what stood first, and how many name a winner."""
    if why is None:
        return 1, 2  # one completion won both times, once from each slot
    if why in ("unscored", "tied"):
        return 0, 0
    winners = pair.winners
    return (winners[0] == 0) + (winners[1] == 1), sum(winner is not None for winner in winners)


def length_bin(lengths: tuple[int, int]) -> int:
    shorter, longer = min(lengths), max(lengths)
    return 0 if shorter == longer else bisect_left(RATIOS, longer / shorter) if shorter else len(RATIOS)


def length_bins() -> list[tuple[float, float | None]]:
    """From how many times as long to how many; the first are of equal length, the last has no end."""
    return [(1.0, 1.0), *itertools.pairwise(RATIOS), (RATIOS[-1], None)]


def known_truth(sample: Sample, column: str) -> list[float] | None:
    """How good each completion really is, ``None`` where the sample does not say it of each."""
    values = sample.extra.get(column)
    if not isinstance(values, list) or len(values) != len(sample.completions):
        return None
    return values if all(isinstance(value, bool | int | float) for value in values) else None


def share(num: int, of: int) -> Figures:
    """``num`` of ``of`` with its 95 % Wilson interval; without any, there is no value.

    Written out, as SciPy's takes longer to import than a small folder takes to be filtered.
    """
    if not of:
        return {"value": None, "low": None, "high": None, "n": 0}
    value, squared = num / of, Z * Z / of
    middle = (value + squared / 2) / (1 + squared)
    half = Z / (1 + squared) * math.sqrt(value * (1 - value) / of + squared / (4 * of))
    return {"value": value, "low": max(0.0, middle - half), "high": min(1.0, middle + half), "n": of}


def _filled(bins: list[Figures]) -> list[Figures]:
    return [one for one in bins if one["n"]]
