"""Whether the judge knows when it is right: margins, agreement among votes, agreement of the two orders."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from flexreward.evals.base import Task
from flexreward.evals.recount import choices, outcomes, read, sides, spearman
from flexreward.evals.scaling import FEWEST, nearness
from flexreward.evals.table import Bools, Floats, Table, table_of
from flexreward.evals.winners import winners
from flexreward.types import Judgment, Scale, Verdict, Vote

COVERAGES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def confidences(table: Table, task: Task, scale: Scale) -> dict[str, Floats]:
    """(N,) by name: what may say how sure the judge is, each from 0 to 1, NaN where it says nothing.

    ``margin``: from the best score to the next, as a share of the scale. ``votes``: how many of a prompt's readable
    votes choose what most of them choose; for ratings 1 less their standard deviation as a share of the scale. The mean
    over orders. ``orders``: 1 where both orders choose the same, else 0, where both were asked. ``agreement``: both in
    one, the confidence of ``flexreward.confidence``.
    """
    width = scale.high - scale.low
    num_orders, num_votes = table.votes_NOKC.shape[1:3]
    found: dict[str, Floats] = {}
    if task != "rating":
        sorted_NC = np.sort(np.where(np.isnan(table.scores_NC), -np.inf, table.scores_NC), axis=1)
        margin_N = np.where(table.scored_N, sorted_NC[:, -1], 0) - np.where(table.scored_N, sorted_NC[:, -2], 0)
        found["margin"] = np.where(table.scored_N, margin_N / width, np.nan)
    if num_votes > 1:
        num_read_NO = read(table.votes_NOKC).sum(axis=2)
        if task == "rating":
            agreed_NO = 1 - _deviation(table.votes_NOKC[..., 0]) / width
        else:
            agreed_NO = sides(table.votes_NOKC).max(axis=2) / np.maximum(num_read_NO, 1)
        found["votes"] = _mean_where(agreed_NO, num_read_NO > 1)
    if num_orders > 1 and task != "rating":
        asked_NO = table.first_NO >= 0
        orders_NOC = np.stack(
            [outcomes(table.votes_NOKC[:, [o]], asked_NO[:, [o]], "mean") for o in range(num_orders)], axis=1
        )
        chosen_NO = choices(orders_NOC[:, :, None])[..., 0]
        known_N = ~np.isnan(orders_NOC[..., 0]).any(axis=1)
        found["orders"] = np.where(known_N, (chosen_NO == chosen_NO[:, :1]).all(axis=1), np.nan)
    if num_orders * num_votes > 1:
        found["agreement"] = _agreement(table, task, width)
    return found


def _agreement(table: Table, task: Task, width: float) -> Floats:
    """(N,) Share of the replies that say what the outcome says, orders counting alike."""
    asked_NO, read_NOK = table.first_NO >= 0, read(table.votes_NOKC)
    num_read_NO = read_NOK.sum(axis=2)
    if task == "rating":
        share_NO = np.maximum(1 - 2 * _deviation(table.votes_NOKC[..., 0]) / width, 0)
    else:
        same_NOK = choices(table.votes_NOKC) == winners(table.scores_NC)[:, None, None]
        share_NO = (same_NOK & read_NOK).sum(axis=2) / np.maximum(num_read_NO, 1)
    known_N = table.scored_N & (num_read_NO.sum(axis=1) > 1) & ((num_read_NO > 0) | ~asked_NO).all(axis=1)
    return np.where(known_N, _mean_where(share_NO, asked_NO), np.nan)


def confidence_of(judgment: Judgment, scale: Scale) -> dict[str, float]:
    """How sure the judge was of one request, by the names of ``confidences``; those that say nothing are left out.

    A vote that ended early counts by the replies that were read. ``orders`` is 1 where all orders chose the same,
    however their votes were counted.
    """
    if not judgment.orders:
        return {}
    shown = len(judgment.orders[0].order)
    row = {
        **{"id": judgment.request_id, "group": "", "systems": (), "columns": {}, "reason": None},
        **{"human": [0.0] * shown, "words": [None] * shown, "tokens": {"completion": judgment.completion_tokens}},
        "scores": judgment.outcome.scores if isinstance(judgment.outcome, Verdict) else None,
        "orders": [{"order": one.order, "votes": [_read_vote(vote) for vote in one.votes]} for one in judgment.orders],
    }
    found = confidences(table_of([row]), "rating" if shown == 1 else "pair", scale)
    known = {name: float(sure_N[0]) for name, sure_N in found.items() if not np.isnan(sure_N[0])}
    # However the votes of an order are counted: a table's recount knows only their mean.
    for name, told in (("orders", judgment.consistent), ("agreement", judgment.confidence)):
        if name in found:
            known.pop(name, None)
            known |= {} if told is None else {name: float(told)}
    return known


def _read_vote(vote: Vote) -> dict[str, Any]:
    scores = vote.outcome.scores if isinstance(vote.outcome, Verdict) else None
    return {"scores": scores, "reason": "", "reply": vote.reply.text}


def told_by_confidence(table: Table, task: Task, scale: Scale) -> dict[str, Any]:
    """How well each confidence tells right rows from wrong ones.

    Returns:
        By name ``{"n", "mean", "auroc", "coverage": [{"coverage", "accuracy"}]}``: AUROC of confidence against being
        wholly right, and how right the surest share of the rows is, rows of one confidence counting by their mean. For
        ratings ``{"n", "mean", "spearman"}``, between confidence and nearness. NaN where nothing can be told; a
        confidence with too few rows is left out.
    """
    from sklearn.metrics import roc_auc_score

    near_N = nearness(table, task)
    told: dict[str, Any] = {}
    for name, sure_N in confidences(table, task, scale).items():
        known_N = ~np.isnan(sure_N) & ~np.isnan(near_N)
        sure, near = sure_N[known_N], near_N[known_N]
        if len(sure) < FEWEST:
            continue
        told[name] = {"n": len(sure), "mean": float(sure.mean())}
        if task == "rating":
            told[name]["spearman"] = spearman(sure, near)
            continue
        whole = near == 1
        told[name]["auroc"] = float(roc_auc_score(whole, sure)) if 0 < whole.sum() < len(whole) else math.nan
        told[name]["coverage"] = [{"coverage": share, "accuracy": _surest(sure, near, share)} for share in COVERAGES]
    return told


def _surest(sure: Floats, near: Floats, share: float) -> float:
    """The mean of ``near`` over the surest ``share``, as if rows of one confidence stood in every order."""
    values, places, counts = np.unique(-sure, return_inverse=True, return_counts=True)
    means = np.bincount(places, weights=near, minlength=len(values)) / counts
    before = np.concatenate([[0], np.cumsum(counts)[:-1]])
    taken = np.clip(max(share * len(sure), 1.0) - before, 0, counts)
    return float((taken * means).sum() / taken.sum())


def _deviation(scores_NOK: Floats) -> Floats:
    """(N, O) Standard deviation of the readable votes."""
    there_NOK = ~np.isnan(scores_NOK)
    count_NO = np.maximum(there_NOK.sum(axis=2), 1)
    mean_NO = np.where(there_NOK, scores_NOK, 0).sum(axis=2) / count_NO
    return np.asarray(np.sqrt(np.where(there_NOK, (scores_NOK - mean_NO[..., None]) ** 2, 0).sum(axis=2) / count_NO))


def _mean_where(values_NO: Floats, known_NO: Bools) -> Floats:
    count_N = known_NO.sum(axis=1)
    return np.where(count_N > 0, np.where(known_NO, values_NO, 0).sum(axis=1) / np.maximum(count_N, 1), np.nan)
