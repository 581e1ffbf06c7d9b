"""Correlations and errors of two columns of numbers. A column without variance has no correlation: NaN.

Letters of the shapes: N rows, B draws, U different values (V of the other column).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from flexreward.evals.metrics.bootstrap import Metric
from flexreward.evals.table import Floats, Ints

NOTHING = 1e-10
"""Variance below this share of the mean square is rounding."""
MOST_CELLS = 20_000
"""Largest table of values against values in which Kendall's pairs are counted; beyond it SciPy counts draw by draw."""


def _mean(weights_BN: Floats, x_N: Floats) -> Floats:
    return np.asarray(weights_BN @ x_N / weights_BN.sum(axis=1), dtype=np.float64)


def _pearson(weights_BN: Floats, x_N: Floats, y_N: Floats) -> Floats:
    if not np.ptp(x_N) or not np.ptp(y_N):
        return np.full(len(weights_BN), np.nan)
    x_N, y_N = x_N - x_N.mean(), y_N - y_N.mean()
    moments_B5 = weights_BN @ np.stack([x_N, y_N, x_N * x_N, y_N * y_N, x_N * y_N], axis=1)
    x_B, y_B, xx_B, yy_B, xy_B = (moments_B5 / weights_BN.sum(axis=1, keepdims=True)).T
    var_x_B, var_y_B = xx_B - x_B**2, yy_B - y_B**2
    told_B = (var_x_B > NOTHING * xx_B) & (var_y_B > NOTHING * yy_B)
    below_B = np.sqrt(np.where(told_B, var_x_B * var_y_B, 1.0))
    return np.where(told_B, np.clip((xy_B - x_B * y_B) / below_B, -1, 1), np.nan)


def _spearman(weights_BN: Floats, x_N: Floats, y_N: Floats) -> Floats:
    """Ranks of weighted rows need no sorting a draw: a value's mean rank is the weight below it and half its own."""
    total_B1 = weights_BN.sum(axis=1, keepdims=True)

    def ranks(values_N: Floats) -> tuple[Floats, Floats]:
        _, place_N = np.unique(values_N, return_inverse=True)
        weight_BU = grouped(weights_BN, place_N)
        rank_BU = np.cumsum(weight_BU, axis=1) - weight_BU / 2 - total_B1 / 2  # their mean is 0
        return rank_BU[:, place_N], (weight_BU * rank_BU**2).sum(axis=1)

    (x_BN, var_x_B), (y_BN, var_y_B) = ranks(x_N), ranks(y_N)
    told_B = (var_x_B > 0) & (var_y_B > 0)
    above_B = np.einsum("bn,bn,bn->b", weights_BN, x_BN, y_BN)
    return np.where(told_B, np.clip(above_B / np.sqrt(np.where(told_B, var_x_B * var_y_B, 1.0)), -1, 1), np.nan)


def _kendall(weights_BN: Floats, x_N: Floats, y_N: Floats) -> Floats:
    x_values, x_place_N = np.unique(x_N, return_inverse=True)
    y_values, y_place_N = np.unique(y_N, return_inverse=True)
    if len(x_values) * len(y_values) > MOST_CELLS:
        counts_BN = weights_BN.astype(np.int64)
        return np.array([kendall(np.repeat(x_N, c_N), np.repeat(y_N, c_N)) for c_N in counts_BN])
    width = MOST_CELLS * 100 // (len(x_values) * len(y_values))
    flat_N = x_place_N * len(y_values) + y_place_N
    shape = (-1, len(x_values), len(y_values))
    return np.concatenate(
        [
            _tau_b(grouped(weights_BN[b : b + width], flat_N, shape[1] * shape[2]).reshape(shape))
            for b in range(0, len(weights_BN), width)
        ]
    )


def _tau_b(table_BUV: Floats) -> Floats:
    """tau-b of contingency tables: concordant less discordant pairs, of those tied in neither column."""
    below_BUV = np.cumsum(table_BUV, axis=1)[:, :-1]  # up to and with row u, for row u + 1
    upto_BUV = np.cumsum(below_BUV, axis=2)
    here_BUV = table_BUV[:, 1:]
    concordant_B = (here_BUV[:, :, 1:] * upto_BUV[:, :, :-1]).sum(axis=(1, 2))
    discordant_B = (here_BUV * (upto_BUV[:, :, -1:] - upto_BUV)).sum(axis=(1, 2))
    square_B = table_BUV.sum(axis=(1, 2)) ** 2
    x_B = (square_B - (table_BUV.sum(axis=2) ** 2).sum(axis=1)) / 2
    y_B = (square_B - (table_BUV.sum(axis=1) ** 2).sum(axis=1)) / 2
    told_B = (x_B > 0) & (y_B > 0)
    return np.where(told_B, (concordant_B - discordant_B) / np.sqrt(np.where(told_B, x_B * y_B, 1.0)), np.nan)


