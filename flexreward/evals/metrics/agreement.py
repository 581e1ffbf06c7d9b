"""Whether the judge chooses as people do. Choices are those of ``flexreward.evals.winners``: an index, TIE, or UNREAD.

UNREAD agrees with nobody: leave such rows out, or have them counted as wrong.

Letters of the shapes: N rows, C completions, B draws, L classes, U different scores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from flexreward.evals.metrics.bootstrap import Metric
from flexreward.evals.metrics.correlation import grouped
from flexreward.evals.table import Bools, Floats, Ints

# Columns said_N, chosen_N: people's choice and the judge's.


def _accuracy(weights_BN: Floats, said_N: Ints, chosen_N: Ints) -> Floats:
    return np.asarray(weights_BN @ (said_N == chosen_N) / weights_BN.sum(axis=1), dtype=np.float64)


def accuracy(said_N: Ints, chosen_N: Ints) -> float:
    """Share of rows with the same choice, a tie being one; NaN of nothing."""
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(said_N, chosen_N)) if len(said_N) else math.nan


ACCURACY = Metric(exact=accuracy, weighted=_accuracy)


def classes(said_N: Ints) -> tuple[int, ...]:
    """The choices that people made, in order: what macro figures are the mean over.

    One that they never made has no recall; a judge that makes it none the less loses recall elsewhere.
    """
    return tuple(np.unique(said_N).tolist())


def macro_precision(labels: Sequence[int]) -> Metric:
    """Precision, the plain mean over ``labels``; 0 for one that the judge never chose."""
    return _macro(0, labels)


def macro_recall(labels: Sequence[int]) -> Metric:
    """Recall, the plain mean over ``labels``; 0 for one that a draw of the rows does not hold."""
    return _macro(1, labels)


def macro_f1(labels: Sequence[int]) -> Metric:
    """F1, the plain mean over ``labels``; 0 where nothing of a class is chosen or nothing of it is right."""
    return _macro(2, labels)


def _macro(part: int, labels: Sequence[int]) -> Metric:
    def exact(said_N: Ints, chosen_N: Ints) -> float:
        from sklearn.metrics import precision_recall_fscore_support

        if not len(said_N):
            return math.nan
        found = precision_recall_fscore_support(said_N, chosen_N, labels=list(labels), average="macro", zero_division=0)
        return float(found[part])

    def weighted(weights_BN: Floats, said_N: Ints, chosen_N: Ints) -> Floats:
        right_BL, said_BL, chosen_BL = _counts(weights_BN, said_N, chosen_N, labels)
        below_BL = (chosen_BL, said_BL, (said_BL + chosen_BL) / 2)[part]
        return np.asarray((right_BL / np.where(below_BL > 0, below_BL, 1)).mean(axis=1), dtype=np.float64)

    return Metric(exact=exact, weighted=weighted)


def _counts(weights_BN: Floats, said_N: Ints, chosen_N: Ints, labels: Sequence[int]) -> tuple[Floats, Floats, Floats]:
    """(B, L) each: rows that both give the label, that people give it, that the judge gives it."""
    said_NL, chosen_NL = (np.equal.outer(choice_N, np.array(labels)) for choice_N in (said_N, chosen_N))
    right_BL, said_BL, chosen_BL = (
        weights_BN @ of_NL.astype(np.float64) for of_NL in (said_NL & chosen_NL, said_NL, chosen_NL)
    )
    return right_BL, said_BL, chosen_BL


def kappa(said_N: Ints, chosen_N: Ints) -> float:
    """Cohen's kappa by scikit-learn; NaN where both always make one and the same choice."""
    from sklearn.metrics import cohen_kappa_score

    if len({*said_N.tolist(), *chosen_N.tolist()}) < 2:
        return math.nan
    return float(cohen_kappa_score(said_N, chosen_N))


def _kappa(weights_BN: Floats, said_N: Ints, chosen_N: Ints) -> Floats:
    labels = np.union1d(said_N, chosen_N).tolist()
    right_BL, said_BL, chosen_BL = _counts(weights_BN, said_N, chosen_N, labels)
    total_B = weights_BN.sum(axis=1)
    chance_B = (said_BL * chosen_BL).sum(axis=1) / total_B**2
    told_B = chance_B < 1
    return np.where(told_B, (right_BL.sum(axis=1) / total_B - chance_B) / np.where(told_B, 1 - chance_B, 1), np.nan)


KAPPA = Metric(exact=kappa, weighted=_kappa)


def base_rate(said_N: Ints) -> float:
    """Share of people's most frequent choice: what a judge gets right that always makes it."""
    return float(np.unique(said_N, return_counts=True)[1].max() / len(said_N)) if len(said_N) else math.nan


def _base_rate(weights_BN: Floats, said_N: Ints) -> Floats:
    _, place_N = np.unique(said_N, return_inverse=True)
    return np.asarray(grouped(weights_BN, place_N).max(axis=1) / weights_BN.sum(axis=1), dtype=np.float64)


