"""VL-RewardBench: which of two answers about an image is better, in three groups of tasks.

Source: vl-rewardbench/VL_RewardBench:cal.py (Li et al. 2024, arXiv 2411.17451); jongwooko/flex-judge:
test/vl_rewardbench_vllm.py for how Flex-Judge was drawn and what its ties are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from flexreward.errors import SampleError
from flexreward.evals.base import Benchmark, Drawn, Figures, Row, Scores, Source
from flexreward.evals.media_rows import Names, medium
from flexreward.evals.recount import choices
from flexreward.evals.rows import field, text_field
from flexreward.evals.source import Folder
from flexreward.evals.table import Bools, Table
from flexreward.evals.winners import UNREAD, said
from flexreward.files.columns import shown
from flexreward.types import JudgeRequest

GROUPS = {
    "mathverse": "reasoning",
    "mmmu": "reasoning",
    "hallucination": "hallucination",
    "rlaif": "hallucination",
    "rlhf": "hallucination",
}
"""By the beginning of an id in small letters; all others are ``general``."""

FILES = ("data/test-*.parquet", "test-*.parquet", "data.json")

LABELS = {(0, 1): (1.0, 0.0), (1, 0): (0.0, 1.0)}
"""``human_ranking``: the place of each answer, 0 being the better."""

JUDGMENT = re.compile(
    r"(?:overall judgment|therefore)\s*.*\s*-*\s*answer\s*(\d+)\s*is\s*(?:the\s*)?(?:slightly\s*)?better", re.IGNORECASE
)


def rows(folder: Folder) -> Iterator[Row]:
    """The id is the publisher's, 25 of which stand twice (the second is ``id#2``).

    The first answer is the better one in 1,245 of 1,250 rows: show them in an order that is drawn, or in both.
    """
    names = Names()
    for row in folder.rows(*FILES):
        answers, ranking = field(row, "response"), field(row, "human_ranking")
        if tuple(ranking) not in LABELS:
            raise SampleError(f"{row.where}: human_ranking is {shown(ranking)}, expected [0, 1] or [1, 0]")
        if len(answers) != 2 or not all(isinstance(answer, str) for answer in answers):
            raise SampleError(f"{row.where}: response must hold two texts; is this the publisher's file?")
        name = text_field(row, "id")
        models = row.fields.get("models") or ()
        yield Row(
            request=JudgeRequest(
                id=names(name),
                prompt=text_field(row, "query"),
                completions=tuple(answers),
                media=(medium(folder, row, "image", "image_path"),),
            ),
            human=LABELS[tuple(ranking)],
            group=next((group for start, group in GROUPS.items() if name.lower().startswith(start)), "general"),
            systems=tuple(map(str, models)) if len(models) == 2 else (),
        )


def published(table: Table) -> Figures:
    """Accuracy of the whole, by group, and the plain mean over the groups ("macro").

    ``accuracy`` follows the publisher: a row is right when more than half of its replies agree with people, wrong when
    more than half disagree, and else it leaves the denominator. ``accuracy_unscored_wrong`` follows Flex-Judge and most
    toolkits: each reply is right or it is not, and the mean over replies is taken.

    Quirks: rows that cannot be read leave ``accuracy``, so that a judge gains by silence where it is unsure; equal
    scores, which the publisher's prompt does not allow, disagree.
    """
    parts = {"": table, **table.by_group()}
    figures: dict[str, float] = {}
    for figure, of in (("accuracy", _by_majority), ("accuracy_unscored_wrong", _by_reply)):
        values = {name: of(part) for name, part in parts.items()}
        figures[figure] = values.pop("")
        groups = [value for value in values.values() if not np.isnan(value)]
        figures[figure.replace("accuracy", "accuracy_over_groups")] = float(np.mean(groups)) if groups else float("nan")
        figures |= {f"{figure}/{name}": value for name, value in values.items()}
    return figures


def _by_majority(table: Table) -> float:
    right_NK, asked_NK, read_NK = _replies(table)
    half_N = asked_NK.sum(axis=1) / 2
    agree = (right_NK.sum(axis=1) > half_N).sum()
    reject = ((read_NK & ~right_NK).sum(axis=1) > half_N).sum()
    return float(agree / (agree + reject)) if agree + reject else float("nan")


def _by_reply(table: Table) -> float:
    right_NK, asked_NK, _ = _replies(table)
    return float(right_NK[asked_NK].mean()) if asked_NK.any() else float("nan")


def _replies(table: Table) -> tuple[Bools, Bools, Bools]:
    """(N, K) which replies are right, were asked for, and can be read, all orders side by side."""
    choice_NOK = choices(table.votes_NOKC)
    asked_NOK = np.broadcast_to((table.first_NO >= 0)[..., None], choice_NOK.shape)
    right_NOK = asked_NOK & (choice_NOK == said(table)[:, None, None])
    read_NOK = asked_NOK & (choice_NOK != UNREAD)
    num_n, num_o, num_k = choice_NOK.shape
    right_NK, asked_NK, read_NK = (values.reshape(num_n, num_o * num_k) for values in (right_NOK, asked_NOK, read_NOK))
    return right_NK, asked_NK, read_NK


def read(reply: str, count: int) -> Scores | None:
    """``Overall Judgment ... Answer 1 is slightly better``, or the same after ``Therefore``; the first that fits."""
    found = JUDGMENT.search(reply.replace("\n", "").replace("*", ""))
    return {"1": (1.0, 0.0), "2": (0.0, 1.0)}.get(found[1]) if found else None


VL_REWARDBENCH = Benchmark(
    name="vl-rewardbench",
    title="VL-RewardBench",
    task="pair",
    template="pair-vlrb",
    source=Source(
        files=(*FILES, "images/*"),
        hub="MMInstruction/VL-RewardBench",
        num_rows=1250,
        licence="MIT",
        remedy="copy data/test-*.parquet of https://huggingface.co/datasets/MMInstruction/VL-RewardBench there",
    ),
    rows=rows,
    drawn=Drawn(samples=5, orders="random", temperature=0.6, top_p=0.95),
    published=published,
    quirks=(
        "a row leaves the denominator unless more than half of its replies agree, or more than half disagree",
        "of the rows labelled [0, 1] and [1, 0] there are 1,245 and 5: a single order as given measures position alone",
    ),
    headline="accuracy",
    read=read,
    key="id, and id#2 for the second row of an id",
)
