"""Differences between two judges over the same rows, by the paired bootstrap: rows are drawn, never runs.

Letters of the shapes: N rows, B draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np

from flexreward.evals.base import Task
from flexreward.evals.recount import right
from flexreward.evals.table import Floats, Ints, Table

NUM_DRAWS = 2_000
CHUNK = 100

Statistic: TypeAlias = Callable[[Floats, Floats], Floats]
"""Judge's and people's values, ``(B, N)`` each, to a figure a draw, ``(B,)``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A figure of two judges, and how sure their difference is."""

    a: float
    b: float
    difference: float
    """``b`` less ``a``."""
    low: float
    high: float
    """95 % percentile interval of the difference."""
    p: float
    """Two-sided: how often draws fall on either side of no difference, at least ``1 / (NUM_DRAWS + 1)``."""
    n: int
    """Rows that both judges scored, or all."""


def differences(a: Table, b: Table, task: Task, *, seed: int = 0) -> dict[str, Difference]:
    """The figures of a task by name, over rows that both judges scored; the first is the main one.

    Choices are counted once more with what is unscored as wrong.
    """
    both_N = a.scored_N & b.scored_N
    if task == "rating":
        both_N = both_N & ~np.isnan(a.human_NC[:, 0])
        ones, others = a.scores_NC[both_N, 0], b.scores_NC[both_N, 0]
        human = a.human_NC[both_N, 0]
        return {name: _paired(ones, others, human, figure, seed=seed) for name, figure in RATINGS.items()}
    right_a, right_b = right(a.scores_NC, a.human_NC, task), right(b.scores_NC, b.human_NC, task)
    told_N = both_N & ~np.isnan(right_a) & ~np.isnan(right_b)
    empty = np.zeros(0)
    name = "concordance" if task == "ranking" else "accuracy"
    return {
        name: _paired(right_a[told_N], right_b[told_N], empty, _mean, seed=seed),
        f"{name}, unscored wrong": _paired(np.nan_to_num(right_a), np.nan_to_num(right_b), empty, _mean, seed=seed),
    }


def plain(found: Mapping[str, Difference]) -> dict[str, dict[str, Any]]:
    """As plain JSON values."""
    return {name: asdict(one) for name, one in found.items()}


def _paired(a_N: Floats, b_N: Floats, human_N: Floats, figure: Statistic, *, seed: int) -> Difference:
    num = len(a_N)
    if not num:
        return Difference(a=math.nan, b=math.nan, difference=math.nan, low=math.nan, high=math.nan, p=math.nan, n=0)
    human_N = human_N if len(human_N) else np.zeros(num)
    a, b = (float(figure(x_N[None], human_N[None])[0]) for x_N in (a_N, b_N))
    drawn_B = np.concatenate([figure(b_N[i], human_N[i]) - figure(a_N[i], human_N[i]) for i in _draws(num, seed=seed)])
    drawn_B = drawn_B[~np.isnan(drawn_B)]
    if math.isnan(a) or math.isnan(b) or not len(drawn_B):
        return Difference(a=a, b=b, difference=math.nan, low=math.nan, high=math.nan, p=math.nan, n=num)
    low, high = np.quantile(drawn_B, [0.025, 0.975]).tolist()
    tail = min(int((drawn_B <= 0).sum()), int((drawn_B >= 0).sum())) + 1
    p = min(1.0, 2 * tail / (len(drawn_B) + 1))
    return Difference(a=a, b=b, difference=b - a, low=low, high=high, p=p, n=num)


def _draws(num: int, *, seed: int) -> Iterator[Ints]:
    """``NUM_DRAWS`` draws of ``num`` rows with replacement, in chunks of ``(CHUNK, num)`` indices."""
    rng = np.random.default_rng(seed)
    for _ in range(NUM_DRAWS // CHUNK):
        yield rng.integers(0, num, size=(CHUNK, num))


def _mean(values_BN: Floats, _: Floats) -> Floats:
    return np.asarray(values_BN.mean(axis=1))


def _pearson(judge_BN: Floats, human_BN: Floats) -> Floats:
    judge_BN = judge_BN - judge_BN.mean(axis=1, keepdims=True)
    human_BN = human_BN - human_BN.mean(axis=1, keepdims=True)
    squares_B = (judge_BN**2).sum(axis=1) * (human_BN**2).sum(axis=1)
    return np.where(
        squares_B > 0, (judge_BN * human_BN).sum(axis=1) / np.sqrt(np.where(squares_B > 0, squares_B, 1)), np.nan
    )


def _spearman(judge_BN: Floats, human_BN: Floats) -> Floats:
    from scipy.stats import rankdata

    return _pearson(rankdata(judge_BN, axis=1), rankdata(human_BN, axis=1))


def _squares(judge_BN: Floats, human_BN: Floats) -> Floats:
    return np.asarray(((judge_BN - human_BN) ** 2).mean(axis=1))


RATINGS: dict[str, Statistic] = {"pearson": _pearson, "spearman": _spearman, "mse": _squares}
