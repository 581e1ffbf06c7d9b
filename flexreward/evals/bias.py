"""What moves a judge besides the content: the place of a completion, its length, its favourite scores.

Plain JSON-able values; a part that a run cannot tell is left out. People are beside the judge throughout, since they
too may like the longer completion, or find two alike. What the form of the question does takes two runs
(``flexreward.evals.compare``).

Letters of the shapes: see ``flexreward.evals.table``; M comparisons: a pair of completions of one row.
"""

from __future__ import annotations

from dataclasses import asdict
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from flexreward.evals.base import Benchmark, Task
from flexreward.evals.metrics.bootstrap import estimate, paired
from flexreward.evals.metrics.correlation import RATIO, SPEARMAN
from flexreward.evals.recount import order_choices
from flexreward.evals.table import Bools, Floats, Ints, Table
from flexreward.evals.winners import TIE, UNREAD, said, winners
from flexreward.types import Scale

NUM_BINS = 5
MOST_VALUES = 41
"""Different scores that are counted each for itself; of more, the histogram has NUM_WIDE bins."""
NUM_WIDE = 20


def bias(benchmark: Benchmark, table: Table, scale: Scale | None = None, *, seed: int = 0) -> dict[str, Any]:
    """``{"position", "length", "scores"}``, those that the run can tell.

    Args:
        scale: The template's; without it the ends of the scale are the lowest and highest score given.
    """
    found = {
        "position": position_bias(table, seed=seed) if benchmark.task != "rating" else {},
        "length": length_bias(table, benchmark.task, seed=seed),
        "scores": score_use(table, scale),
    }
    return {name: part for name, part in found.items() if part}


def position_bias(table: Table, *, seed: int = 0) -> dict[str, Any]:
    """How far the slot decides. Each order counts by the mean of its votes.

    Returns:
        ``slot_1`` and ``people_slot_1``: of choices that are no tie, the share that is for what stood in slot 1, as an
        estimate; ``ties``, ``ties_in_one_order`` and ``people_ties``. Of rows that were shown in two orders and can be
        read in both: ``flips`` (the orders do not choose alike), ``always_slot_1`` and ``always_slot_2`` (each order
        chooses what stands there), ``tie_in_one`` (one ties, the other does not), and ``by_margin``, five parts of the
        rows by the margin of the averaged score, ``{"low", "high", "n", "flips", "slot_1", "accuracy"}`` each. Slot 2
        is the last one where there are more.
    """
    chosen_NO, said_N = order_choices(table.votes_NOKC, table.first_NO), said(table)
    one_NO, last_NO = table.first_NO, _last(table)
    chose_NO = chosen_NO >= 0
    if not chose_NO.any():
        return {}
    read_NO = chosen_NO != UNREAD
    told_NO = read_NO & (said_N >= 0)[:, None]
    found: dict[str, Any] = {
        "slot_1": _share(chosen_NO == one_NO, chose_NO, seed=seed),
        "people_slot_1": _share(said_N[:, None] == one_NO, told_NO, seed=seed),
        "ties": _share(winners(table.scores_NC) == TIE, table.scored_N, seed=seed),
        "ties_in_one_order": _share(chosen_NO == TIE, read_NO, seed=seed),
        "people_ties": _share(said_N == TIE, table.scored_N, seed=seed),
    }
    both_N = read_NO.all(axis=1)
    if chosen_NO.shape[1] < 2 or not both_N.any():
        return found
    flip_N = (chosen_NO != chosen_NO[:, :1]).any(axis=1)
    kinds = {
        "flips": flip_N,
        "always_slot_1": (chosen_NO == one_NO).all(axis=1),
        "always_slot_2": (chosen_NO == last_NO).all(axis=1),
        "tie_in_one": flip_N & (chosen_NO == TIE).any(axis=1),
    }
    found |= {name: _share(of_N, both_N, seed=seed) for name, of_N in kinds.items()}
    margin_N, right_N = _margin(table), winners(table.scores_NC) == said_N
    found["by_margin"] = [
        {
            "low": float(margin_N[inside_N].min()),
            "high": float(margin_N[inside_N].max()),
            "n": int(inside_N.sum()),
            "flips": float(flip_N[inside_N].mean()),
            "slot_1": _mean((chosen_NO == one_NO)[inside_N][chose_NO[inside_N]]),
            "accuracy": float(right_N[inside_N].mean()),
        }
        for inside_N in _parts(margin_N, both_N & table.scored_N)
    ]
    return found


class Compared(NamedTuple):
    """Two completions of one row, the longer against the shorter."""

    more_M: Floats
    """Words that the longer has more."""
    judge_M: Floats
    """1 where the judge prefers the longer, 0 the shorter, 0.5 neither."""
    human_M: Floats
    row_M: Ints


def length_bias(table: Table, task: Task, *, seed: int = 0) -> dict[str, Any]:
    """How far length decides, for the judge and for people, over the same rows.

    Returns:
        Of comparisons where one completion has more words: ``judge`` and ``people``, the share that the longer wins, a
        tie counting half; ``difference``, the judge's less people's, with interval and p-value; ``bins``, up to five
        parts of the comparisons by how many more words the longer has, ``{"low", "high", "n", "judge", "people"}``
        each. For ratings ``judge`` and ``people`` are Spearman's correlation of the rating with the words. Empty where
        lengths are unknown or all alike.
    """
    if task == "rating":
        return _length_of_rated(table, seed)
    more_M, judge_M, human_M, row_M = _longer(table)
    if not len(more_M):
        return {}
    _, place_M, count_R = np.unique(row_M, return_inverse=True, return_counts=True)  # R rows with a comparison
    judge, human = ((np.bincount(place_M, weights=won_M), count_R) for won_M in (judge_M, human_M))
    num = {"n": len(more_M)}
    return {
        "judge": asdict(estimate(RATIO, *judge, seed=seed)) | num,
        "people": asdict(estimate(RATIO, *human, seed=seed)) | num,
        "difference": asdict(paired(RATIO, human, judge, seed=seed)) | num,
        "bins": [
            {
                "low": int(more_M[inside_M].min()),
                "high": int(more_M[inside_M].max()),
                "n": int(inside_M.sum()),
                "judge": float(judge_M[inside_M].mean()),
                "people": float(human_M[inside_M].mean()),
            }
            for inside_M in _parts(more_M, np.ones(len(more_M), dtype=np.bool_))
        ],
    }


