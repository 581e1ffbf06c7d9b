"""Figures as one would compute them afresh: plain means over every reply of the run, each with its uncertainty.

A name means the same here and in a benchmark's ``published`` figures; where the source counts something else, it has
another name there, and the quirks say what.

Several completions (``pair``, ``best``, ``ranking``):
    ``accuracy``                 pair: the judge's choice of first, second or tie is people's. best: 1/k where k
                                 completions share the top score and a right one is among them
    ``accuracy_without_ties``    pair: rows where people tie left out; a tie of the judge is wrong
    ``accuracy_both``            pair: right in each of the two orders, where both were shown
    ``consistency``              the two orders choose alike, right or wrong
    ``macro_precision``, ``macro_recall``, ``macro_f1``   pair: over the classes that people use; nothing chosen is 0
    ``kappa``, ``base_rate``     pair: Cohen's; the share of people's most frequent class
    ``tie_calibrated_accuracy``, ``tie_calibrated_epsilon``   pair, ranking: Deutsch et al. 2023
    ``auroc``                    pair, best: a completion's score tells people's favourites from the others, rows
                                 that people tie left out
    ``levenshtein``              ranking: edits between the two orders over their length; lower is better
    ``kendall``                  ranking: tau-b a row, the mean over rows; 0 where the judge ties them all
    ``concordance``              ranking: pairs that people order, a tie of the judge counting half
    ``ties``                     rows where the judge shares its best score
One completion (``rating``):
    ``pearson``, ``spearman``, ``kendall``, ``mse``, ``rmse``   over rows
    ``system_pearson``, ``system_spearman``, ``system_kendall``, ``system_mse``   over systems' means, where rows have
                                 systems; the interval draws systems
    ``auroc``                    where people say one of two things
All:
    ``unscored``                 rows without a verdict, of all rows. All figures above leave them out
    ``X_unscored_wrong``         the main figures with unscored rows counted as wrong: no choice, the most edits, or of
                                 the lowest and highest rating that people gave the one further from theirs
    ``X_over_groups``            the plain mean of a main figure over the groups that define it
    ``X/group``                  a main figure in one group

Main figures: ``accuracy`` and ``accuracy_without_ties``; ``pearson``, ``spearman`` and ``mse``; ``levenshtein``.

A row may name a ``cluster`` among its columns: rows of one prompt are then drawn together, which widens the intervals.

Letters of the shapes: see ``flexreward.evals.table``; P pairs of a row's completions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from flexreward.evals.base import Benchmark, Task
from flexreward.evals.metrics import agreement as agree
from flexreward.evals.metrics import correlation as corr
from flexreward.evals.metrics import ranking
from flexreward.evals.metrics.bootstrap import Columns, Estimate, Metric, Sampled, estimate, mean_of, sampled
from flexreward.evals.recount import order_choices, right
from flexreward.evals.table import Bools, Floats, Ints, Table
from flexreward.evals.winners import TIE, UNREAD, said, winners

MAIN: dict[Task, tuple[str, ...]] = {
    "rating": ("pearson", "spearman", "mse"),
    "pair": ("accuracy", "accuracy_without_ties"),
    "ranking": ("levenshtein",),
    "best": ("accuracy",),
}


class Figure(NamedTuple):
    """A metric and what it is computed from."""

    name: str
    metric: Metric
    columns: Columns
    rows: Ints
    """Which rows of the table the columns are of."""


def strict(benchmark: Benchmark, table: Table, *, seed: int = 0) -> dict[str, Estimate]:
    """All figures of the benchmark's task by name: of the whole, of the groups, and with unscored rows as wrong."""
    task, scored = benchmark.task, table.where(table.scored_N)
    found = {one.name: _sampled(one, scored, seed).estimate for one in figures(task, scored)}
    if task == "rating":
        found |= {one.name: estimate(one.metric, *one.columns, seed=seed) for one in system_figures(scored)}
    found |= _unscored(task, table, found, seed)
    return found | _by_group(task, scored, seed)