BASE_RATE = Metric(exact=base_rate, weighted=_base_rate)

# Columns scores_NC, good_NC: a score a completion, and whether it is one of people's favourites. NaN is left out.


def auroc(scores_NC: Floats, good_NC: Bools) -> float:
    """How often a good completion's score is above a bad one's, of any row, ties counting half; NaN without both."""
    from sklearn.metrics import roc_auc_score

    there_NC = ~np.isnan(scores_NC)
    good = good_NC[there_NC]
    return float(roc_auc_score(good, scores_NC[there_NC])) if 0 < good.sum() < len(good) else math.nan


def _auroc(weights_BN: Floats, scores_NC: Floats, good_NC: Bools) -> Floats:
    row, place = np.nonzero(~np.isnan(scores_NC))
    _, score = np.unique(scores_NC[row, place], return_inverse=True)
    good = good_NC[row, place]
    width = int(score.max()) + 1 if len(score) else 0
    if not good.any() or good.all():
        return np.full(len(weights_BN), np.nan)
    good_BU, bad_BU = (grouped(weights_BN[:, row[of]], score[of], width) for of in (good, ~good))
    wins_B = (good_BU * (np.cumsum(bad_BU, axis=1) - bad_BU / 2)).sum(axis=1)
    pairs_B = good_BU.sum(axis=1) * bad_BU.sum(axis=1)
    return np.where(pairs_B > 0, wins_B / np.where(pairs_B > 0, pairs_B, 1), np.nan)


AUROC = Metric(exact=auroc, weighted=_auroc)

# Columns judge_NP, human_NP: differences of the scores in P pairs of a row's completions. NaN pairs are left out.


class TieCalibrated(NamedTuple):
    """Pairwise accuracy at the threshold that is best for these very rows."""

    accuracy: float
    epsilon: float
    """Differences up to it count as ties of the judge."""


def tie_calibrated(judge_NP: Floats, human_NP: Floats) -> TieCalibrated:
    """Pairwise accuracy that gives credit for ties, with the judge's ties made by a threshold on its differences.

    The threshold is the one of the observed differences, or 0, that makes the accuracy greatest; the smallest of these
    where there are several. It is chosen on the rows that it is used on, so the accuracy is a little too good on few.

    Source: Deutsch, Foster and Freitag 2023, "Ties Matter", arXiv 2305.14324, section 6; pairs of all rows together.
    """
    accuracy_B, epsilon_B = _tie_calibrated(np.ones((1, len(judge_NP))), judge_NP, human_NP)
    return TieCalibrated(float(accuracy_B[0]), float(epsilon_B[0]))


def _tie_calibrated(weights_BN: Floats, judge_NP: Floats, human_NP: Floats) -> tuple[Floats, Floats]:
    row, place = np.nonzero(~np.isnan(judge_NP) & ~np.isnan(human_NP))
    if not len(row):
        return np.full(len(weights_BN), np.nan), np.full(len(weights_BN), np.nan)
    judge, human = judge_NP[row, place], human_NP[row, place]
    size_U, level = np.unique(np.append(np.abs(judge), 0.0), return_inverse=True)
    level, weights = level[:-1], weights_BN[:, row]
    alike = (np.sign(judge) == np.sign(human)) & (human != 0)
    tied_BU, alike_BU = (grouped(weights * of, level, len(size_U)) for of in (human == 0, alike))
    right_BU = np.cumsum(tied_BU, axis=1) + alike_BU.sum(axis=1, keepdims=True) - np.cumsum(alike_BU, axis=1)
    best_B = right_BU.argmax(axis=1)
    total_B = weights.sum(axis=1)
    told_B = total_B > 0
    found_B = right_BU[np.arange(len(right_BU)), best_B] / np.where(told_B, total_B, 1)
    return np.where(told_B, found_B, np.nan), np.where(told_B, size_U[best_B], np.nan)


TIE_CALIBRATED_ACCURACY = Metric(
    exact=lambda judge_NP, human_NP: tie_calibrated(judge_NP, human_NP).accuracy,
    weighted=lambda weights_BN, judge_NP, human_NP: _tie_calibrated(weights_BN, judge_NP, human_NP)[0],
)
TIE_CALIBRATED_EPSILON = Metric(
    exact=lambda judge_NP, human_NP: tie_calibrated(judge_NP, human_NP).epsilon,
    weighted=lambda weights_BN, judge_NP, human_NP: _tie_calibrated(weights_BN, judge_NP, human_NP)[1],
)


def credit(scores_NC: Floats, good_NC: Bools) -> Floats:
    """(N,) 1/k where k completions share the top score and one of them is good; more for more of them.

    0 where a row has no score.
    """
    filled_NC = np.where(np.isnan(scores_NC), -np.inf, scores_NC)
    top_NC = (filled_NC == filled_NC.max(axis=1, keepdims=True)) & ~np.isnan(scores_NC)
    return np.asarray((top_NC & good_NC).sum(axis=1) / np.maximum(top_NC.sum(axis=1), 1), dtype=np.float64)
