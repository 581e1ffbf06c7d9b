"""The figures of an eval with their bootstrap, against a plain Python loop over the folds.

Five figures of 100,000 verdicts, 1,000 folds each: accuracy and macro F1 of choices, Pearson, Spearman and MSE of
ratings. The loop draws the rows once a fold for all five, sums with built-in functions, and ranks by counting values;
it would take many minutes, so ``LOOP_FOLDS`` of its folds are timed and the time is scaled linearly to all of them.
Ours starts anew for each figure, as an eval does. A second loop calls NumPy, SciPy and scikit-learn once a fold.

Ratings are in tenths, as judges and people give them. ``bootstrap_distinct`` has ratings no two of which are alike.
"""

from __future__ import annotations

import math
import random
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import eq, mul
from time import perf_counter
from typing import Any

import numpy as np

from flexreward.bench import Bar, interval
from flexreward.evals.metrics.agreement import ACCURACY, classes, macro_f1
from flexreward.evals.metrics.bootstrap import NUM_FOLDS, Estimate, estimate
from flexreward.evals.metrics.correlation import MSE, PEARSON, SPEARMAN
from flexreward.evals.table import Floats, Ints

NUM_VERDICTS = 100_000
LOOP_FOLDS = 2
LIBRARY_FOLDS = 5
ROUNDS = 5
GOAL = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """What people and a judge said of as many pairs and as many single completions."""

    said_N: Ints
    chosen_N: Ints
    human_N: Floats
    judge_N: Floats

    def columns(self) -> tuple[Any, ...]:
        return self.said_N, self.chosen_N, self.human_N, self.judge_N


def bars(num_verdicts: int = NUM_VERDICTS, rounds: int = ROUNDS) -> dict[str, Bar]:
    """``bootstrap`` against the plain loop, its seconds, and two bars that say more without a goal."""
    verdicts, distinct = (made(num_verdicts, distinct=one) for one in (False, True))
    estimates(made(1_000))  # libraries load once
    ours, loop, library, ours_distinct, loop_distinct = ([0.0] * rounds for _ in range(5))
    for i in range(rounds):
        ours[i] = _seconds(lambda: estimates(verdicts))
        loop[i] = _seconds(lambda: plain_folds(verdicts, LOOP_FOLDS)) * NUM_FOLDS / LOOP_FOLDS
        library[i] = _seconds(lambda: library_folds(verdicts, LIBRARY_FOLDS)) * NUM_FOLDS / LIBRARY_FOLDS
        ours_distinct[i] = _seconds(lambda: estimates(distinct))
        loop_distinct[i] = _seconds(lambda: plain_folds(distinct, LOOP_FOLDS)) * NUM_FOLDS / LOOP_FOLDS
    return {
        "bootstrap": _ratio(loop, ours, num_verdicts, GOAL),
        "bootstrap_s": Bar(
            value=statistics.fmean(ours),
            goal=None,
            baseline=statistics.fmean(loop),
            n=num_verdicts,
            interval=interval(ours),
        ),
        "bootstrap_distinct": _ratio(loop_distinct, ours_distinct, num_verdicts, None),
        "bootstrap_library_loop": _ratio(library, ours, num_verdicts, None),
    }


def made(num: int, *, distinct: bool = False, seed: int = 0) -> Verdicts:
    """Verdicts of a fair judge: pairs scored 1 to 10 in two orders and averaged, ratings 1 to 5."""
    rng = np.random.default_rng(seed)
    said_N = rng.choice([0, 1, -1], size=num, p=[0.45, 0.45, 0.1])
    lean_N = np.where(said_N == 0, 1.0, np.where(said_N == 1, -1.0, 0.0))
    margin_N = np.round(lean_N[:, None] + rng.normal(0, 1.5, (num, 2))).sum(axis=1)
    human_N = rng.normal(3.2, 0.8, num)
    judge_N = human_N + rng.normal(0, 0.6, num)
    if not distinct:
        human_N, judge_N = (np.clip(np.round(values_N, 1), 1, 5) for values_N in (human_N, judge_N))
    return Verdicts(
        said_N=said_N,
        chosen_N=np.where(margin_N > 0, 0, np.where(margin_N < 0, 1, -1)),
        human_N=human_N,
        judge_N=judge_N,
    )


