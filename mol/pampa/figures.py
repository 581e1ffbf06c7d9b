"""Figures of a task with two labels, where a constant must not look good and what cannot be read is wrong.

Letters of the shapes: N molecules, T trials, B draws of the bootstrap. Predictions are 1, 0, or -1 for the unread;
scores are how positive a molecule is said to be, NaN where nothing is said. A figure over several trials is the mean
of the trials' figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from flexreward.evals.metrics.bootstrap import Difference, Metric, Sampled, paired, sampled
from flexreward.evals.table import Bools, Floats, Ints


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What one method says of the molecules, in the order of the labels."""

    labels_NT: Ints
    scores_NT: Floats
    """NaN throughout where the method has none."""

    @classmethod
    def of(cls, labels_N: Any, scores_N: Any = None) -> Predicted:
        """One trial."""
        labels = np.asarray(labels_N, dtype=np.int64)[:, None]
        scores = np.full(labels.shape, np.nan) if scores_N is None else np.asarray(scores_N, dtype=np.float64)[:, None]
        return cls(labels_NT=labels, scores_NT=scores)


def _accuracy(weights_BN: Floats, truth_N: Ints, labels_NT: Ints, scores_NT: Floats) -> Floats:
    right_N = (labels_NT == truth_N[:, None]).mean(axis=1)
    return _share(weights_BN @ right_N, weights_BN.sum(axis=1))


def _balanced(weights_BN: Floats, truth_N: Ints, labels_NT: Ints, scores_NT: Floats) -> Floats:
    right_N = (labels_NT == truth_N[:, None]).mean(axis=1)
    recalls = [
        _share(weights_BN @ (right_N * (truth_N == label)), weights_BN @ (truth_N == label).astype(float))
        for label in (0, 1)
    ]
    return (recalls[0] + recalls[1]) / 2


def _mcc(weights_BN: Floats, truth_N: Ints, labels_NT: Ints, scores_NT: Floats) -> Floats:
    said_NT = _wrong_where_unread(truth_N, labels_NT).astype(float)
    is_N = truth_N.astype(float)
    total_B1 = weights_BN.sum(axis=1, keepdims=True)
    true_B1 = weights_BN @ is_N[:, None]
    said_BT = weights_BN @ said_NT
    both_BT = weights_BN @ (said_NT * is_N[:, None])
    top_BT = total_B1 * both_BT - true_B1 * said_BT
    under_BT = true_B1 * (total_B1 - true_B1) * said_BT * (total_B1 - said_BT)
    # 0 where one side is constant: it tells nothing.
    mcc_BT = np.divide(top_BT, np.sqrt(under_BT), out=np.zeros_like(top_BT), where=under_BT > 0)
    return np.asarray(mcc_BT.mean(axis=1))


def _auroc(weights_BN: Floats, truth_N: Ints, labels_NT: Ints, scores_NT: Floats) -> Floats:
    if np.isnan(scores_NT).all():
        return np.full(len(weights_BN), math.nan)
    # Who says nothing of a molecule ranks it as wrong as can be.
    worst_N1 = np.where(truth_N == 1, -np.inf, np.inf)[:, None]
    trials = np.where(np.isnan(scores_NT), worst_N1, scores_NT).T
    return np.asarray(np.mean([area(weights_BN, truth_N, scores_N) for scores_N in trials], axis=0))


def area(weights_BN: Floats, truth_N: Ints, scores_N: Floats) -> Floats:
    """(B,) areas under the ROC curve of one column of scores; ties count half."""
    order_N = np.argsort(scores_N, kind="stable")
    starts_K = np.unique(scores_N[order_N], return_index=True)[1]
    is_N = truth_N[order_N] == 1
    sorted_BN = weights_BN[:, order_N]
    positive_BK = np.add.reduceat(sorted_BN * is_N, starts_K, axis=1)
    negative_BK = np.add.reduceat(sorted_BN * ~is_N, starts_K, axis=1)
    below_BK = np.cumsum(negative_BK, axis=1) - negative_BK / 2
    return _share((positive_BK * below_BK).sum(axis=1), positive_BK.sum(axis=1) * negative_BK.sum(axis=1))


