"""Every two completions held against each other: who is best among all, and among some, from their games alone. Pure.

Equal completions tie with each other wherever anything is known of them, as in ``flexreward.groups``. Shape letters:
K completions, M subsets, N members of a subset.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from math import comb
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from flexreward.bradley_terry import Result, expected_wins, won
from flexreward.pairs.best_of_n import Draws
from flexreward.pairs.bracket import Known
from flexreward.types import Verdict

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array: TypeAlias = npt.NDArray[np.float64]
    Indices: TypeAlias = npt.NDArray[np.intp]

Rating: TypeAlias = Literal["round-robin", "bradley-terry"]
MOST_SUBSETS = {"round-robin": 128, "bradley-terry": 70}
"""Subsets of one prompt and one N that the curve is over; all of them where there are no more."""


class Table(NamedTuple):
    """All games of one prompt."""

    same: tuple[int, ...]
    won_KK: Array
    """By the row's against the column's: 1, 0, or one half for a tie; NaN where there is no verdict."""
    expected_KK: Array
    """The row's expected score in that game, as a share of the scale; NaN where it is not known."""
    results: tuple[Result, ...]
    """For Bradley-Terry, between the first of equal ones."""


def table(same: Sequence[int], known: Known) -> Table:
    """The games of completions, of which ``same`` says which are equal."""
    import numpy as np

    count = len(same)
    won_KK, expected_KK = np.full((count, count), np.nan), np.full((count, count), np.nan)
    results = []
    read: set[int] = set()
    for (one, other), found in known.items():
        if found.scores is None:
            continue
        read |= {one, other}
        first, second = found.scores
        results.append(Result(one, other, won(Verdict(scores=found.scores, scale=found.scale))))
        rows = [[i for i, text in enumerate(same) if text == member] for member in (one, other)]
        points = 0.5 if first == second else float(first > second)
        won_KK[np.ix_(rows[0], rows[1])], won_KK[np.ix_(rows[1], rows[0])] = points, 1 - points
        if found.expected_shares is not None:
            low, high = found.expected_shares
            expected_KK[np.ix_(rows[0], rows[1])], expected_KK[np.ix_(rows[1], rows[0])] = low, high
    for i, j in itertools.permutations(range(count), 2):
        if same[i] == same[j] and same[i] in read:
            won_KK[i, j] = 0.5
    return Table(tuple(same), won_KK, expected_KK, tuple(results))


def ratings(games: Table, rating: Rating, subsets_MN: Indices) -> Array:
    """(M, N), each member's within its subset, from 0 to 1; NaN without a game that has a verdict."""
    import numpy as np

    if rating == "round-robin":
        return _mean(games.won_KK[subsets_MN[:, :, None], subsets_MN[:, None, :]])
    found = np.full(subsets_MN.shape, np.nan)
    for row, subset in enumerate(subsets_MN.tolist()):
        place = {text: at for at, text in enumerate(dict.fromkeys(games.same[i] for i in subset))}
        results = [
            Result(place[one], place[other], points)
            for one, other, points in games.results
            if one in place and other in place
        ]
        wins = expected_wins(results, size=len(place))
        found[row] = [np.nan if (win := wins[place[games.same[i]]]) is None else round(win, 9) for i in subset]
    return found


def expectations(games: Table, subsets_MN: Indices) -> Array:
    """(M, N), each member's mean expected score within its subset; NaN where no game has one."""
    return _mean(games.expected_KK[subsets_MN[:, :, None], subsets_MN[:, None, :]])


def draws(games: Table, rating: Rating, n: int, *, seed: str) -> Draws:
    """The best of ``n``, ties drawn evenly, over all subsets or some drawn."""
    import numpy as np

    count = len(games.same)
    subsets_MN = subsets(count, n, most=MOST_SUBSETS[rating], seed=seed)
    rated_MN = np.nan_to_num(ratings(games, rating, subsets_MN), nan=-np.inf)
    best_MN = rated_MN == rated_MN.max(axis=1, keepdims=True)
    expected_MN = np.where(best_MN, expectations(games, subsets_MN), -np.inf)
    most_M1 = expected_MN.max(axis=1, keepdims=True)  # NaN where one of the best has none: then nothing breaks the tie
    best_MN = np.where(np.isnan(most_M1), best_MN, expected_MN == most_M1)
    chance_K = np.zeros(count)
    np.add.at(chance_K, subsets_MN, best_MN / best_MN.sum(axis=1, keepdims=True) / len(subsets_MN))
    return Draws(tuple(chance_K.tolist()), subsets_MN.tolist())


def subsets(count: int, n: int, *, most: int, seed: str) -> Indices:
    """(M, N) indices: every subset of ``n``, or ``most`` drawn where there are more."""
    import numpy as np

    if comb(count, n) <= most:
        return np.array(list(itertools.combinations(range(count), n)), dtype=np.intp)
    rng = random.Random(f"{seed} {n}".encode("utf-8", "surrogatepass"))
    return np.array([rng.sample(range(count), n) for _ in range(most)], dtype=np.intp)


def _mean(values_MNN: Array) -> Array:
    """Over the last axis, what is unknown left out."""
    import numpy as np

    is_known = ~np.isnan(values_MNN)
    num_M = is_known.sum(axis=-1)
    sums = np.where(is_known, values_MNN, 0).sum(axis=-1)
    means: Array = np.divide(sums, num_M, out=np.full(sums.shape, np.nan), where=num_M > 0)
    return means
