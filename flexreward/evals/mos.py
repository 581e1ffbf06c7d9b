"""What benchmarks of speech have in common: lists of recordings with the mean opinion of listeners, and systems.

Letters of the shapes: see ``flexreward.evals.table``; S systems.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from flexreward.errors import SampleError
from flexreward.evals.base import Figures, Scores
from flexreward.evals.metrics import correlation as corr
from flexreward.evals.rows import text_field
from flexreward.evals.source import Folder
from flexreward.evals.table import Floats, Table
from flexreward.files.columns import shown
from flexreward.files.rows import Row as FileRow

ANSWER = re.compile(r"<answer>(\d+\.?\d*)</answer>")

PROMPT = "Generate clear, natural and intelligible speech."
"""What a recording is a completion of; the published templates for it show a text of their own."""


def score_field(row: FileRow, name: str) -> float:
    """A number of a list, whose fields are text.

    Raises:
        SampleError: It is none.
    """
    text = text_field(row, name)
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise SampleError(f"{row.where}: {name} is {shown(text)}, expected a number; copy the file again")
    return value


def system_scores(folder: Folder, *names: str) -> dict[str, float]:
    """The publisher's mean opinion of each system: two columns under a header. Empty where there is no such file."""
    scores = {}
    for path in folder.find(*names)[:1]:
        for row in folder.rows(path.relative_to(folder.path).as_posix()):
            system, score = list(row.fields)[:2]
            scores[str(row.fields[system])] = score_field(row, score)
    return scores


def columns_of(system: str, scores: dict[str, float]) -> dict[str, Any]:
    """A row's columns: its system's score, where the publisher gives one."""
    return {"system_score": scores[system]} if system in scores else {}


def mos_figures(table: Table, *, missing: float, rounded: bool, systems: bool) -> Figures:
    """The figures of a list, over recordings and over systems (``system_...``), by the first reply of each row.

    A system's truth is the publisher's own score of it where there is one, else the mean of its labels; a system that a
    list of scores does not hold is left out.

    Args:
        missing: What Flex-Judge's script takes for a reply that cannot be read.
        rounded: Whether its script rounds labels to one decimal; then those figures stand beside the plain ones, as
            ``pearson_labels_rounded``, ..., themselves rounded to three decimals.
        systems: Whether the source has figures over systems.
    """
    votes_N = table.votes_NOKC[:, 0, 0, 0]
    judge_N, human_N = np.where(np.isnan(votes_N), missing, votes_N), table.human_NC[:, 0]
    figures = correlations(judge_N, human_N)
    if rounded:
        to_one = np.array([round(value, 1) for value in human_N.tolist()])
        shorter = correlations(judge_N, to_one)
        figures |= {f"{name}_labels_rounded": round(value, 3) for name, value in shorter.items() if name != "kendall"}
    if systems:
        found = correlations(*(_by_system(table, judge_N, human_N) if len(table) else (judge_N, human_N)))
        figures |= {f"system_{name}": value for name, value in found.items()}
    return figures


def correlations(judge_N: Floats, human_N: Floats) -> dict[str, float]:
    """``pearson`` (LCC), ``spearman`` (SRCC), ``kendall`` (KTAU, tau-b) and ``mse``; NaN where one side is constant."""
    measures = {"pearson": corr.pearson, "spearman": corr.spearman, "kendall": corr.kendall, "mse": corr.mse}
    return {name: measure(judge_N, human_N) for name, measure in measures.items()}


def _by_system(table: Table, judge_N: Floats, human_N: Floats) -> tuple[Floats, Floats]:
    """(S,) the judge's mean of each system, and what is true of it."""
    given = {systems[0]: c["system_score"] for systems, c in zip(table.systems, table.columns, strict=True) if c}
    names, judge_S, human_S = corr.system_means([systems[0] for systems in table.systems], judge_N, human_N)
    if not given:
        return judge_S, human_S
    known_S = np.array([name in given for name in names])
    return judge_S[known_S], np.array([given[name] for name in names if name in given], dtype=np.float64)


def read_mos(reply: str, count: int) -> Scores | None:
    """The first ``<answer>3.8</answer>`` anywhere, as Flex-Judge's scripts read; or a bare number, a predictor's."""
    if found := ANSWER.search(reply):
        return (float(found[1]),)
    try:
        value = float(reply)
    except ValueError:
        return None
    return (value,) if np.isfinite(value) else None
