"""Two runs over the same rows: which judge is better, by how much, how surely, and where they differ.

The two may be two judges, one judge under two templates (format sensitivity; the gain of thinking first), or one judge
with more votes or waits. Rows are paired, so the bootstrap draws rows, not runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flexreward.calibrator import settings
from flexreward.errors import OutputError
from flexreward.evals import load_benchmark
from flexreward.evals.base import Benchmark, Task
from flexreward.evals.paired import differences
from flexreward.evals.recount import figure, right, spearman
from flexreward.evals.run import RunFolder, finite
from flexreward.evals.scaling import mean_length, nearness
from flexreward.evals.table import Floats, Table, table_of
from flexreward.evals.winners import winners
from flexreward.files.outcomes import read_header, read_outcomes

MOST_ROWS = 1_000
"""Rows that differ, told by id."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run, read back."""

    path: Path
    benchmark: Benchmark
    summary: Mapping[str, Any]
    judge: Mapping[str, Any]
    template: Mapping[str, Any]
    table: Table
    requests: tuple[str, ...]
    """What each row asked, by digest."""


def load_run(path: Path) -> Run:
    """The run of ``flexreward eval`` in a folder.

    Raises:
        OutputError: There is none, or it is a half-run.
    """
    run = RunFolder(path=path)
    summary = run.read_summary()
    if not summary.get("benchmark") or not run.outcomes.is_file():
        raise OutputError(f"{path}: holds no run; flexreward eval BENCHMARK --out {path} makes one")
    if not summary.get("complete"):
        raise OutputError(
            f"{path}: is a half-run of {summary['benchmark']}; run flexreward eval with the same options to its end"
        )
    header = read_header(run.outcomes)
    rows = list(read_outcomes(run.outcomes))
    return Run(
        path=path,
        benchmark=load_benchmark(summary["benchmark"]),
        summary=summary,
        judge=header["judge"],
        template=header["template"],
        table=table_of(rows),
        requests=tuple(str(row["request"]) for row in rows),
    )


def compare(a: Run, b: Run, *, seed: int = 0) -> dict[str, Any]:
    """``b`` beside ``a``, as plain JSON; differences are ``b`` less ``a``.

    Returns:
        ``figures`` by name, ``{"a", "b", "difference", "low", "high", "p", "n"}`` each; ``groups``, the first of them
        by group, with the mean length of the replies; ``changed``, what tells the two judges apart; ``choices``, how
        often they choose alike; ``differ``, the rows on which they do not; ``length``, whether the difference goes with
        the length of ``b``'s reasoning. ``null`` where a figure is not defined. Where nothing but the template changed,
        ``figures`` and ``choices`` are the judge's sensitivity to the form of the question.

    Raises:
        OutputError: They are not over the same rows.
    """
    refuse_other_rows(a, b)
    task = a.benchmark.task
    groups = {}
    for name in a.table.group_names:
        here_N = np.array([group == name for group in a.table.groups])
        one, other = a.table.where(here_N), b.table.where(here_N)
        main = next(iter(differences(one, other, task, seed=seed).values()))
        groups[name] = {
            **asdict(main),
            "characters": {"a": _mean(mean_length(one)), "b": _mean(mean_length(other))},
        }
    fields: dict[str, Any] = {
        "benchmark": a.benchmark.name,
        "title": a.benchmark.title,
        "task": task,
        "rows": len(a.table),
        "a": _named(a),
        "b": _named(b),
        "changed": changed(a, b),
        "figures": {name: asdict(one) for name, one in differences(a.table, b.table, task, seed=seed).items()},
        "groups": groups if len(groups) > 1 else {},
        "length": _by_length(a, b, groups),
        "choices": _choices(a.table, b.table, task),
        "differ": _rows_that_differ(a.table, b.table, task),
    }
    found: dict[str, Any] = finite(fields)
    return found


def refuse_other_rows(a: Run, b: Run) -> None:
    """Say in one line why two runs cannot be paired.

    Raises:
        OutputError: Another benchmark, another number of rows, or a row that asks something else.
    """
    if a.benchmark.name != b.benchmark.name:
        raise OutputError(
            f"{b.path}: is a run of {b.benchmark.name}, and {a.path} of {a.benchmark.name}; compare runs of the same"
        )
    for number, (one, other) in enumerate(
        zip(zip(a.table.ids, a.requests, strict=True), zip(b.table.ids, b.requests, strict=True), strict=False), 1
    ):
        if one != other:
            raise OutputError(
                f"{b.path}: row {number} is {other[0]!r}, and in {a.path} {one[0]!r}"
                + (" with another text" if one[0] == other[0] else "")
                + "; run both on the same rows (--data, --subset, --limit)"
            )
    if len(a.table) != len(b.table):
        raise OutputError(
            f"{b.path}: has {len(b.table)} rows, and {a.path} {len(a.table)}; run both on the same rows (--data, "
            "--subset, --limit)"
        )


