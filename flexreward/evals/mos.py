"""What benchmarks of speech have in common: lists of recordings with the mean opinion of listeners, and systems.

Letters of the shapes: see ``flexreward.evals.table``; S systems.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from flexreward.errors import SampleError
from flexreward.evals.base import Figures, Scores
from flexreward.evals.rows import text_field
from flexreward.evals.source import Folder
from flexreward.evals.table import Bools, Floats, Table
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
    if systems and any(table.systems):
        found = correlations(*_by_system(table, judge_N, human_N))
        figures |= {f"system_{name}": value for name, value in found.items()}
    return figures


def correlations(judge_N: Floats, human_N: Floats) -> dict[str, float]:
    """``pearson`` (LCC), ``spearman`` (SRCC), ``kendall`` (KTAU, tau-b) and ``mse``; NaN where one side is constant."""
    from scipy.stats import kendalltau, pearsonr, spearmanr

    nan = float("nan")
    mse = float(np.mean((judge_N - human_N) ** 2)) if len(judge_N) else nan
    if len(judge_N) < 2 or not np.ptp(judge_N) or not np.ptp(human_N):
        return {"pearson": nan, "spearman": nan, "kendall": nan, "mse": mse}
    found = (measure(judge_N, human_N).statistic for measure in (pearsonr, spearmanr, kendalltau))
    return dict(zip(("pearson", "spearman", "kendall"), map(float, found), strict=True)) | {"mse": mse}


def _by_system(table: Table, judge_N: Floats, human_N: Floats) -> tuple[Floats, Floats]:
    """(S,) the means of each system, in the order of their first row."""
    names_N = np.array([systems[0] if systems else "" for systems in table.systems], dtype=object)
    given = {
        str(name): float(columns["system_score"])
        for name, columns in zip(names_N, table.columns, strict=True)
        if "system_score" in columns
    }
    judge, human = [], []
    for name in dict.fromkeys(names_N.tolist()):
        here_N: Bools = names_N == name
        if given and name not in given:
            continue
        judge.append(float(judge_N[here_N].mean()))
        human.append(given.get(name, float(human_N[here_N].mean())))
    return np.array(judge), np.array(human)


def read_mos(reply: str, count: int) -> Scores | None:
    """The first ``<answer>3.8</answer>`` anywhere, as Flex-Judge's scripts read; or a bare number, a predictor's."""
    if found := ANSWER.search(reply):
        return (float(found[1]),)
    try:
        value = float(reply)
    except ValueError:
        return None
    return (value,) if np.isfinite(value) else None
