"""How far a figure would move with other rows: 95 % intervals, and p-values for two judges over the same rows.

A draw of N rows with replacement gives each row a weight: how often it was drawn. A figure is written as a function of
such weights, so that all draws are a few array operations. Rows that are alike in every column are one cell, and the
weights of K cells are drawn at once from a multinomial: the same distribution as rows drawn one by one, and much
faster, since judges use few scores.

Letters of the shapes: N rows, K cells, B draws, G clusters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from flexreward.evals.table import Floats, Ints

NUM_FOLDS = 1_000
MOST_WEIGHTS = 2_000_000
"""Weights that are held at a time: 16 MB, and a figure makes some copies."""
PER_CELL = 10
"""A cell's binomial costs about what so many rows drawn one by one do."""

Columns = tuple[Any, ...]
"""Arrays whose first axis is N: what a figure is computed from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One figure, twice: as SciPy or scikit-learn computes it, and of rows that weigh."""

    exact: Callable[..., float]
    """Columns to the figure; NaN where it is not defined."""
    weighted: Callable[..., Floats]
    """``(B, N)`` weights and columns to ``(B,)`` figures. With weights of one it is ``exact``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure and the 95 % percentile interval of its bootstrap."""

    value: float
    low: float
    """NaN, like ``high``, where fewer than half of the draws define the figure."""
    high: float
    n: int
    """Rows that it is computed from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A figure of two judges over the same rows."""

    a: float
    b: float
    difference: float
    """``b`` less ``a``."""
    low: float
    high: float
    p: float
    """Two-sided: twice the smaller share of draws on one side of no difference, at least ``2 / (NUM_FOLDS + 1)``."""
    n: int


class Sampled(NamedTuple):
    """A figure with all its draws, from which estimates and means of several are made."""

    value: float
    draws_B: Floats
    n: int

    @property
    def estimate(self) -> Estimate:
        low, high = interval(self.draws_B)
        return Estimate(value=self.value, low=low, high=high, n=self.n)


def estimate(metric: Metric, *columns: Any, seed: int = 0, clusters: Ints | None = None) -> Estimate:
    """The figure with its interval; the same columns and seed give the same.

    Args:
        clusters: (N,) which rows belong together, such as those of one prompt: they are drawn together.
    """
    return sampled(metric, *columns, seed=seed, clusters=clusters).estimate


def sampled(metric: Metric, *columns: Any, seed: int | Sequence[int] = 0, clusters: Ints | None = None) -> Sampled:
    """The figure with its draws."""
    num = len(columns[0])
    if not num:
        return Sampled(math.nan, np.full(NUM_FOLDS, np.nan), 0)
    return Sampled(metric.exact(*columns), draws(metric.weighted, columns, seed=seed, clusters=clusters), num)


def mean_of(parts: Sequence[Sampled]) -> Sampled:
    """The plain mean of a figure over several parts, whose rows are drawn part by part.

    A part that does not define the figure is left out. The parts need seeds of their own.
    """
    told = [part for part in parts if not math.isnan(part.value)]
    if not told:
        return Sampled(math.nan, np.full(NUM_FOLDS, np.nan), 0)
    draws_BP = np.stack([part.draws_B for part in told], axis=1)
    return Sampled(
        math.fsum(part.value for part in told) / len(told), draws_BP.mean(axis=1), sum(part.n for part in told)
    )


def paired(
    metric: Metric, a: Columns, b: Columns, *, seed: int | Sequence[int] = 0, clusters: Ints | None = None
) -> Difference:
    """``b`` against ``a``: both columns of the same rows, which are drawn for both alike."""
    num, width = len(a[0]), len(a)
    if not num:
        return Difference(a=math.nan, b=math.nan, difference=math.nan, low=math.nan, high=math.nan, p=math.nan, n=0)

    def less(weights_BK: Floats, *columns: Any) -> Floats:
        return metric.weighted(weights_BK, *columns[width:]) - metric.weighted(weights_BK, *columns[:width])

    was, now = metric.exact(*a), metric.exact(*b)
    draws_B = draws(less, (*a, *b), seed=seed, clusters=clusters)
    low, high = interval(draws_B)
    return Difference(a=was, b=now, difference=now - was, low=low, high=high, p=_p_value(draws_B), n=num)


def interval(draws_B: Floats) -> tuple[float, float]:
    """Where 95 % of the draws lie; NaN where the figure is undefined in more than half of them."""
    told = draws_B[~np.isnan(draws_B)]
    if 2 * len(told) < len(draws_B):
        return math.nan, math.nan
    low, high = np.quantile(told, [0.025, 0.975]).tolist()
    return low, high


def draws(
    weighted: Callable[..., Floats], columns: Columns, *, seed: int | Sequence[int] = 0, clusters: Ints | None = None
) -> Floats:
    """(NUM_FOLDS,) figures of so many draws of the rows; memory is bounded by drawing a chunk at a time."""
    rng = np.random.default_rng(seed)
    arrays = [np.asarray(column) for column in columns]
    if clusters is not None:
        return np.concatenate([weighted(weights_BN, *arrays) for weights_BN in _by_cluster(rng, clusters)])
    cell_N, first_K = cells(arrays)
    kept = [array[first_K] for array in arrays]
    return np.concatenate([weighted(weights_BK, *kept) for weights_BK in _by_cell(rng, cell_N, len(first_K))])


def cells(arrays: Sequence[Any]) -> tuple[Ints, Ints]:
    """Rows that are alike: (N,) the number of each row's cell, and (K,) the first row of each cell."""
    cell_N = np.zeros(len(arrays[0]), dtype=np.int64)
    first_K = np.zeros(1, dtype=np.int64)
    for array in arrays:
        for column_N in array.reshape(len(array), -1).T:
            values, place_N = np.unique(column_N, return_inverse=True)
            _, first_K, cell_N = np.unique(cell_N * len(values) + place_N, return_index=True, return_inverse=True)
    return cell_N, first_K


def _by_cell(rng: np.random.Generator, cell_N: Ints, num_cells: int) -> Iterator[Floats]:
    num = len(cell_N)
    share_K = np.bincount(cell_N, minlength=num_cells) / num
    for size in _chunks(max(num_cells, num // PER_CELL)):
        if num_cells * PER_CELL < num:
            yield rng.multinomial(num, share_K, size=size).astype(np.float64)
        else:
            yield _counted(cell_N[rng.integers(0, num, size=(size, num))], num_cells)


def _by_cluster(rng: np.random.Generator, clusters: Ints) -> Iterator[Floats]:
    _, cluster_N = np.unique(clusters, return_inverse=True)
    num = int(cluster_N.max()) + 1
    for size in _chunks(len(cluster_N)):
        yield _counted(rng.integers(0, num, size=(size, num)), num)[:, cluster_N]


def _chunks(width: int) -> Iterator[int]:
    most = max(MOST_WEIGHTS // width, 1)
    for start in range(0, NUM_FOLDS, most):
        yield min(most, NUM_FOLDS - start)


def _counted(drawn_BN: Ints, width: int) -> Floats:
    """(B, width) how often each number was drawn."""
    size = len(drawn_BN)
    flat = (drawn_BN + np.arange(size)[:, None] * width).ravel()
    return np.bincount(flat, minlength=size * width).reshape(size, width).astype(np.float64)


def _p_value(draws_B: Floats) -> float:
    told = draws_B[~np.isnan(draws_B)]
    if 2 * len(told) < len(draws_B):
        return math.nan
    tail = min(int((told <= 0).sum()), int((told >= 0).sum())) + 1
    return min(1.0, 2 * tail / (len(told) + 1))