def _negative_ratio(weights_BN: Floats, truth_N: Ints, labels_NT: Ints, scores_NT: Floats) -> Floats:
    return _share(weights_BN @ (labels_NT == 0).mean(axis=1), weights_BN @ (labels_NT >= 0).mean(axis=1))


def _parse_rate(weights_BN: Floats, truth_N: Ints, labels_NT: Ints, scores_NT: Floats) -> Floats:
    return _share(weights_BN @ (labels_NT >= 0).mean(axis=1), weights_BN.sum(axis=1))


def _of_read(weights_BN: Floats, truth_N: Ints, labels_NT: Ints, scores_NT: Floats) -> Floats:
    right_N = (labels_NT == truth_N[:, None]).mean(axis=1)
    return _share(weights_BN @ right_N, weights_BN @ (labels_NT >= 0).mean(axis=1))


def _metric(weighted: Callable[..., Floats]) -> Metric:
    def exact(*columns: Any) -> float:
        return float(weighted(np.ones((1, len(columns[0]))), *columns)[0])

    return Metric(exact=exact, weighted=weighted)


FIGURES = {
    "accuracy": _metric(_accuracy),
    "balanced_accuracy": _metric(_balanced),
    "mcc": _metric(_mcc),
    "auroc": _metric(_auroc),
    "negative_ratio": _metric(_negative_ratio),
    "parse_rate": _metric(_parse_rate),
    "accuracy_of_read": _metric(_of_read),
}
"""By name. ``negative_ratio`` and ``accuracy_of_read`` are shares of what was read; all others are over all molecules,
the unread as wrong. ``accuracy_of_read`` has the published denominator."""
COMPARED = ("balanced_accuracy", "mcc", "auroc", "accuracy")


class Told(NamedTuple):
    """One figure with its 95 % interval."""

    value: float | None
    low: float | None
    high: float | None


def figures(truth_N: Ints, predicted: Predicted, *, clusters: Ints, seed: int = 0) -> dict[str, Told]:
    """Every figure of one method.

    Args:
        clusters: (N,) molecules of one connectivity block are drawn together.
    """
    columns = (truth_N, predicted.labels_NT, predicted.scores_NT)
    found = {name: sampled(metric, *columns, seed=seed, clusters=clusters) for name, metric in FIGURES.items()}
    return {name: _told(one) for name, one in found.items()}


def difference(
    name: str, truth_N: Ints, a: Predicted, b: Predicted, *, clusters: Ints, seed: int = 0
) -> dict[str, float | None]:
    """A figure of ``b`` less that of ``a``, both over the same draws of the molecules."""
    columns = [(truth_N, one.labels_NT, one.scores_NT) for one in (a, b)]
    found: Difference = paired(FIGURES[name], columns[0], columns[1], seed=seed, clusters=clusters)
    return {key: _plain(value) for key, value in asdict(found).items()}


def best_threshold(truth_N: Ints, scores_N: Floats) -> float | None:
    """The score from which on a molecule is called positive, for the best balanced accuracy.

    It lies half-way between two scores; of several the one nearest to the middle of the scores. ``None`` where the
    molecules are all of one label, or nothing is said of any.
    """
    said = ~np.isnan(scores_N)
    truth, scores = truth_N[said], scores_N[said]
    if len(np.unique(truth)) < 2:
        return None
    levels = np.unique(scores)
    edges = np.concatenate([(levels[1:] + levels[:-1]) / 2, [levels[0]]])
    # An edge between two neighbours in floating point can be one of them, and cuts all the same.
    value = [(_recall(truth, scores >= edge, 1) + _recall(truth, scores < edge, 0)) / 2 for edge in edges]
    best = max(value)
    middle = float(np.median(scores))
    return float(min((edge for edge, v in zip(edges, value, strict=True) if v == best), key=lambda e: abs(e - middle)))


def _recall(truth_N: Ints, said_N: Bools, label: int) -> float:
    return float(said_N[truth_N == label].mean())


def _wrong_where_unread(truth_N: Ints, labels_NT: Ints) -> Ints:
    return np.where(labels_NT < 0, 1 - truth_N[:, None], labels_NT)


def _share(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def _told(found: Sampled) -> Told:
    estimate = found.estimate
    return Told(_plain(estimate.value), _plain(estimate.low), _plain(estimate.high))


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value