def figures(task: Task, table: Table) -> Iterator[Figure]:
    """What there is to compute of a task. Rows without a verdict count as wrong, and not at all in correlations."""
    if task == "rating":
        yield from _of_ratings(table)
    elif task == "pair":
        yield from _of_pairs(table)
    elif task == "best":
        good_NC = table.human_NC == np.nanmax(table.human_NC, axis=1, keepdims=True)
        yield _figure("accuracy", corr.MEAN, agree.credit(table.scores_NC, good_NC))
        yield _figure("auroc", agree.AUROC, table.scores_NC, good_NC)
    else:
        edits_N = ranking.levenshtein(table.scores_NC, table.human_NC)
        yield _figure("levenshtein", corr.MEAN, np.where(table.scored_N, edits_N, 1.0))
        yield _figure("kendall", corr.MEAN, np.nan_to_num(ranking.tau(table.scores_NC, table.human_NC), nan=-1.0))
        agreed_N = right(table.scores_NC, table.human_NC, "ranking")
        yield _figure("concordance", corr.MEAN, agreed_N, where=~np.isnan(agreed_N))
        yield from _tie_calibrated(table)
    if task != "rating":
        yield _figure("ties", corr.MEAN, (winners(table.scores_NC) == TIE).astype(np.float64))
        yield from _of_orders(task, table)


def system_figures(table: Table) -> Iterator[Figure]:
    """Correlations of systems' means: none where a row has no system, or there are fewer than two."""
    if not all(table.systems) or len({systems[0] for systems in table.systems}) < 2:
        return
    known_N = table.scored_N & ~np.isnan(table.human_NC[:, 0])
    names = [table.systems[n][0] for n in np.flatnonzero(known_N).tolist()]
    _, judge_S, human_S = corr.system_means(names, table.scores_NC[known_N, 0], table.human_NC[known_N, 0])
    for name, metric in RATINGS.items():
        if name != "rmse":
            yield _figure(f"system_{name}", metric, judge_S, human_S)


RATINGS = {
    "pearson": corr.PEARSON,
    "spearman": corr.SPEARMAN,
    "kendall": corr.KENDALL,
    "mse": corr.MSE,
    "rmse": corr.RMSE,
}


def _of_ratings(table: Table) -> Iterator[Figure]:
    judge_N, human_N = table.scores_NC[:, 0], table.human_NC[:, 0]
    known_N = ~np.isnan(judge_N) & ~np.isnan(human_N)
    for name, metric in RATINGS.items():
        yield _figure(name, metric, judge_N, human_N, where=known_N)
    said = np.unique(human_N[known_N])
    if len(said) == 2:
        yield _figure("auroc", agree.AUROC, judge_N[:, None], human_N[:, None] == said[1], where=known_N)


def _of_pairs(table: Table) -> Iterator[Figure]:
    said_N, chosen_N = said(table), winners(table.scores_NC)
    labels = agree.classes(said_N)
    decided_N = said_N != TIE
    yield _figure("accuracy", agree.ACCURACY, said_N, chosen_N)
    yield _figure("accuracy_without_ties", agree.ACCURACY, said_N, chosen_N, where=decided_N)
    yield _figure("macro_precision", agree.macro_precision(labels), said_N, chosen_N)
    yield _figure("macro_recall", agree.macro_recall(labels), said_N, chosen_N)
    yield _figure("macro_f1", agree.macro_f1(labels), said_N, chosen_N)
    yield _figure("kappa", agree.KAPPA, said_N, chosen_N)
    yield _figure("base_rate", agree.BASE_RATE, said_N)
    good_NC = np.arange(table.human_NC.shape[1]) == said_N[:, None]
    yield _figure("auroc", agree.AUROC, table.scores_NC, good_NC, where=decided_N)
    yield from _tie_calibrated(table)


