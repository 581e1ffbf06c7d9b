"""PandaLM's test set: 999 pairs of instruction-tuned models' answers, three people's votes each.

Source: WeOpenML/PandaLM:data/compute_metrics.py (Wang et al. 2023, arXiv 2306.05087).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from flexreward.errors import SampleError
from flexreward.evals.base import Benchmark, Drawn, Figures, Row, Scores, Source
from flexreward.evals.rows import field, text_field
from flexreward.evals.source import Folder
from flexreward.evals.table import Table
from flexreward.evals.winners import TIE, said, three_way, unread_as, winners
from flexreward.templates import question
from flexreward.types import JudgeRequest

LABELS = {0: (1.0, 1.0), 1: (1.0, 0.0), 2: (0.0, 1.0)}
"""A vote: a tie, the first, the second."""


def rows(folder: Folder) -> Iterator[Row]:
    """The id is ``idx``; the label is the majority of three votes, which no row lacks; the group is the two models."""
    for row in folder.rows("testset-v1.json"):
        votes = [field(row, f"annotator{i}") for i in (1, 2, 3)]
        (vote, count), *_ = Counter(votes).most_common()
        if vote not in LABELS or count < 2:
            raise SampleError(f"{row.where}: votes {votes} have no majority among 0, 1 and 2; copy the file again")
        first, _, second = text_field(row, "cmp_key").partition("_")
        yield Row(
            request=JudgeRequest(
                id=str(field(row, "idx")),
                prompt=question("pandalm", instruction=text_field(row, "instruction"), input=text_field(row, "input")),
                completions=(text_field(row, "response1"), text_field(row, "response2")),
            ),
            human=LABELS[vote],
            systems=(first, second),
            columns={"votes": votes},
        )


def published(table: Table) -> Figures:
    """Accuracy and macro figures over three classes, by the first order shown and its first reply.

    Quirk: what cannot be read counts as a tie, so that a silent judge is right on the 105 ties.
    """
    return three_way(said(table), unread_as(TIE, winners(table.votes_NOKC[:, 0, 0])))


def read(reply: str, count: int) -> Scores | None:
    """The first line is ``1``, ``2`` or ``Tie``, as PandaLM-7B writes and as GPT-3.5 was asked to."""
    line = reply.strip().partition("\n")[0].strip()
    return {"1": LABELS[1], "2": LABELS[2], "0": LABELS[0], "tie": LABELS[0]}.get(line.lower())


PANDALM = Benchmark(
    name="pandalm",
    title="PandaLM test set",
    task="pair",
    template="pair-sp",
    source=Source(
        files=("testset-v1.json",),
        num_rows=999,
        licence="Apache-2.0",
        remedy="copy data/testset-v1.json of https://github.com/WeOpenML/PandaLM there",
    ),
    rows=rows,
    drawn=Drawn(temperature=0.6, top_p=0.95),
    published=published,
    quirks=("a reply that cannot be read counts as a tie",),
    headline="accuracy",
    read=read,
    key="idx",
)