def estimates(verdicts: Verdicts) -> list[Estimate]:
    """All five figures with their intervals, as an eval computes them."""
    choices, ratings = (verdicts.said_N, verdicts.chosen_N), (verdicts.judge_N, verdicts.human_N)
    return [
        *(estimate(metric, *choices) for metric in (ACCURACY, macro_f1(classes(verdicts.said_N)))),
        *(estimate(metric, *ratings) for metric in (PEARSON, SPEARMAN, MSE)),
    ]


def plain_folds(verdicts: Verdicts, folds: int, *, seed: int = 0) -> list[list[float]]:
    """The five figures of so many draws, without a library."""
    rng = random.Random(seed)
    columns: list[list[Any]] = [column.tolist() for column in verdicts.columns()]
    num = len(columns[0])
    found = []
    for _ in range(folds):
        rows = rng.choices(range(num), k=num)
        found.append(plain(*([column[row] for row in rows] for column in columns)))
    return found


def plain(said: list[int], chosen: list[int], human: list[float], judge: list[float]) -> list[float]:
    """The five figures of some rows, without a library."""
    num = len(said)
    labels = sorted(set(said))
    counts, said_counts, chosen_counts = Counter(zip(said, chosen, strict=True)), Counter(said), Counter(chosen)
    f1 = [2 * counts[label, label] / (said_counts[label] + chosen_counts[label]) for label in labels]
    squares = sum((a - b) ** 2 for a, b in zip(judge, human, strict=True))
    return [
        sum(map(eq, said, chosen)) / num,
        sum(f1) / len(f1),
        _correlation(judge, human),
        _correlation(_ranks(judge), _ranks(human)),
        squares / num,
    ]


def library_folds(verdicts: Verdicts, folds: int, *, seed: int = 0) -> list[list[float]]:
    """The five figures of so many draws by SciPy and scikit-learn, a call each."""
    from scipy.stats import pearsonr, spearmanr
    from sklearn.metrics import accuracy_score, f1_score, mean_squared_error

    rng = np.random.default_rng(seed)
    num = len(verdicts.said_N)
    found = []
    for _ in range(folds):
        rows = rng.integers(0, num, num)
        said, chosen, human, judge = (column[rows] for column in verdicts.columns())
        found.append(
            [
                float(accuracy_score(said, chosen)),
                float(f1_score(said, chosen, average="macro")),
                float(pearsonr(judge, human).statistic),
                float(spearmanr(judge, human).statistic),
                float(mean_squared_error(human, judge)),
            ]
        )
    return found


def _correlation(x: list[float], y: list[float]) -> float:
    num = len(x)
    mean_x, mean_y = sum(x) / num, sum(y) / num
    x, y = [one - mean_x for one in x], [one - mean_y for one in y]
    return float(sum(map(mul, x, y)) / math.sqrt(sum(map(mul, x, x)) * sum(map(mul, y, y))))


def _ranks(values: list[float]) -> list[float]:
    below, rank = 0, {}
    for value, count in sorted(Counter(values).items()):
        rank[value] = below + (count + 1) / 2
        below += count
    return [rank[value] for value in values]


def _seconds(work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start


def _ratio(baseline: Sequence[float], ours: Sequence[float], n: int, goal: float | None) -> Bar:
    """How many times as long the baseline takes, round by round."""
    ratios = [slow / fast for slow, fast in zip(baseline, ours, strict=True)]
    return Bar(value=statistics.fmean(ratios), goal=goal, baseline=1.0, n=n, interval=interval(ratios))