def _tie_calibrated(table: Table) -> Iterator[Figure]:
    first, second = (list(places) for places in zip(*combinations(range(table.human_NC.shape[1]), 2), strict=True))
    columns = [values_NC[:, first] - values_NC[:, second] for values_NC in (table.scores_NC, table.human_NC)]
    yield _figure("tie_calibrated_accuracy", agree.TIE_CALIBRATED_ACCURACY, *columns)
    yield _figure("tie_calibrated_epsilon", agree.TIE_CALIBRATED_EPSILON, *columns)


def _of_orders(task: Task, table: Table) -> Iterator[Figure]:
    """Figures of rows that were shown in two orders, both of which can be read."""
    chosen_NO = order_choices(table.votes_NOKC, table.first_NO)
    both_N = (chosen_NO != UNREAD).all(axis=1)
    if chosen_NO.shape[1] < 2 or not both_N.any():
        return
    if task == "pair":
        right_N = (chosen_NO == said(table)[:, None]).all(axis=1)
        yield _figure("accuracy_both", corr.MEAN, right_N.astype(np.float64), where=both_N)
    alike_N = (chosen_NO == chosen_NO[:, :1]).all(axis=1)
    yield _figure("consistency", corr.MEAN, alike_N.astype(np.float64), where=both_N)


def _unscored(task: Task, table: Table, found: dict[str, Estimate], seed: int) -> dict[str, Estimate]:
    """The share of unscored rows, and what becomes of the main figures when they are wrong."""
    missing_N = ~table.scored_N
    told = {"unscored": estimate(corr.MEAN, missing_N.astype(np.float64), seed=seed, clusters=clusters_of(table))}
    if not missing_N.any():
        return told | {f"{name}_unscored_wrong": found[name] for name in MAIN[task]}
    filled = replace(table, scores_NC=_far_off(table)) if task == "rating" else table
    for one in figures(task, filled):
        if one.name in MAIN[task]:
            told[f"{one.name}_unscored_wrong"] = _sampled(one, table, seed).estimate
    return told


def _far_off(table: Table) -> Floats:
    """(N, 1) scores with the worst of people's ratings for the row in the place of none."""
    human_NC = table.human_NC
    low, high = np.nanmin(human_NC), np.nanmax(human_NC)
    return np.where(np.isnan(table.scores_NC), np.where(human_NC - low > high - human_NC, low, high), table.scores_NC)


def _by_group(task: Task, table: Table, seed: int) -> dict[str, Estimate]:
    """The main figures group by group, and their plain means. A group's rows are drawn apart from the others'."""
    parts = table.by_group()
    if len(parts) < 2:
        return {}
    drawn: dict[str, dict[str, Sampled]] = {name: {} for name in MAIN[task]}
    for number, (group, part) in enumerate(parts.items()):
        for one in figures(task, part):
            if one.name in drawn:
                drawn[one.name][group] = _sampled(one, part, [seed, number])
    means = {f"{name}_over_groups": mean_of(list(of.values())).estimate for name, of in drawn.items()}
    return means | {f"{name}/{group}": one.estimate for name, of in drawn.items() for group, one in of.items()}


def _figure(name: str, metric: Metric, *columns: Any, where: Bools | None = None) -> Figure:
    rows = np.arange(len(columns[0])) if where is None else np.flatnonzero(where)
    return Figure(name, metric, tuple(column[rows] for column in columns), rows)


def _sampled(one: Figure, table: Table, seed: int | list[int]) -> Sampled:
    clusters = clusters_of(table)
    return sampled(one.metric, *one.columns, seed=seed, clusters=None if clusters is None else clusters[one.rows])


def clusters_of(table: Table) -> Ints | None:
    """(N,) the number of each row's cluster, where rows name one."""
    names = [columns.get("cluster") for columns in table.columns]
    if all(name is None for name in names):
        return None
    numbers: dict[object, int] = {}
    return np.array(
        [numbers.setdefault(n if name is None else str(name), len(numbers)) for n, name in enumerate(names)]
    )
