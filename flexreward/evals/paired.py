"""Differences between two judges over the same rows: every strict figure, by the paired bootstrap."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from flexreward.evals.base import Task
from flexreward.evals.metrics.bootstrap import Difference, paired
from flexreward.evals.strict import MAIN, Figure, clusters_of, figures, system_figures
from flexreward.evals.table import Table

LEFT_OUT = ("base_rate", "tie_calibrated_epsilon")
"""One that no judge changes, and one that is a setting."""


def differences(a: Table, b: Table, task: Task, *, seed: int = 0) -> dict[str, Difference]:
    """Each strict figure of ``b`` less that of ``a``, the main one first, over rows that both judges scored.

    The main figures of choices are told once more over all rows, with what is unscored as wrong.
    """
    both_N = a.scored_N & b.scored_N
    one, other = a.where(both_N), b.where(both_N)
    found = _paired(one, other, figures(task, one), figures(task, other), seed)
    if task == "rating":
        systems = zip(system_figures(one), system_figures(other), strict=False)
        found |= {x.name: paired(x.metric, x.columns, y.columns, seed=seed) for x, y in systems}
    else:
        whole = _paired(a, b, figures(task, a), figures(task, b), seed)
        found |= {f"{name}_unscored_wrong": whole[name] for name in MAIN[task] if name in whole}
    return {name: found[name] for name in dict.fromkeys([*MAIN[task], *found]) if name in found}


def _paired(a: Table, b: Table, ones: Iterator[Figure], others: Iterator[Figure], seed: int) -> dict[str, Difference]:
    """Figures that both have, over the rows of which both are computed."""
    named = {other.name: other for other in others}
    clusters = clusters_of(a)
    found = {}
    for one in ones:
        if one.name not in named or one.name in LEFT_OUT:
            continue
        other = named[one.name]
        rows, here, there = np.intersect1d(one.rows, other.rows, return_indices=True)
        found[one.name] = paired(
            one.metric,
            tuple(column[here] for column in one.columns),
            tuple(column[there] for column in other.columns),
            seed=seed,
            clusters=None if clusters is None else clusters[rows],
        )
    return found
