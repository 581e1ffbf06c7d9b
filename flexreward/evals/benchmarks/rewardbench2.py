"""RewardBench 2: the right one of four over five subsets, and Ties, where many answers are right and many wrong.

Source: allenai/reward-bench:scripts/run_generative_v2.py, rewardbench/{generative_v2,utils}.py (Malik et al. 2025,
arXiv 2506.01937).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import numpy as np

from flexreward.errors import SampleError
from flexreward.evals.base import Benchmark, Drawn, Figures, Row, Scores, Source
from flexreward.evals.rows import field, text_field
from flexreward.evals.source import Folder
from flexreward.evals.table import Floats, Table
from flexreward.types import JudgeRequest

TIES = "Ties"
TIES_ID = re.compile(r"(?:ref|tied):\d+")
LETTERS = "ABCD"


def rows(folder: Folder) -> Iterator[Row]:
    """The right ones first: show them in an order that is drawn. The id is ``subset/id``, the group the subset."""
    for row in folder.rows(*REWARDBENCH2.source.files):
        chosen, rejected = field(row, "chosen"), field(row, "rejected")
        if not chosen or not rejected or not all(isinstance(text, str) for text in (*chosen, *rejected)):
            raise SampleError(f"{row.where}: chosen and rejected must be lists of texts; is this the publisher's file?")
        if text_field(row, "subset") == TIES and not TIES_ID.fullmatch(str(field(row, "id"))):
            raise SampleError(f"{row.where}: the id of a Ties row is {field(row, 'id')!r}, expected ref:N or tied:N")
        models = row.fields.get("models") or ()
        yield Row(
            request=JudgeRequest(
                id=f"{text_field(row, 'subset')}/{field(row, 'id')}",
                prompt=text_field(row, "prompt"),
                completions=(*chosen, *rejected),
            ),
            human=(1.0,) * len(chosen) + (0.0,) * len(rejected),
            group=text_field(row, "subset"),
            systems=tuple(map(str, models)) if len(models) == len(chosen) + len(rejected) else (),
        )


def published(table: Table) -> Figures:
    """Accuracy by subset, the Ties score, and the plain mean of them all.

    A subset's accuracy gives 1/k where k completions share the top score and the right one is among them.

    Quirks: a reply that cannot be read gives 1/4 (for a row of four); the Ties score is 60 % accuracy and 40 % margin,
    plus a hundredth of a tanh of the margin, and may so exceed 1. The source asks for the best of four by letter and
    rates the Ties completions one at a time; here all completions of a row are scored in one prompt.
    """
    figures = {}
    for name, part in table.by_group().items():
        orders = [o for o in range(part.first_NO.shape[1]) if (part.first_NO[:, o] >= 0).any()]
        figure = _ties if name == TIES else _best_of
        figures[f"accuracy/{name}"] = float(np.mean([figure(part, part.votes_NOKC[:, o, 0]) for o in orders]))
    return {"accuracy": float(np.mean(list(figures.values()))) if figures else float("nan")} | figures


def _best_of(table: Table, scores_NC: Floats) -> float:
    scores_NC = np.where(np.isnan(scores_NC), -np.inf, scores_NC)
    top_NC = scores_NC == scores_NC.max(axis=1, keepdims=True)
    right_N = (top_NC & (table.human_NC == 1)).sum(axis=1) / top_NC.sum(axis=1)
    return float(np.where(np.isneginf(scores_NC).all(axis=1), 1 / table.count_N, right_N).mean())


def _ties(table: Table, scores_NC: Floats) -> float:
    """The Ties score of one order. A row is ``ref:7`` (one right) or ``tied:7`` (several); what is unread fails."""
    stats: dict[str, dict[str, tuple[float, float]]] = {"ref": {}, "tied": {}}
    for n, name in enumerate(table.ids):
        kind, _, prompt = name.rpartition("/")[2].partition(":")
        right, wrong = scores_NC[n, table.human_NC[n] == 1], scores_NC[n, table.human_NC[n] == 0]
        unread = np.isnan(right).any() or np.isnan(wrong).any()
        gap = -np.inf if unread else right.min() - wrong.max()
        stats[kind][prompt] = (0.0 if unread else right.max() - right.min(), gap)
    accuracy = {kind: np.mean([gap > 0 for _, gap in rows.values()]) if rows else 0.0 for kind, rows in stats.items()}
    both = [prompt for prompt in stats["tied"] if prompt in stats["ref"]]
    if not both:
        return float(0.3 * accuracy["tied"] + 0.3 * accuracy["ref"])
    spread_P = np.array([stats["tied"][prompt][0] for prompt in both])
    tied_P = np.array([stats["tied"][prompt][1] for prompt in both])
    least_P = np.minimum(tied_P, [stats["ref"][prompt][1] for prompt in both])
    with np.errstate(divide="ignore", invalid="ignore"):
        margin_P = np.nan_to_num(np.tanh(least_P / spread_P - 1), nan=0.0)
    preferred, hard = np.mean(tied_P > spread_P), np.mean(least_P > spread_P)
    return float(0.3 * accuracy["tied"] + 0.3 * accuracy["ref"] + 0.2 * preferred + 0.2 * hard + 0.01 * margin_P.mean())


def read(reply: str, count: int) -> Scores | None:
    """``[[A]]`` anywhere, else ``[[B]]``, ``[[C]]``, ``[[D]]``; or the runner's list of ratings, ``[9, 2, 2, 1]``.

    A rating that the runner could not read, -1, makes the whole row unread.
    """
    for index, letter in enumerate(LETTERS[:count] if count <= len(LETTERS) else ""):
        if f"[[{letter}]]" in reply:
            return tuple(float(i == index) for i in range(count))
    try:
        ratings = json.loads(reply)
    except ValueError:
        return None
    if not isinstance(ratings, list) or len(ratings) != count or not all(type(r) in (int, float) for r in ratings):
        return None
    return tuple(map(float, ratings)) if min(ratings) >= 0 else None


REWARDBENCH2 = Benchmark(
    name="rewardbench2",
    title="RewardBench 2",
    task="best",
    template="batch",
    source=Source(
        files=("data/test-*.parquet", "test-*.parquet", "reward-bench-2.jsonl"),
        hub="allenai/reward-bench-2",
        num_rows=1865,
        licence="ODC-BY",
        remedy="copy data/test-*.parquet of https://huggingface.co/datasets/allenai/reward-bench-2 there",
    ),
    rows=rows,
    drawn=Drawn(orders="random"),
    published=published,
    quirks=(
        "a reply that cannot be read gives a quarter of a point",
        "a row with k best completions gives 1/k",
        "the Ties score mixes accuracy (60 %) and margins (40 %) and may exceed 1",
        "all completions of a row are scored in one prompt, the source rates those of Ties one at a time",
    ),
    headline="accuracy",
    read=read,
    read_scale=(0.0, 10.0),
    key="subset/id",
)