def score_use(table: Table, scale: Scale | None = None) -> dict[str, Any]:
    """Which scores the judge gives, reply by reply.

    Returns:
        ``n`` scores; ``values``, how many different ones; ``at_low`` and ``at_high``, the share at each end of the
        scale; ``most`` and ``most_share``, the most frequent score; ``histogram``, ``[{"low", "high", "n"}]``, where
        ``low`` is ``high`` unless there are too many values. Empty without a readable reply.
    """
    scores = table.votes_NOKC[~np.isnan(table.votes_NOKC)]
    if not len(scores):
        return {}
    values, counts = np.unique(scores, return_counts=True)
    low, high = (scale.low, scale.high) if scale else (values[0], values[-1])
    if len(values) <= MOST_VALUES:
        bins = list(zip(values.tolist(), values.tolist(), counts.tolist(), strict=True))
    else:
        wide, edges = np.histogram(scores, bins=NUM_WIDE, range=(low, high))
        bins = list(zip(edges[:-1].tolist(), edges[1:].tolist(), wide.tolist(), strict=True))
    return {
        "n": len(scores),
        "values": len(values),
        "at_low": _mean(scores == low),
        "at_high": _mean(scores == high),
        "most": float(values[counts.argmax()]),
        "most_share": float(counts.max() / len(scores)),
        "histogram": [{"low": start, "high": end, "n": n} for start, end, n in bins],
    }


def _length_of_rated(table: Table, seed: int) -> dict[str, Any]:
    words_N, judge_N, human_N = table.words_NC[:, 0], table.scores_NC[:, 0], table.human_NC[:, 0]
    known_N = ~np.isnan(words_N) & ~np.isnan(judge_N) & ~np.isnan(human_N)
    words_N, judge_N, human_N = words_N[known_N], judge_N[known_N], human_N[known_N]
    if len(words_N) < 2 or not np.ptp(words_N):
        return {}
    return {
        "judge": asdict(estimate(SPEARMAN, judge_N, words_N, seed=seed)),
        "people": asdict(estimate(SPEARMAN, human_N, words_N, seed=seed)),
        "difference": asdict(paired(SPEARMAN, (human_N, words_N), (judge_N, words_N), seed=seed)),
    }


def _longer(table: Table) -> Compared:
    first, second = (list(i) for i in zip(*combinations(range(table.words_NC.shape[1]), 2), strict=True))
    more_NP, judge_NP, human_NP = (
        values_NC[:, first] - values_NC[:, second] for values_NC in (table.words_NC, table.scores_NC, table.human_NC)
    )
    told_NP = ~np.isnan(more_NP) & ~np.isnan(judge_NP) & ~np.isnan(human_NP) & (more_NP != 0)
    row_M, _ = np.nonzero(told_NP)
    longer_M = np.sign(more_NP[told_NP])
    judge_M, human_M = ((1 + longer_M * np.sign(values_NP[told_NP])) / 2 for values_NP in (judge_NP, human_NP))
    return Compared(np.abs(more_NP[told_NP]), judge_M, human_M, row_M.astype(np.int64))


def _last(table: Table) -> Ints:
    """(N, O) which completion stood in the last slot of the given order or its reverse; of any other order nobody."""
    other_NO = table.count_N[:, None] - 1 - table.first_NO
    return np.where((table.first_NO == 0) | (other_NO == 0), other_NO, UNREAD - 1)


def _margin(table: Table) -> Floats:
    """(N,) from the best score to the next; NaN where there is none."""
    sorted_NC = np.sort(np.where(np.isnan(table.scores_NC), -np.inf, table.scores_NC), axis=1)
    margin_N = np.full(len(table), np.nan)
    np.subtract(sorted_NC[:, -1], sorted_NC[:, -2], out=margin_N, where=np.isfinite(sorted_NC[:, -2]))
    return margin_N


def _parts(values_N: Floats, known_N: Bools) -> list[Bools]:
    """The known rows in up to NUM_BINS parts by their value, of about equal size; few values are a part each."""
    if not known_N.any():
        return []
    different = np.unique(values_N[known_N])
    edges = different[:-1]
    if len(different) > NUM_BINS:
        edges = np.unique(np.quantile(values_N[known_N], np.linspace(0, 1, NUM_BINS + 1)[1:-1]))
    part_N = np.searchsorted(edges, np.where(known_N, values_N, 0), side="left")
    return [inside_N for i in range(len(edges) + 1) if (inside_N := known_N & (part_N == i)).any()]


def _share(of: Bools, told: Bools, *, seed: int) -> dict[str, Any]:
    """Of what is told, (N,) or (N, O), the share that is so; rows are drawn with all that they hold."""
    so_N, told_N = ((part & told).reshape(len(told), -1).sum(axis=1).astype(np.float64) for part in (of, told))
    return asdict(estimate(RATIO, so_N, told_N, seed=seed)) | {"n": int(told.sum())}


def _mean(values: Any) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
