"""What the list says of a row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flexreward.report.evals.rows import in_brief, read_facts, result_of
from flexreward.report.evals.verdict import people_said


@pytest.mark.parametrize(
    ("human", "scores", "result"),
    [
        ((1, 0), (8, 3), "right"),
        ((1, 0), (3, 8), "wrong"),
        ((1, 0), (5, 5), "tie"),
        ((1, 1), (5, 5), "right"),
        ((1, 1), (5, 4), "wrong"),
        ((0, 0), (1, 1), "wrong"),
        ((0, 0), (0, 0), "right"),
        ((1, 0), None, "unscored"),
        ((3, 1, 2, 0), (9, 1, 4, 2), "right"),
        ((3, 1, 2, 0), (1, 9, 4, 2), "wrong"),
        ((1, 0, 0, 1), (9, 1, 1, 2), "right"),
        ((1, 0, 0, 0), (9, 9, 1, 2), "tie"),
        ((3.7,), (4.0,), "right"),
        ((3.4,), (4.0,), "wrong"),
    ],
)
def test_a_row_is_right_when_the_judge_prefers_what_people_prefer(human: Any, scores: Any, result: str):
    assert result_of(human, scores) == result


@pytest.mark.parametrize(
    ("values", "brief", "words"),
    [
        ((1, 0), "A", "People prefer A."),
        ((1, 1), "tie", "People see a tie."),
        ((0, 0), "both bad", "People find both bad."),
        ((3, 1, 2, 0), "A > C > B > D", "People rank A > C > B > D."),
        ((0, 1, 0, 0), "B", "People prefer B."),
        ((3.75,), "3.75", "People gave 3.75."),
    ],
)
def test_an_opinion_is_told_in_a_word(values: Any, brief: str, words: str):
    assert in_brief(values) == brief
    assert people_said(values) == words


def test_facts_follow_the_file_and_a_sample_that_is_missing_leaves_no_prompt(folder: Path, change: Any):
    lines = [json.loads(line) for line in (folder / "outcomes.jsonl").read_text().splitlines()[1:]]
    facts = read_facts(folder / "outcomes.jsonl", folder / "samples.jsonl")
    assert [fact.id for fact in facts] == [line["id"] for line in lines]
    assert all(fact.said for fact in facts)
    unscored = [fact for fact, line in zip(facts, lines, strict=True) if line["scores"] is None]
    assert {fact.result for fact in unscored} == {"unscored"}
    assert {fact.reason for fact in unscored} == {"quorum"}
    (folder / "samples.jsonl").unlink()
    assert not any(fact.said for fact in read_facts(folder / "outcomes.jsonl", folder / "samples.jsonl"))


def test_orders_that_name_different_winners_are_a_disagreement(folder: Path, change: Any):
    def flipped(i: int, row: dict[str, Any]) -> None:
        if i:
            row["orders"][0]["scores"], row["orders"][1]["scores"] = [8, 3], [3, 8]

    change(folder / "outcomes.jsonl", flipped)
    assert {fact.orders for fact in read_facts(folder / "outcomes.jsonl", folder / "samples.jsonl")} == {"flipped"}