def changed(a: Run, b: Run) -> dict[str, tuple[Any, Any]]:
    """What tells the two judges apart, by the words of a recipe; the template by its id."""
    was, now = settings(a.judge), settings(b.judge)
    found = {name: (was.get(name), now.get(name)) for name in sorted({*was, *now}) if was.get(name) != now.get(name)}
    if a.template["digest"] != b.template["digest"]:
        found["template"] = (a.template["id"], b.template["id"])
    return found


def over_waits(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The figure over waits, from runs whose judges differ in nothing else: what their headers say.

    Returns:
        ``[{"waits", "value", "n", "completion_tokens"}]`` by rising waits; empty where that is not what they are.
    """
    if any(set(changed(runs[0], run)) - {"waits"} for run in runs[1:]):
        return []
    points = [
        {
            "waits": int(run.judge.get("waits", 0)),
            "value": figure(run.table.scores_NC, run.table.human_NC, run.benchmark.task),
            "n": int(run.table.scored_N.sum()),
            "completion_tokens": float(run.table.tokens_N.mean()),
        }
        for run in runs
    ]
    points.sort(key=lambda point: point["waits"])
    return points if len({point["waits"] for point in points}) > 1 else []


def _named(run: Run) -> dict[str, Any]:
    return {
        "path": str(run.path),
        "judge": run.judge,
        "template": run.template,
        "protocol": run.summary.get("protocol"),
        "parse_rate": run.summary.get("parse_rate"),
        "cost": run.summary.get("cost"),
    }


def _by_length(a: Run, b: Run, groups: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Spearman's correlation of the difference with the length of ``b``'s replies, over rows and over groups."""
    task = a.benchmark.task
    length_N = mean_length(b.table)
    gain_N = nearness(b.table, task) - nearness(a.table, task)
    known_N = ~np.isnan(length_N) & ~np.isnan(gain_N)
    lengths = np.array([group["characters"]["b"] for group in groups.values()], dtype=np.float64)
    gains = np.array([group["difference"] for group in groups.values()], dtype=np.float64)
    return {"rows": spearman(length_N[known_N], gain_N[known_N]), "groups": spearman(lengths, gains)}


def _choices(a: Table, b: Table, task: Task) -> dict[str, Any]:
    """How alike the two are, whoever is right: choices and their margins, or ratings."""
    both_N = a.scored_N & b.scored_N
    one, other = (run.scores_NC[both_N] for run in (a, b))
    if task == "rating":
        return {"n": len(one), "spearman": spearman(one[:, 0], other[:, 0])}
    found: dict[str, Any] = {
        "n": len(one),
        "alike": _mean((winners(one) == winners(other)).astype(np.float64)),
        "spearman": spearman(one[:, 0] - one[:, 1], other[:, 0] - other[:, 1]),
    }
    right_a, right_b = (right(run.scores_NC, run.human_NC, task) == 1 for run in (a, b))
    for name, here_N in (
        ("both_right", right_a & right_b),
        ("only_a", right_a & ~right_b),
        ("only_b", ~right_a & right_b),
        ("neither", ~right_a & ~right_b),
    ):
        found[name] = int((here_N & both_N).sum())
    return found


def _rows_that_differ(a: Table, b: Table, task: Task) -> list[dict[str, Any]]:
    """Rows with another choice, or scored by one alone; of ratings those furthest apart. At most ``MOST_ROWS``."""
    one_N = a.scored_N ^ b.scored_N
    apart_NC = np.abs(a.scores_NC - b.scores_NC)
    apart_N = np.where(a.scored_N & b.scored_N, np.nan_to_num(apart_NC).max(axis=1), 0.0)
    if task == "rating":
        differ_N = one_N | (apart_N > 0)
    else:
        differ_N = one_N | (a.scored_N & b.scored_N & (winners(a.scores_NC) != winners(b.scores_NC)))
    places = np.flatnonzero(differ_N)
    places = places[np.argsort(-np.where(one_N, np.inf, apart_N)[places], kind="stable")][:MOST_ROWS]
    return [
        {
            "id": a.ids[n],
            "group": a.groups[n],
            "human": a.human_NC[n, : a.count_N[n]].tolist(),
            "a": _scores(a, n),
            "b": _scores(b, n),
        }
        for n in places.tolist()
    ]


def _scores(table: Table, n: int) -> list[float] | None:
    return table.scores_NC[n, : table.count_N[n]].tolist() if table.scored_N[n] else None


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan
