"""MLLM-as-a-Judge: answers about images of 14 data sets, rated, compared and ranked by people.

Data: Dongping-Chen/MLLM-Judge (Chen et al. 2024, arXiv 2402.04788). Figures: jongwooko/flex-judge:test/evaluate.py and
test/mllm_as_a_judge_vllm.py, which every Flex-Judge figure comes from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from flexreward.errors import SampleError
from flexreward.evals.base import Benchmark, Drawn, Figures, Row, Source
from flexreward.evals.media_rows import Names, medium
from flexreward.evals.metrics.correlation import pearson
from flexreward.evals.metrics.ranking import edits
from flexreward.evals.rows import field, text_field
from flexreward.evals.source import Folder
from flexreward.evals.table import Floats, Table
from flexreward.evals.winners import TIE, UNREAD, said, winners
from flexreward.files.columns import shown
from flexreward.files.rows import Row as FileRow
from flexreward.types import JudgeRequest

NUM_RUNS = 3
PAIRS = {"A": (1.0, 0.0), "B": (0.0, 1.0), "C": (1.0, 1.0)}


def score_rows(folder: Folder) -> Iterator[Row]:
    """The id is ``score_id``, the group the data set that the image is from. Labels are 4 and ``"4"``."""
    names = Names()
    for row in folder.rows("Benchmark/score.jsonl", "score.jsonl", "score_lite.jsonl"):
        label = field(row, "human", "human_answer")
        if str(label) not in ("1", "2", "3", "4", "5"):
            raise SampleError(f"{row.where}: human is {shown(label)}, expected 1 to 5; copy the file again")
        answer = text_field(row, "answer")
        yield _row(folder, row, names(_id(row, "score_id")), ({**row.fields, "answer": answer},), (float(label),))


def pair_rows(folder: Folder) -> Iterator[Row]:
    """The id is ``pair_id``; the label is A, B, or C for a tie, under ``human`` or ``human_answer``."""
    names = Names()
    for row in folder.rows("Benchmark/pair.jsonl", "pair.jsonl", "pair_lite.jsonl"):
        label = field(row, "human", "human_answer")
        if label not in PAIRS:
            raise SampleError(f"{row.where}: human is {shown(label)}, expected A, B or C; copy the file again")
        answers = (field(row, "answer1"), field(row, "answer2"))
        yield _row(folder, row, names(_id(row, "pair_id")), answers, PAIRS[label])


def batch_rows(folder: Folder) -> Iterator[Row]:
    """The id is ``id``; the label is a ranking such as ``CDAB``, best first. What it leaves out is last together."""
    names = Names()
    for row in folder.rows("Benchmark/batch.jsonl", "batch.jsonl", "batch_lite.jsonl"):
        answers, label = field(row, "answers"), field(row, "human", "human_answer")
        letters = [chr(ord("A") + i) for i in range(len(answers))]
        if len(answers) < 2 or not isinstance(label, str) or not label or set(label) - set(letters):
            expected = f"expected a ranking of {''.join(letters) or 'two answers or more'}"
            raise SampleError(f"{row.where}: human is {shown(label)}, {expected}; copy the file again")
        places = [label.index(letter) if letter in label else len(letters) for letter in letters]
        human = tuple(float(len(letters) - place) for place in places)
        yield _row(folder, row, names(_id(row, "id")), answers, human, ranking=label)


def _row(folder: Folder, row: FileRow, name: str, answers: Any, human: tuple[float, ...], **columns: Any) -> Row:
    """Rows about one image are a cluster: they err together."""
    texts = [answer.get("answer") if isinstance(answer, Mapping) else None for answer in answers]
    if not all(isinstance(text, str) for text in texts):
        raise SampleError(f"{row.where}: an answer has no text under 'answer'; is this the publisher's file?")
    image = medium(folder, row, "image_path")
    return Row(
        request=JudgeRequest(
            id=name,
            prompt=text_field(row, "instruction"),
            completions=tuple(map(str, texts)),
            media=(image,),
        ),
        human=human,
        group=text_field(row, "original_dataset"),
        systems=tuple(str(answer.get("name", "")) for answer in answers),
        columns={"cluster": image.path.name if image.path else name, **columns},
    )


def _id(row: FileRow, name: str) -> object:
    return row.fields.get(name, row.number - 1)


def published_score(table: Table) -> Figures:
    """Pearson's correlation by data set, and the plain mean over data sets.

    Quirks: the lists of a data set grow over the three runs, so that run 2 is pooled with run 1 and run 3 with both;
    the median of the three is the figure. What cannot be read is a score of -1 inside of the correlation, and a
    correlation that does not exist (all scores equal) is 0. The source reads whole numbers only, from anywhere in the
    reply; here the template reads.
    """
    runs_NKC = _runs(table)
    scores_NK = np.where(np.isnan(runs_NKC), -1.0, runs_NKC)[:, :, 0]
    human_N = table.human_NC[:, 0]
    figures = {}
    for name, here_N in _data_sets(table):
        pooled = [
            pearson(scores_NK[here_N, : k + 1].T.ravel(), np.tile(human_N[here_N], k + 1))
            for k in range(runs_NKC.shape[1])
        ]
        figures[f"pearson/{name}"] = float(np.median(np.nan_to_num(pooled, nan=0.0)))
    return _over_data_sets(figures, "pearson")


def published_pair(table: Table) -> Figures:
    """Accuracy by data set with the ties of people and without them, and the plain means over data sets.

    Quirks: the three runs are summed (A is -1, B is 1, a tie 0) and the sign decides, so that A with two ties is A and
    A, B and a tie are a tie; what cannot be read is a tie. Values of data sets are rounded to three decimals before
    their mean is taken. Without ties, a tie of the judge is wrong; a data set where people tie everywhere, by which the
    source would divide by zero, is left out.
    """
    runs_NKC = _runs(table)
    votes_NK = np.stack([winners(runs_NKC[:, k]) for k in range(runs_NKC.shape[1])], axis=1)
    votes_NK = np.where(votes_NK == UNREAD, TIE, votes_NK)
    sign_N = np.sign(np.where(votes_NK == TIE, 0, 2 * votes_NK - 1).sum(axis=1))
    said_N = said(table)
    right_N = np.where(sign_N == 0, TIE, (sign_N + 1) // 2) == said_N
    figures = {}
    without = {}
    for name, here_N in _data_sets(table):
        figures[f"accuracy/{name}"] = round(float(right_N[here_N].mean()), 3)
        if (decided_N := here_N & (said_N != TIE)).any():
            without[f"accuracy_without_ties/{name}"] = round(float(right_N[decided_N].mean()), 3)
    return {**_over_data_sets(figures, "accuracy"), **_over_data_sets(without, "accuracy_without_ties")}


def published_batch(table: Table) -> Figures:
    """Edits from the judge's ranking to people's over the longer one's length, by data set; lower is better.

    Quirks: completions with equal scores are ranked the later one first; the distances of a data set pile up over the
    three runs, and the greatest of the three running means is the figure; what cannot be read is an empty ranking, a
    distance of 1. The source ranks as many completions as it finds scores; here a wrong number cannot be read.
    """
    runs_NKC = _runs(table)
    distance_NK = np.array(
        [
            [_distance(_ranking(scores), str(columns["ranking"])) for scores in runs_KC]
            for runs_KC, columns in zip(runs_NKC, table.columns, strict=True)
        ]
    ).reshape(runs_NKC.shape[:2])
    figures = {}
    for name, here_N in _data_sets(table):
        means = [float(distance_NK[here_N, : k + 1].mean()) for k in range(runs_NKC.shape[1])]
        figures[f"levenshtein/{name}"] = max(means)
    return _over_data_sets(figures, "levenshtein")


def _runs(table: Table) -> Floats:
    """(N, K, C) the votes of the first order shown: the three runs."""
    return table.votes_NOKC[:, 0, :NUM_RUNS]


def _data_sets(table: Table) -> Iterator[tuple[str, Any]]:
    groups_N = np.array(table.groups, dtype=object)
    for name in table.group_names:
        yield name, groups_N == name


def _over_data_sets(figures: dict[str, float], name: str) -> dict[str, float]:
    mean = float(np.mean(list(figures.values()))) if figures else float("nan")
    return {f"{name}_over_groups": mean, **figures}


def _ranking(scores_C: Floats) -> tuple[int, ...]:
    """Places, best first, the later of two equal ones first; empty where nothing was read."""
    known = [(score, place) for place, score in enumerate(scores_C.tolist()) if not np.isnan(score)]
    return tuple(place for _, place in sorted(known, reverse=True))


def _distance(judge: tuple[int, ...], human: str) -> float:
    """Edits over the length of the longer."""
    people = tuple(ord(letter) - ord("A") for letter in human)
    return edits(judge, people) / max(len(judge), len(people))


def _source(task: str) -> Source:
    return Source(
        files=(f"Benchmark/{task}.jsonl", "image/*"),
        hub="shuaishuaicdp/MLLM-Judge",
        revision="a9d489d62b86bfc325dc25cf62dd3c695690f241",
        licence="MIT",
        remedy="copy Benchmark/ and image/ of https://huggingface.co/datasets/shuaishuaicdp/MLLM-Judge there",
    )


SIZE = "every image is brought to 448 x 448 pixels, whatever its shape (here by --protocol published alone)"
DRAWN = Drawn(samples=NUM_RUNS, temperature=0.4, top_p=0.8, image_size=(448, 448))

MLLM_JUDGE_SCORE = Benchmark(
    name="mllm-judge-score",
    title="MLLM-as-a-Judge, scores",
    task="rating",
    template="image-score",
    source=_source("score"),
    rows=score_rows,
    drawn=DRAWN,
    published=published_score,
    quirks=(
        "runs are pooled with those before them, and the median of the three correlations is the figure",
        "a reply that cannot be read is a score of -1 inside of the correlation",
        "a correlation that does not exist is 0",
        SIZE,
    ),
    headline="pearson_over_groups",
    key="score_id",
)

MLLM_JUDGE_PAIR = Benchmark(
    name="mllm-judge-pair",
    title="MLLM-as-a-Judge, pairs",
    task="pair",
    template="image-pair",
    source=_source("pair"),
    rows=pair_rows,
    drawn=DRAWN,
    published=published_pair,
    quirks=(
        "three votes are summed with signs, a tie being 0: not a majority",
        "a reply that cannot be read is a tie",
        "values of data sets are rounded to three decimals before their mean",
        SIZE,
    ),
    headline="accuracy_over_groups",
    key="pair_id",
)

MLLM_JUDGE_BATCH = Benchmark(
    name="mllm-judge-batch",
    title="MLLM-as-a-Judge, batches",
    task="ranking",
    template="image-batch",
    source=_source("batch"),
    rows=batch_rows,
    drawn=DRAWN,
    published=published_batch,
    quirks=(
        "of completions with equal scores the later is ranked first",
        "running means pile up over the three runs, and the worst of them is the figure",
        "a reply that cannot be read is a distance of 1",
        SIZE,
    ),
    headline="levenshtein_over_groups",
    higher_is_better=False,
    key="id",
)
