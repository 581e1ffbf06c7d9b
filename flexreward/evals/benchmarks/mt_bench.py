"""MT-Bench: people's votes on pairs of six models' answers to 80 questions of two turns.

Source: lm-sys/FastChat:fastchat/llm_judge/{compute_agreement,common}.py (Zheng et al. 2023, arXiv 2306.05685).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from flexreward.errors import SampleError
from flexreward.evals.base import Benchmark, Drawn, Figures, Row, Scores, Source
from flexreward.evals.rows import field, text_field
from flexreward.evals.source import Folder
from flexreward.evals.table import Table
from flexreward.evals.winners import TIE, UNREAD, in_slot_one, winners
from flexreward.files.rows import Row as FileRow
from flexreward.types import JudgeRequest, Message

LABELS = {0: (1.0, 0.0), 1: (0.0, 1.0), TIE: (1.0, 1.0)}


def rows(folder: Folder) -> Iterator[Row]:
    """A row a question, pair of models and turn, with all experts' votes; the authors' own votes are left out.

    The id is ``question/model/model/turn``, models by the alphabet; the group is the turn. The label is the plurality
    of the votes, a tie where it is shared.
    """
    votes: dict[str, list[int]] = {}
    first: dict[str, FileRow] = {}
    for row in folder.rows(*MT_BENCH.source.files):
        if text_field(row, "judge").startswith("expert"):
            models = [text_field(row, "model_a"), text_field(row, "model_b")]
            key = "/".join([str(field(row, "question_id")), *sorted(models), str(field(row, "turn"))])
            first.setdefault(key, row)
            votes.setdefault(key, []).append(_vote(row, swapped=models != sorted(models)))
    for key, row in first.items():
        most = Counter(votes[key]).most_common()
        shared = len(most) > 1 and most[0][1] == most[1][1]
        sides = sorted(("model_a", "model_b"), key=lambda side: text_field(row, side))
        asked, answers = _turns(row, [f"conversation_{side[-1]}" for side in sides])
        yield Row(
            request=JudgeRequest(id=key, prompt=asked, completions=answers),
            human=LABELS[TIE if shared else most[0][0]],
            group=f"turn {field(row, 'turn')}",
            systems=tuple(text_field(row, side) for side in sides),
            columns={"votes": votes[key], "cluster": field(row, "question_id")},
        )


def _vote(row: FileRow, *, swapped: bool) -> int:
    """0 or 1, the model that comes first or second by the alphabet, or TIE."""
    winner = text_field(row, "winner")
    if "tie" in winner:
        return TIE
    if winner not in ("model_a", "model_b"):
        raise SampleError(f"{row.where}: winner is {winner!r}, expected model_a, model_b or tie; copy the file again")
    return int((winner == "model_b") != swapped)


def _turns(row: FileRow, names: list[str]) -> tuple[str, tuple[Any, ...]]:
    """The first question, and each model's answer: in the second turn with what led to it."""
    talks = [field(row, name) for name in names]
    length = 2 * int(field(row, "turn"))
    if any(len(talk) < length for talk in talks):
        raise SampleError(f"{row.where}: a conversation ends before turn {field(row, 'turn')}; copy the file again")
    answers = [tuple(Message(role=turn["role"], content=turn["content"]) for turn in talk[1:length]) for talk in talks]
    return talks[0][0]["content"], tuple(turns[0].content if len(turns) == 1 else turns for turns in answers)


def published(table: Table) -> Figures:
    """Share of experts' votes that the judge's choice agrees with, by turn, with ties and without.

    The choice is what both orders name, else a tie. Without ties, a vote counts where neither it nor the choice is one.

    Quirks: each vote counts, so a pair that five people judged weighs five times; a pair with a reply that cannot be
    read is no tie and agrees with nobody. The figures over both turns are sums that the source does not print.
    """
    first_N, second_N = winners(in_slot_one(table, 0)), winners(in_slot_one(table, 1))
    choice_N = np.where(first_N == second_N, first_N, TIE)
    choice_N = np.where((first_N == UNREAD) | (second_N == UNREAD), UNREAD, choice_N)
    figures: dict[str, float] = {}
    for name in ("", *table.group_names):
        told = [
            (vote, choice)
            for group, columns, choice in zip(table.groups, table.columns, choice_N.tolist(), strict=True)
            if not name or group == name
            for vote in columns["votes"]
        ]
        decided = [pair for pair in told if TIE not in pair]
        for figure, pairs in (("agreement", told), ("agreement_without_ties", decided)):
            share = sum(vote == choice for vote, choice in pairs) / len(pairs) if pairs else float("nan")
            figures[f"{figure}/{name}" if name else figure] = share
    return figures


def read(reply: str, count: int) -> Scores | None:
    """``[[A]]`` anywhere, else ``[[B]]``, else ``[[C]]`` for a tie."""
    marks = {"[[A]]": LABELS[0], "[[B]]": LABELS[1], "[[C]]": LABELS[TIE]}
    return next((scores for mark, scores in marks.items() if mark in reply), None)


MT_BENCH = Benchmark(
    name="mt-bench",
    title="MT-Bench human judgments",
    task="pair",
    template="pair",
    source=Source(
        files=("human_judgments.json", "data/human-*.parquet", "human-*.parquet"),
        hub="lmsys/mt_bench_human_judgments",
        revision="6085f5b73c2ea3dee52918d07ed6b399f6c51fea",
        licence="CC BY 4.0",
        remedy="copy data/human-*.parquet of https://huggingface.co/datasets/lmsys/mt_bench_human_judgments there",
    ),
    rows=rows,
    drawn=Drawn(orders="both"),
    published=published,
    quirks=(
        "the two orders must name the same answer, else the judge's choice is a tie",
        "every expert's vote counts, so often judged pairs weigh more",
    ),
    headline="agreement",
    read=read,
    key="question/model/model/turn",
)
