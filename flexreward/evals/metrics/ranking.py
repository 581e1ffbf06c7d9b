"""How near the judge's order of several completions is to people's.

Both orders come as scores, best highest. Scores that are equal stand for all orders of the completions that share them,
each as likely as the other: a distance is then the mean over these orders, computed exactly.

Letters of the shapes: N rows, C completions.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import groupby, permutations, product

import numpy as np

from flexreward.evals.metrics.correlation import kendall
from flexreward.evals.table import Floats

MOST_ORDERS = 5_040
"""Orders that one row may stand for (seven completions, all equal); of more, so many are drawn."""

Order = tuple[int, ...]
Ranks = tuple[float, ...]


def levenshtein(judge_NC: Floats, human_NC: Floats) -> Floats:
    """(N,) edits that turn one order into the other, over the number of completions: 0 the same, at most 1.

    An edit is a completion left out, put in or put in another's place, as in MLLM-as-a-Judge. NaN where a row is
    unscored.
    """
    return _by_row(judge_NC, human_NC, _levenshtein)


def tau(judge_NC: Floats, human_NC: Floats) -> Floats:
    """(N,) Kendall's tau-b of each row: 1 the same, -1 the reverse, 0 where all scores of a side are equal.

    An order of nothing but ties goes neither with people's nor against it. NaN where a row is unscored.
    """
    return _by_row(judge_NC, human_NC, _tau)


def orders(scores: Sequence[float]) -> Iterator[Order]:
    """All orders, best first, that the scores allow; drawn ones where they are more than MOST_ORDERS."""
    places = sorted(range(len(scores)), key=lambda place: -scores[place])
    shared = [tuple(same) for _, same in groupby(places, key=lambda place: scores[place])]
    if math.prod(math.factorial(len(same)) for same in shared) > MOST_ORDERS:
        rng = random.Random(0)
        for _ in range(MOST_ORDERS):
            yield tuple(place for same in shared for place in rng.sample(same, len(same)))
        return
    for parts in product(*map(permutations, shared)):
        yield tuple(place for part in parts for place in part)


def edits(one: Order, other: Order) -> int:
    """Levenshtein's distance (1966), by the usual table of prefixes, a row at a time."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        above, row = row, [i]
        for j, b in enumerate(other, 1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (a != b)))
    return row[-1]


def _by_row(judge_NC: Floats, human_NC: Floats, distance: Callable[[Ranks, Ranks], float]) -> Floats:
    found_N = np.full(len(judge_NC), np.nan)
    for n, (judge_C, human_C) in enumerate(zip(judge_NC, human_NC, strict=True)):
        there_C = ~np.isnan(human_C)
        if there_C.any() and not np.isnan(judge_C[there_C]).any():
            found_N[n] = distance(_ranks(judge_C[there_C]), _ranks(human_C[there_C]))
    return found_N


def _ranks(scores_C: Floats) -> Ranks:
    """The same order in few numbers, so that rows of one pattern are worked out once."""
    return tuple(np.unique(scores_C, return_inverse=True)[1].tolist())


@lru_cache(maxsize=65_536)
def _levenshtein(judge: Ranks, human: Ranks) -> float:
    theirs = list(orders(human))
    found = [edits(mine, their) for mine in orders(judge) for their in theirs]
    return sum(found) / len(found) / len(judge)


@lru_cache(maxsize=65_536)
def _tau(judge: Ranks, human: Ranks) -> float:
    found = kendall(np.array(judge), np.array(human))
    return 0.0 if math.isnan(found) else found
