"""JudgeBench: pairs of one model's answers to hard questions, one right and one wrong, shown in both orders.

Source: ScalerLab/JudgeBench:utils/{metrics,judges}.py (Tan et al. 2024, arXiv 2410.12784).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

import numpy as np

from flexreward.errors import SampleError
from flexreward.evals.base import Benchmark, Drawn, Figures, Row, Scores, Source
from flexreward.evals.rows import field, text_field
from flexreward.evals.source import Folder
from flexreward.evals.table import Table
from flexreward.evals.winners import UNREAD, in_slot_one, said, winners
from flexreward.types import JudgeRequest

LABELS = {"A>B": (1.0, 0.0), "B>A": (0.0, 1.0), "A=B": (1.0, 1.0)}
LABEL = re.compile(r"\[\[([AB<>=]+)\]\]")
CATEGORIES = {"mmlu-pro": "knowledge", "livebench-r": "reasoning", "livebench-m": "math", "livecodebench": "coding"}


def rows(folder: Folder, *, files: tuple[str, ...]) -> Iterator[Row]:
    """The id is ``pair_id``; the group is the category that the source's table has a column for."""
    for row in folder.rows(*files):
        label, source = text_field(row, "label"), text_field(row, "source")
        if label not in ("A>B", "B>A"):
            raise SampleError(f"{row.where}: label is {label!r}, expected 'A>B' or 'B>A'; copy the file again")
        yield Row(
            request=JudgeRequest(
                id=text_field(row, "pair_id"),
                prompt=text_field(row, "question"),
                completions=(text_field(row, "response_A"), text_field(row, "response_B")),
            ),
            human=LABELS[label],
            group=next((name for start, name in CATEGORIES.items() if source.startswith(start)), source),
            systems=(text_field(row, "response_model"),) * 2,
            columns={"source": source, "original_id": field(row, "original_id")},
        )


def published(table: Table) -> Figures:
    """Two-order accuracy in percent of 1, overall and by category: +1 for a right decision, -1 for a wrong, sum > 0.

    Quirk: a tie or a reply that cannot be read counts 0, so that one right decision is enough beside it.
    """
    figures = {"accuracy": _two_orders(table)}
    figures |= {f"accuracy/{name}": _two_orders(part) for name, part in table.by_group().items()}
    first_N, second_N = (winners(in_slot_one(table, index)) for index in (0, 1))
    figures["inconsistent"] = float((first_N != second_N).mean()) if len(table) else float("nan")
    figures["null"] = float(((first_N == UNREAD) | (second_N == UNREAD)).mean()) if len(table) else float("nan")
    return figures


def _two_orders(table: Table) -> float:
    said_N = said(table)
    sum_N = np.zeros(len(table))
    for index in (0, 1):
        chosen_N = winners(in_slot_one(table, index))
        sum_N += np.where(chosen_N < 0, 0, np.where(chosen_N == said_N, 1, -1))
    return float((sum_N > 0).mean()) if len(table) else float("nan")


def read(reply: str, count: int) -> Scores | None:
    """Arena-Hard's labels, ``[[A>>B]]`` to ``[[B>>A]]``: all that a reply names must be one and the same."""
    found = {label for label in LABEL.findall(reply) if label}
    return LABELS.get(found.pop().replace(">>", ">")) if len(found) == 1 else None


def _benchmark(name: str, model: str, split: str, num_rows: int) -> Benchmark:
    files = (
        f"{split}-00000-of-00001.jsonl",
        f"dataset=judgebench,response_model={model}.jsonl",
        f"judgebench_{model}.jsonl",
    )
    return Benchmark(
        name=name,
        title=f"JudgeBench, answers of {model}",
        task="pair",
        template="pair",
        source=Source(
            files=(f"data/{files[0]}", *files),
            hub="ScalerLab/JudgeBench",
            num_rows=num_rows,
            licence="MIT",
            remedy="copy the folder data of https://github.com/ScalerLab/JudgeBench there",
        ),
        rows=partial(rows, files=files),
        drawn=Drawn(orders="both"),
        published=published,
        quirks=("a row is right when the two orders' decisions, right +1 and wrong -1, sum to more than 0",),
        headline="accuracy",
        read=read,
        key="pair_id",
    )


JUDGEBENCH = _benchmark("judgebench", "gpt-4o-2024-05-13", "gpt", 350)
JUDGEBENCH_CLAUDE = _benchmark("judgebench-claude", "claude-3-5-sonnet-20240620", "claude", 270)
