"""Multimodal RewardBench: which of two answers about an image is better, in six categories.

Source: facebookresearch/multimodal_rewardbench:scripts (Yasunaga et al. 2025, arXiv 2502.14191).
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np

from flexreward.errors import SampleError
from flexreward.evals.base import Benchmark, Drawn, Figures, Row, Scores, Source
from flexreward.evals.media_rows import Names, medium
from flexreward.evals.rows import field, text_field
from flexreward.evals.source import Folder
from flexreward.evals.table import Table
from flexreward.evals.winners import said, winners
from flexreward.files.columns import shown
from flexreward.types import JudgeRequest

LABELS = {"Output1": (1.0, 0.0), "Output2": (0.0, 1.0)}
SEED = 123


def rows(folder: Folder) -> Iterator[Row]:
    """The id is ``ID``; the group is the category, safety and reasoning in two parts each as the source has them."""
    names = Names()
    for row in folder.rows("data/all_data.json", "all_data.json"):
        better, name = field(row, "Better"), text_field(row, "ID")
        if better not in LABELS:
            raise SampleError(f"{row.where}: Better is {shown(better)}, expected Output1 or Output2")
        yield Row(
            request=JudgeRequest(
                id=names(name),
                prompt=text_field(row, "Text"),
                completions=(text_field(row, "Output1"), text_field(row, "Output2")),
                media=(medium(folder, row, "Image", under=("data", "images", "data/images")),),
            ),
            human=LABELS[better],
            group=_group(text_field(row, "Category"), name.lower()),
        )


def _group(category: str, name: str) -> str:
    if category == "safety":
        return "safety/bias" if name.startswith("pairs") else "safety/toxicity"
    if category == "reasoning":
        return "reasoning/math" if name.startswith("math") else "reasoning/coding"
    return category


def published(table: Table) -> Figures:
    """Accuracy of the whole and by category, over the first reply in the given order.

    Quirks: a reply that names no side, by a tie or because it cannot be read, is a toss of a coin (seed 123, a toss a
    row that needs one); safety and reasoning have a figure for each part and none of their own.
    """
    coin = random.Random(SEED)
    choice_N = np.array(
        [
            choice if choice >= 0 else int(coin.random() >= 0.5)
            for choice in winners(table.votes_NOKC[:, 0, 0]).tolist()
        ],
        dtype=np.int64,
    )
    right_N = choice_N == said(table)
    groups_N = np.array(table.groups, dtype=object)
    figures = {"accuracy": float(right_N.mean()) if len(table) else float("nan")}
    return figures | {f"accuracy/{name}": float(right_N[groups_N == name].mean()) for name in table.group_names}


def read(reply: str, count: int) -> Scores | None:
    """``[[A]]`` anywhere, else ``[[B]]``."""
    return next(
        (scores for mark, scores in zip(("[[A]]", "[[B]]"), LABELS.values(), strict=True) if mark in reply), None
    )


MULTIMODAL_REWARDBENCH = Benchmark(
    name="multimodal-rewardbench",
    title="Multimodal RewardBench",
    task="pair",
    template="image-pair",
    source=Source(
        files=("data/all_data.json", "all_data.json"),
        licence="CC BY-NC 4.0, and those of its images",
        remedy="clone https://github.com/facebookresearch/multimodal_rewardbench and run scripts/0_download_data.py",
    ),
    rows=rows,
    drawn=Drawn(temperature=1.0),
    published=published,
    quirks=("a reply that names no side is a toss of a coin with seed 123", "one order, as the file has it"),
    headline="accuracy",
    read=read,
    key="ID",
)
