"""The arms of the DPO proof: which pairs each trains on, and what a judge that follows the place does to them."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from flexreward.cli import run
from flexreward.files.outcomes import read_outcomes
from recipes.dpo import prompts
from recipes.dpo.arms import ARMS, agreement, differs, lines, right, write_arms
from recipes.dpo.biased import biased, one_order
from recipes.dpo.proof import difference
from recipes.tiny.domain import answer_in

NUMBER = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dpo")
    rows = prompts.rows(NUMBER, seed=5, held_out=False, answers="answer")
    prompts.write(folder / "prompts.jsonl", [{"id": f"q{i}", **row} for i, row in enumerate(rows)])
    options = ["--policy", "tiny", "--completions", "3", "--no-store", "--out", str(folder / "pairs")]
    assert run(["pairs", str(folder / "prompts.jsonl"), *options]) == 0
    return folder


def row(scores, id="q1#0-1"):
    orders = [{"order": [0, 1], "scores": list(scores)}, {"order": [1, 0], "scores": list(scores)}]
    return {"id": id, "orders": orders, "scores": list(scores)}


def test_each_arm_gets_as_many_pairs_as_the_one_that_it_is_held_against(folder):
    sizes = write_arms(folder, 0, NUMBER)
    found = {arm: list(lines(folder / f"{arm}-0.jsonl")) for arm in ARMS}
    assert [len(found[arm]) for arm in ("judged", "random", "truth")] == [sizes["judged"]] * 3
    assert [len(found[arm]) for arm in ("single", "consistent")] == [sizes["biased"]] * 2
    assert min(sizes.values()) > 0
    answers = {line["prompt"]: line["answer"] for line in lines(folder / "prompts.jsonl")}
    for pair in found["truth"]:
        answer = answers[pair["prompt"][-1]["content"]]
        assert answer_in(pair["chosen"][-1]["content"]) == answer != answer_in(pair["rejected"][-1]["content"])


def test_prompts_of_another_seed_are_left_to_it(folder):
    assert write_arms(folder, 1, NUMBER) == {"judged": 0, "biased": 0}
    assert not list(lines(folder / "judged-1.jsonl"))


def test_kept_pairs_agree_with_the_answers_mostly(folder):
    assert agreement(folder) > 0.8
    for pair in lines(folder / "pairs" / "train.jsonl"):
        assert differs(pair) == (right(pair, "chosen") != right(pair, "rejected"))


def test_a_turned_order_prefers_slot_1_and_both_turned_name_two_winners():
    found = biased(row((8.0, 2.0)), 1.0)
    assert [order["scores"] for order in found["orders"]] == [[8.0, 2.0], [2.0, 8.0]]
    assert found["scores"] == [5.0, 5.0]
    assert biased(row((8.0, 2.0)), 0.0) == row((8.0, 2.0))


def test_so_many_orders_are_turned_as_is_said():
    turned = sum(
        order["scores"][order["order"][0]] == 8.0
        for i in range(2000)
        for order in biased(row((2.0, 8.0), id=f"q{i}#0-1"), 0.7)["orders"]
        if order["order"] == [0, 1]
    )
    assert 0.66 < turned / 2000 < 0.74


def test_of_one_order_each_is_bought_as_often(tmp_path):
    path = tmp_path / "o.jsonl"
    rows = [{"flexreward": "0"}, *(row((8.0, 2.0), id=f"q{i}#0-1") for i in range(400))]
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    seen = Counter(tuple(one["orders"][0]["order"]) for one in one_order(path))
    assert {len(one["orders"]) for one in one_order(path)} == {1}
    assert min(seen.values()) > 150
    assert sum(1 for _ in read_outcomes(path)) == 400


def test_a_difference_that_is_there_has_an_interval_without_zero():
    ahead = difference([([1.0] * 60 + [0.0] * 40, [0.0] * 40 + [0.0] * 60)] * 3)
    assert ahead["mean"] == pytest.approx(60)
    assert ahead["low"] > 0
    assert difference([([0.0, 1.0], [0.0, 1.0])])["mean"] == 0
