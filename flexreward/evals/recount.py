"""Votes counted anew, for a whole table at once: outcomes of fewer votes, and how right they are.

Letters of the shapes: see ``flexreward.evals.table``.
"""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np

from flexreward.evals.base import Task
from flexreward.evals.table import Bools, Floats, Ints
from flexreward.evals.winners import winners


def outcomes(votes_NOKC: Floats, asked_NO: Bools, aggregate: str) -> Floats:
    """(N, C) What ``flexreward.votes.aggregate`` and ``flexreward.order.combine`` make of these votes, row by row.

    An order needs more than half of its votes readable, a row all the orders it was asked in; NaN elsewhere.
    """
    choosing = aggregate == "majority" and votes_NOKC.shape[3] > 1
    quorum_NO = 2 * read(votes_NOKC).sum(axis=2) > votes_NOKC.shape[2]
    if choosing:
        sizes_NOK = sides(votes_NOKC)
        winning_NOK = (sizes_NOK > 0) & (sizes_NOK == sizes_NOK.max(axis=2, keepdims=True))
        votes_NOKC = np.where(winning_NOK[..., None], votes_NOKC, np.nan)
    there_NOC = np.asarray(~np.isnan(votes_NOKC).all(axis=2))
    filled_NOKC = np.where(there_NOC[:, :, None], votes_NOKC, 0)  # no mean of nothing
    scores_NOC = (np.nanmedian if aggregate == "median" else np.nanmean)(filled_NOKC, axis=2)
    if choosing:
        scores_NOC = _level(scores_NOC, votes_NOKC)
    scores_NOC = np.where(there_NOC, scores_NOC, np.nan)
    settled_N = np.asarray((quorum_NO | ~asked_NO).all(axis=1) & asked_NO.any(axis=1))
    sums_NC = np.where(asked_NO[..., None], scores_NOC, 0).sum(axis=1)
    return np.where(settled_N[:, None], sums_NC / np.maximum(asked_NO.sum(axis=1), 1)[:, None], np.nan)


def read(votes_NOKC: Floats) -> Bools:
    """(N, O, K) Which replies hold a verdict."""
    return np.asarray(~np.isnan(votes_NOKC[..., 0]))


def choices(votes_NOKC: Floats) -> Ints:
    """(N, O, K) Whom each vote prefers; see ``winners``."""
    return winners(votes_NOKC.reshape(-1, votes_NOKC.shape[3])).reshape(votes_NOKC.shape[:3])


def order_choices(votes_NOKC: Floats, first_NO: Ints) -> Ints:
    """(N, O) Whom each order prefers by the mean of its votes; UNREAD where it was not shown, or has no quorum."""
    asked_NO = first_NO >= 0
    scores_NOC = np.stack(
        [outcomes(votes_NOKC[:, [o]], asked_NO[:, [o]], "mean") for o in range(asked_NO.shape[1])], axis=1
    )
    return choices(scores_NOC[:, :, None])[..., 0]


def sides(votes_NOKC: Floats) -> Ints:
    """(N, O, K) How many votes of its prompt choose as this one does, itself counted; 0 where it cannot be read."""
    choice_NOK, read_NOK = choices(votes_NOKC), read(votes_NOKC)
    same_NOKK = choice_NOK[..., None] == choice_NOK[..., None, :]
    return np.asarray((same_NOKK & read_NOK[..., None] & read_NOK[..., None, :]).sum(axis=3))


def right(scores_NC: Floats, human_NC: Floats, task: Task) -> Floats:
    """(N,) How right each row is, from 0 to 1; NaN where it is unscored, and for ratings, which are near or far.

    A pair is right or wrong, a tie being a choice like another. One right among several: the share of right ones among
    those that share the best score. A ranking: the share of its pairs that people order in which the judge agrees, a
    tie counting half.
    """
    if task == "rating":
        return np.full(len(scores_NC), np.nan)
    if task == "pair":
        found_N = (winners(scores_NC) == winners(human_NC)).astype(np.float64)
    elif task == "best":
        top_NC = _best(scores_NC)
        found_N = (top_NC & _best(human_NC)).sum(axis=1) / np.maximum(top_NC.sum(axis=1), 1)
    else:
        first, second = np.array(list(combinations(range(human_NC.shape[1]), 2))).T
        judge_NP = np.sign(scores_NC[:, first] - scores_NC[:, second])
        human_NP = np.sign(np.nan_to_num(human_NC[:, first] - human_NC[:, second]))
        good_NP = np.where(judge_NP == human_NP, 1.0, np.where(judge_NP == 0, 0.5, 0.0))
        asked_NP = human_NP != 0
        count_N = asked_NP.sum(axis=1)
        found_N = np.where(count_N > 0, (good_NP * asked_NP).sum(axis=1) / np.maximum(count_N, 1), np.nan)
    return np.where(np.isnan(scores_NC[:, 0]), np.nan, found_N)


def figure(scores_NC: Floats, human_NC: Floats, task: Task) -> float:
    """The one figure of the curves: the mean of ``right``, and for ratings Pearson's correlation; NaN of nothing."""
    if task != "rating":
        right_N = right(scores_NC, human_NC, task)
        return float(np.nanmean(right_N)) if not np.isnan(right_N).all() else math.nan
    known_N = ~np.isnan(scores_NC[:, 0]) & ~np.isnan(human_NC[:, 0])
    judge_N, human_N = scores_NC[known_N, 0], human_NC[known_N, 0]
    if len(judge_N) < 2 or not np.ptp(judge_N) or not np.ptp(human_N):
        return math.nan
    return float(np.corrcoef(judge_N, human_N)[0, 1])


def spearman(a_N: Floats, b_N: Floats) -> float:
    """Spearman's correlation, NaN where one of the two is constant."""
    from scipy.stats import spearmanr

    if len(a_N) < 2 or not np.ptp(a_N) or not np.ptp(b_N):
        return math.nan
    return float(spearmanr(a_N, b_N).statistic)


def _best(scores_NC: Floats) -> Bools:
    """(N, C) Which completions share the best score."""
    filled_NC = np.where(np.isnan(scores_NC), -np.inf, scores_NC)
    return np.asarray(filled_NC == filled_NC.max(axis=1, keepdims=True))


def _level(scores_NOC: Floats, votes_NOKC: Floats) -> Floats:
    """A plurality that several winners share is a tie: they get one score, and nobody else gets above it."""
    filled_NOKC = np.where(np.isnan(votes_NOKC), -np.inf, votes_NOKC)
    best_NOK1 = filled_NOKC.max(axis=3, keepdims=True)
    won_NOC = ((filled_NOKC == best_NOK1) & np.isfinite(filled_NOKC)).any(axis=2)
    num_NO = won_NOC.sum(axis=2)
    level_NO = np.where(won_NOC, scores_NOC, 0).sum(axis=2) / np.maximum(num_NO, 1)
    level_NOC = np.where(won_NOC, level_NO[..., None], np.minimum(scores_NOC, level_NO[..., None]))
    return np.where((num_NO > 1)[..., None], level_NOC, scores_NOC)
