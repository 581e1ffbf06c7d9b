"""Auto-J's pairwise test set: 1,392 pairs over 58 scenarios with people's labels, 373 of them ties.

Source: GAIR-NLP/auto-j (Li et al. 2023, arXiv 2310.05470) and its copy in prometheus-eval/prometheus-eval.
"""

from __future__ import annotations

from collections.abc import Iterator

from flexreward.errors import SampleError
from flexreward.evals.base import Benchmark, Drawn, Figures, Row, Scores, Source
from flexreward.evals.rows import field, text_field
from flexreward.evals.source import Folder
from flexreward.evals.table import Table
from flexreward.evals.winners import UNREAD, in_slot_one, said, winners
from flexreward.types import JudgeRequest

LABELS = {0: (1.0, 0.0), 1: (0.0, 1.0), 2: (1.0, 1.0)}
DECISION = "final decision is "


def rows(folder: Folder) -> Iterator[Row]:
    """The publisher gives no id: it is the row's number, from 0. The group is the scenario."""
    for row in folder.rows("testdata_pairwise.jsonl"):
        label = field(row, "label")
        if label not in LABELS:
            raise SampleError(f"{row.where}: label is {label!r}, expected 0, 1 or 2; copy the file again")
        yield Row(
            request=JudgeRequest(
                id=str(row.number - 1),
                prompt=text_field(row, "prompt"),
                completions=(text_field(row, "response 1"), text_field(row, "response 2")),
            ),
            human=LABELS[label],
            group=text_field(row, "scenario"),
        )


def published(table: Table) -> Figures:
    """Accuracy, which the source calls agreement, in the given order; in both, and consistency, where both were shown.

    Quirk: the two orders are consistent by the label alone, so that two replies that both cannot be read are too.
    """
    said_N, given_N = said(table), winners(in_slot_one(table, 0))
    if not len(table):
        return {"accuracy": float("nan")}
    figures = {"accuracy": float((given_N == said_N).mean())}
    if (table.first_NO == 1).any(axis=1).all():
        other_N = winners(in_slot_one(table, 1))
        figures["consistency"] = float((given_N == other_N).mean())
        figures["accuracy_both"] = float(((given_N == said_N) & (other_N == said_N)).mean())
    figures["unread"] = float((given_N == UNREAD).mean())
    return figures


def read(reply: str, count: int) -> Scores | None:
    """The last ``final decision is Response 1``, ``Response 2`` or ``Tie``; or the bare 0, 1, 2 of its label files."""
    if reply.strip() in ("0", "1", "2"):
        return LABELS[int(reply)]
    _, found, decision = reply.strip().rpartition(DECISION)
    starts = {"response 1": LABELS[0], "response 2": LABELS[1], "tie": LABELS[2]}
    answer = decision.strip().lower() if found else ""
    return next((scores for start, scores in starts.items() if answer.startswith(start)), None)


AUTOJ = Benchmark(
    name="auto-j",
    title="Auto-J pairwise test set",
    task="pair",
    template="pair",
    source=Source(
        files=("testdata_pairwise.jsonl",),
        num_rows=1392,
        remedy="copy data/test/testdata_pairwise.jsonl of https://github.com/GAIR-NLP/auto-j there",
    ),
    rows=rows,
    drawn=Drawn(orders="both"),
    published=published,
    quirks=("accuracy is of the given order alone; a reply that cannot be read is wrong",),
    headline="accuracy",
    read=read,
    key="the row's number from 0",
)
