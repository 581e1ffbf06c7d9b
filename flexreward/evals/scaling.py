"""What more thought buys: the figure over the number of votes, and over the length of the judge's reasoning.

Computed from the replies of one run, none of which is bought for it. Curves over waits take a run each
(``flexreward.evals.compare``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np

from flexreward.evals.base import Task
from flexreward.evals.recount import figure, outcomes, right, spearman
from flexreward.evals.table import Floats, Table

MOST_VOTES = 15
MOST_CHOICES = 64
"""Where k of the votes can be chosen in no more ways than this, all are tried; else so many are drawn."""
NUM_BINS = 5
FEWEST = 20
"""Rows below which nothing is told of bins."""


def over_votes(table: Table, task: Task, *, aggregate: str, seed: int = 0) -> list[dict[str, Any]]:
    """The figure with 1, 2, ... votes a prompt: the mean over choices of so many of those that there are.

    Returns:
        ``[{"votes", "value", "spread", "scored", "choices", "exact"}]``: ``spread`` is the standard deviation over the
        choices, ``scored`` the mean share of rows with a quorum, ``exact`` whether all choices were tried.
    """
    num_votes = table.votes_NOKC.shape[2]
    asked_NO = table.first_NO >= 0
    curve = []
    for count in range(1, min(num_votes, MOST_VOTES) + 1):
        found = [
            outcomes(table.votes_NOKC[:, :, places], asked_NO, aggregate)
            for places in _choices(num_votes, count, seed=seed)
        ]
        values = [figure(scores_NC, table.human_NC, task) for scores_NC in found]
        curve.append(
            {
                "votes": count,
                "value": float(np.mean(values)),
                "spread": float(np.std(values)),
                "scored": float(np.mean([~np.isnan(scores_NC[:, 0]) for scores_NC in found])),
                "choices": len(found),
                "exact": len(found) == math.comb(num_votes, count),
            }
        )
    return curve


def over_length(table: Table, task: Task) -> dict[str, Any]:
    """The figure by length of the judge's replies, in bins of as many rows each.

    Returns:
        ``{"n", "spearman", "bins": [{"low", "high", "n", "length", "value"}]}``: lengths are characters, the mean over
        a row's replies; ``spearman`` is between length and how right a row is, or how near a rating. Empty where there
        are too few rows.
    """
    length_N = mean_length(table)
    known_N = table.scored_N & ~np.isnan(length_N)
    if known_N.sum() < FEWEST:
        return {}
    edges = np.unique(np.quantile(length_N[known_N], np.linspace(0, 1, NUM_BINS + 1)))
    num_bins = max(len(edges) - 1, 1)
    bin_N = np.clip(np.searchsorted(edges, length_N, side="right") - 1, 0, num_bins - 1)
    bins = []
    for number in range(num_bins):
        inside_N = known_N & (bin_N == number)
        bins.append(
            {
                "low": float(edges[number]),
                "high": float(edges[min(number + 1, len(edges) - 1)]),
                "n": int(inside_N.sum()),
                "length": float(length_N[inside_N].mean()),
                "value": figure(table.scores_NC[inside_N], table.human_NC[inside_N], task),
            }
        )
    near_N = nearness(table, task)
    both_N = known_N & ~np.isnan(near_N)
    return {"n": int(known_N.sum()), "spearman": spearman(length_N[both_N], near_N[both_N]), "bins": bins}


def mean_length(table: Table) -> Floats:
    """(N,) Characters of a reply, the mean over the row's; NaN where there is none."""
    there_NOK = ~np.isnan(table.reasoning_NOK)
    count_N = there_NOK.sum(axis=(1, 2))
    total_N = np.where(there_NOK, table.reasoning_NOK, 0).sum(axis=(1, 2))
    return np.where(count_N > 0, total_N / np.maximum(count_N, 1), np.nan)


def nearness(table: Table, task: Task) -> Floats:
    """(N,) ``right``, and for ratings the distance from people's with its sign turned."""
    if task != "rating":
        return right(table.scores_NC, table.human_NC, task)
    return -np.abs(table.scores_NC[:, 0] - table.human_NC[:, 0])


def _choices(total: int, count: int, *, seed: int) -> Iterator[list[int]]:
    """All ways to choose ``count`` of ``total`` where they are few, else different ones drawn from the seed."""
    if math.comb(total, count) <= MOST_CHOICES:
        yield from (list(places) for places in combinations(range(total), count))
        return
    rng = np.random.default_rng([seed, total, count])
    seen: set[tuple[int, ...]] = set()
    while len(seen) < MOST_CHOICES:
        places = tuple(sorted(rng.choice(total, count, replace=False).tolist()))
        if places not in seen:
            seen.add(places)
            yield list(places)