def _mse(weights_BN: Floats, x_N: Floats, y_N: Floats) -> Floats:
    return _mean(weights_BN, (x_N - y_N) ** 2)


def _rmse(weights_BN: Floats, x_N: Floats, y_N: Floats) -> Floats:
    return np.sqrt(_mse(weights_BN, x_N, y_N))


def kendall(x_N: Floats, y_N: Floats) -> float:
    """Kendall's tau-b by SciPy; NaN where a column is constant."""
    from scipy.stats import kendalltau

    return _where_varied(x_N, y_N, lambda: kendalltau(x_N, y_N).statistic)


def spearman(x_N: Floats, y_N: Floats) -> float:
    """Spearman's correlation by SciPy; NaN where a column is constant."""
    from scipy.stats import spearmanr

    return _where_varied(x_N, y_N, lambda: spearmanr(x_N, y_N).statistic)


def pearson(x_N: Floats, y_N: Floats) -> float:
    """Pearson's correlation by SciPy; NaN where a column is constant."""
    from scipy.stats import pearsonr

    return _where_varied(x_N, y_N, lambda: pearsonr(x_N, y_N).statistic)


def mse(x_N: Floats, y_N: Floats) -> float:
    """Mean squared error by scikit-learn; NaN of nothing."""
    from sklearn.metrics import mean_squared_error

    return float(mean_squared_error(x_N, y_N)) if len(x_N) else math.nan


def mean(x_N: Floats) -> float:
    """NaN of nothing."""
    return float(np.mean(x_N)) if len(x_N) else math.nan


def ratio(above_N: Floats, below_N: Floats) -> float:
    """One sum over the other: a mean of what rows hold several of. NaN of nothing."""
    return float(above_N.sum() / below_N.sum()) if below_N.sum() else math.nan


def _ratio(weights_BN: Floats, above_N: Floats, below_N: Floats) -> Floats:
    below_B = weights_BN @ below_N
    return np.where(below_B != 0, weights_BN @ above_N / np.where(below_B != 0, below_B, 1), np.nan)


MEAN = Metric(exact=mean, weighted=_mean)
RATIO = Metric(exact=ratio, weighted=_ratio)
PEARSON = Metric(exact=pearson, weighted=_pearson)
SPEARMAN = Metric(exact=spearman, weighted=_spearman)
KENDALL = Metric(exact=kendall, weighted=_kendall)
MSE = Metric(exact=mse, weighted=_mse)
RMSE = Metric(exact=lambda x_N, y_N: math.sqrt(mse(x_N, y_N)), weighted=_rmse)


class Means(NamedTuple):
    """What the judge and people think of each system, on average."""

    names: tuple[str, ...]
    judge_S: Floats
    human_S: Floats


def system_means(systems: Sequence[str], judge_N: Floats, human_N: Floats) -> Means:
    """One mean a system over its rows, by the alphabet: what system-level figures are computed from."""
    names, place_N = np.unique(np.array(systems, dtype=str), return_inverse=True)
    count_S = np.bincount(place_N)
    judge_S, human_S = (np.bincount(place_N, weights=values_N) / count_S for values_N in (judge_N, human_N))
    return Means(tuple(names.tolist()), judge_S, human_S)


def grouped(weights_BN: Floats, place_N: Ints, width: int | None = None) -> Floats:
    """(B, U) weights summed by place; places that no row has get 0."""
    order_N = np.argsort(place_N, kind="stable")
    there, start = np.unique(place_N[order_N], return_index=True)
    sums_BU = np.zeros((len(weights_BN), int(there[-1]) + 1 if width is None else width))
    sums_BU[:, there] = np.add.reduceat(weights_BN[:, order_N], start, axis=1)
    return sums_BU


def _where_varied(x_N: Floats, y_N: Floats, figure: Callable[[], float]) -> float:
    return float(figure()) if len(x_N) > 1 and np.ptp(x_N) and np.ptp(y_N) else math.nan
