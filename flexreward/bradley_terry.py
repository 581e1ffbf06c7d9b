"""Strengths from who beat whom by how much, and which two to compare next (Bradley and Terry, 1952). Pure.

A member of strength ``s`` beats one of strength ``t`` with probability 1 / (1 + exp(t - s)). A judge says more than who
won: its scores lie near each other or far apart. They are taken as odds, a tenth of the scale being one unit of
strength, so that a tie is half a win to both, a narrow win little more, and a clear one nearly a whole. Strengths have
a normal prior around zero: one who never lost stays finite.

The pair to compare next is the one whose result tells most: whose difference is least known and whose winner most open.
Who is far apart need not be compared, and that is what is saved.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import combinations, starmap
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from flexreward.types import Verdict

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array: TypeAlias = npt.NDArray[np.float64]

UNIT = 0.1
"""Share of the scale that is one unit of strength: such a win has odds of e to 1."""
PRIOR_SD = 3.0
"""Standard deviation of strengths before anything is known."""
MAX_STEPS = 100
CLOSE = 1e-9


class Pair(NamedTuple):
    """Two members by their index, the smaller first."""

    first: int
    second: int


class Result(NamedTuple):
    """What became of comparing two members."""

    first: int
    second: int
    won: float
    """By the first, from 0 to 1; one half is a tie."""


class Fit(NamedTuple):
    strengths_N: Array
    """(N,); zero in the middle of every part that comparisons connect."""
    covariance_NN: Array
    """(N, N), of the normal distribution around the strengths."""


def won(verdict: Verdict) -> float:
    """What the first of two won, from 0 to 1, by how far the scores lie apart."""
    import math

    low, high = (verdict.scale.fraction(score) for score in verdict.scores)
    return 1 / (1 + math.exp((high - low) / UNIT))


def fit(results: Sequence[Result], *, size: int) -> Fit:
    """The likeliest strengths of ``size`` members, whatever was compared, even nothing."""
    import numpy as np

    first_R = np.array([result.first for result in results], dtype=np.intp)
    second_R = np.array([result.second for result in results], dtype=np.intp)
    won_R = np.array([result.won for result in results], dtype=np.float64)
    strengths_N = np.zeros(size)
    prior = 1 / PRIOR_SD**2
    for _ in range(MAX_STEPS):  # Newton's, of a strictly concave function; no step is longer than one, so it arrives
        chance_R = 1 / (1 + np.exp(strengths_N[second_R] - strengths_N[first_R]))
        slope_N = -prior * strengths_N
        np.add.at(slope_N, first_R, won_R - chance_R)
        np.add.at(slope_N, second_R, chance_R - won_R)
        weight_R = chance_R * (1 - chance_R)
        precision_NN = prior * np.eye(size)
        np.add.at(precision_NN, (first_R, first_R), weight_R)
        np.add.at(precision_NN, (second_R, second_R), weight_R)
        np.add.at(precision_NN, (first_R, second_R), -weight_R)
        np.add.at(precision_NN, (second_R, first_R), -weight_R)
        step_N = np.linalg.solve(precision_NN, slope_N)
        longest = float(np.abs(step_N).max(initial=0.0))
        if longest < CLOSE:
            break
        strengths_N = strengths_N + step_N / max(1.0, longest)
    return Fit(strengths_N, np.linalg.inv(precision_NN).astype(np.float64))


def next_pairs(results: Sequence[Result], *, size: int, asked: Collection[Pair], count: int) -> list[Pair]:
    """The pairs to compare at once, the most telling first: at most ``count``, none asked before, no member twice.

    Pairs that connect parts of the group go before all others, for nothing is known across them: ``size - 1`` pairs
    connect everybody.
    """
    import numpy as np

    strengths_N, covariance_NN = fit(results, size=size)
    spread_N = np.diag(covariance_NN)
    variance_NN = spread_N[:, None] + spread_N[None, :] - 2 * covariance_NN
    chance_NN = 1 / (1 + np.exp(strengths_N[None, :] - strengths_N[:, None]))
    telling_NN = np.round(chance_NN * (1 - chance_NN) * variance_NN, 9)  # equal ones in their order, on any machine
    open_pairs = [pair for pair in starmap(Pair, combinations(range(size), 2)) if pair not in asked]
    open_pairs.sort(key=lambda pair: -float(telling_NN[pair]))
    part = _part_of(results, size=size)
    chosen: list[Pair] = []
    busy: set[int] = set()
    for connecting in (True, False):
        for pair in open_pairs:
            connects = part[pair.first] != part[pair.second]
            if len(chosen) < count and busy.isdisjoint(pair) and (connects or not connecting):
                chosen.append(pair)
                busy.update(pair)
                part = _joined(part, pair)
    return chosen


def parts(results: Sequence[Result], *, size: int) -> list[list[int]]:
    """The members that comparisons connect, directly or through others, in the order of their first."""
    part = _part_of(results, size=size)
    return [[i for i in range(size) if part[i] == label] for label in dict.fromkeys(part)]


def _part_of(results: Sequence[Result], *, size: int) -> list[int]:
    part = list(range(size))
    for first, second, _ in results:
        part = _joined(part, Pair(first, second))
    return part


def _joined(part: list[int], pair: Pair) -> list[int]:
    old, new = part[pair.second], part[pair.first]
    return part if old == new else [new if label == old else label for label in part]


def expected_wins(results: Sequence[Result], *, size: int) -> list[float | None]:
    """What each member is expected to win against the others, from 0 to 1; ``None`` for one that met nobody.

    Where comparisons do not connect them all, each is held against those of its own part alone. The mean of every part
    is one half, so no part gains on another: nothing is said across them.
    """
    import numpy as np

    strengths_N = fit(results, size=size).strengths_N
    expected: list[float | None] = [None] * size
    for part in parts(results, size=size):
        if len(part) > 1:
            own_P = strengths_N[part]
            chance_PP = 1 / (1 + np.exp(own_P[None, :] - own_P[:, None]))
            for i, chances in zip(part, chance_PP, strict=True):
                expected[i] = float((chances.sum() - 0.5) / (len(part) - 1))
    return expected
