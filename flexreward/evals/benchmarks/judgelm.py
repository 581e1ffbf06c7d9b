"""JudgeLM's validation set: 5,000 pairs that GPT-4 scored; and the 80 questions of Vicuna, in the layout it grew from.

Source: baaivision/JudgeLM:judgelm/llm_judge/{common,eval_model_judgement}.py (Zhu et al. 2023, arXiv 2310.17631).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from flexreward.errors import SampleError
from flexreward.evals.base import Benchmark, Drawn, Figures, Row, Scores, Source
from flexreward.evals.rows import field, text_field
from flexreward.evals.source import Folder
from flexreward.evals.table import Table
from flexreward.evals.winners import TIE, in_slot_one, said, three_way, unread_as, winners
from flexreward.types import JudgeRequest

ASKED = "judgelm_val_5k.jsonl"
JUDGED = "judgelm_val_5k_gpt4.jsonl"


def rows(folder: Folder) -> Iterator[Row]:
    """The id is ``question_id``. The label is what the first line of GPT-4's text says, which must name two scores.

    A row whose text does not is left out, as the source leaves it out.
    """
    if not folder.find(ASKED) and folder.find("review_*.jsonl"):
        yield from _vicuna_rows(folder)
        return
    judged = {field(row, "question_id"): row for row in folder.rows(JUDGED)}
    for row in folder.rows(ASKED):
        key = field(row, "question_id")
        if key not in judged:
            raise SampleError(f"{row.where}: GPT-4 judged no question {key}; {JUDGED} is of another version, copy both")
        label = read(text_field(judged[key], "text"), 2)
        if label is not None:
            yield Row(
                request=JudgeRequest(
                    id=str(key),
                    prompt=text_field(row, "question_body"),
                    completions=(text_field(row, "answer1_body"), text_field(row, "answer2_body")),
                ),
                human=preference(label),
                systems=(str(row.fields.get("answer1_model_id", "")), str(row.fields.get("answer2_model_id", ""))),
                columns={"gpt4": list(label)},
            )


def _vicuna_rows(folder: Folder) -> Iterator[Row]:
    """One row a review, labelled by its ``score``; ids repeat over the files, so a row's is ``file/question_id``."""
    prompts = {field(row, "question_id"): row for row in folder.rows("question.jsonl")}
    answers = {field(row, "answer_id"): row for row in folder.rows("answer_*.jsonl")}
    for path in folder.files("review_*.jsonl"):
        for row in folder.rows(path.name):
            label = field(row, "score")
            try:
                question = prompts[field(row, "question_id")]
                pair = [answers[field(row, f"answer{i}_id")] for i in (1, 2)]
            except KeyError as error:
                raise SampleError(f"{row.where}: {error} is in no question or answer file; copy them too") from error
            yield Row(
                request=JudgeRequest(
                    id=f"{path.stem.removeprefix('review_')}/{field(row, 'question_id')}",
                    prompt=text_field(question, "text"),
                    completions=(text_field(pair[0], "text"), text_field(pair[1], "text")),
                ),
                human=preference(label),
                group=str(question.fields.get("category", "")),
                systems=(str(pair[0].fields.get("model_id", "")), str(pair[1].fields.get("model_id", ""))),
                columns={"gpt4": label},
            )


def preference(scores: Scores) -> Scores:
    """Two scores as a choice: without a margin, as the source compares them."""
    return (float(scores[0] >= scores[1]), float(scores[1] >= scores[0]))


def published(table: Table) -> Figures:
    """Accuracy over win, draw and lose in the given order; consistency and bias where both orders were shown.

    The source calls the accuracy agreement.

    Quirks: a reply that cannot be read has equal scores and so is a draw, right on the rows that GPT-4 drew; two such
    replies in the two orders are consistent. ``delta_bias`` is |towards slot 1 - towards slot 2|, ``total_bias`` their
    sum, in shares of all rows.
    """
    given_N = unread_as(TIE, winners(table.votes_NOKC[:, 0, 0]))
    figures = dict(three_way(said(table), given_N))
    if not len(table) or not (table.first_NO == 1).any(axis=1).all():
        return figures
    sign = np.array([1, -1, 0])  # by winner: the first, the second, and TIE, which is the last
    first_N = sign[unread_as(TIE, winners(in_slot_one(table, 0)))]
    second_N = sign[unread_as(TIE, winners(in_slot_one(table, 1)))]
    to_one, to_two = float((first_N > second_N).mean()), float((first_N < second_N).mean())
    return figures | {
        "consistency": float((first_N == second_N).mean()),
        "prefers_slot_1": to_one,
        "prefers_slot_2": to_two,
        "delta_bias": abs(to_one - to_two),
        "total_bias": to_one + to_two,
    }


def read(reply: str, count: int) -> Scores | None:
    """Two numbers on the first line, a space or a comma between them and nothing else: ``8 7``."""
    parts = reply.partition("\n")[0].replace(",", " ").split(" ")
    if len(parts) != 2:
        return None
    try:
        scores = (float(parts[0]), float(parts[1]))
    except ValueError:
        return None
    return scores if all(np.isfinite(scores)) and -1 not in scores else None


JUDGELM = Benchmark(
    name="judgelm",
    title="JudgeLM validation set",
    task="pair",
    template="pair-sp",
    source=Source(
        files=(ASKED, JUDGED, "question.jsonl", "answer_*.jsonl", "review_*.jsonl"),
        hub="BAAI/JudgeLM-100K",
        revision="16f7d72e24cad8b9a64e48d424d410bdd357168c",
        licence="CC BY-NC 4.0",
        remedy=f"copy {ASKED} and {JUDGED} of https://huggingface.co/datasets/BAAI/JudgeLM-100K there",
    ),
    rows=rows,
    drawn=Drawn(orders="both", temperature=0.6, top_p=0.95),
    published=published,
    quirks=(
        "the label is GPT-4's, not people's; rows whose label cannot be read are left out",
        "a reply that cannot be read counts as a draw",
    ),
    headline="accuracy",
    read=read,
    read_scale=(0.0, 10.0),
    key="question_id",
)
