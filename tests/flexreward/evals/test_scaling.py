import math
from itertools import combinations

import numpy as np
import pytest

from flexreward.evals.confidence import COVERAGES, confidences, told_by_confidence
from flexreward.evals.scaling import MOST_CHOICES, over_length, over_votes
from flexreward.evals.table import Table, table_of
from flexreward.types import Scale

TEN = Scale(low=1, high=10)


def line(number: int, orders: list[list[list[float] | None]], human: list[float], *, length: int = 4) -> dict:
    """A row with one or two orders of votes; its outcome is the mean of all that can be read."""
    read = [vote for votes in orders for vote in votes if vote]
    scores = np.mean(read, axis=0).tolist() if read else None
    votes = [
        [{"scores": vote, "reason": None if vote else "no_answer", "reply": "x" * length} for vote in order]
        for order in orders
    ]
    count = len(human)
    return {
        **{"id": str(number), "human": human, "group": "", "systems": [], "words": [1] * count, "columns": {}},
        **{"scores": scores, "reason": None if read else "no_answer", "tokens": {"prompt": 1, "completion": 1}},
        "orders": [{"order": list(range(count))[:: -1 if i else 1], "votes": order} for i, order in enumerate(votes)],
    }


def noisy(num_rows: int, num_votes: int, *, noise: float = 3.0, orders: int = 1, seed: int = 0) -> Table:
    """A judge that says the truth with noise in every vote."""
    rng = np.random.default_rng(seed)
    lines = []
    for number in range(num_rows):
        truth = [7.0, 4.0] if rng.random() < 0.5 else [4.0, 7.0]
        votes = [[(truth + rng.normal(0, noise, 2)).tolist() for _ in range(num_votes)] for _ in range(orders)]
        lines.append(line(number, votes, [float(truth[0] > truth[1]), float(truth[1] > truth[0])]))
    return table_of(lines)


def test_more_votes_of_a_noisy_judge_are_more_often_right():
    curve = over_votes(noisy(400, 15), "pair", aggregate="mean")
    assert [one["votes"] for one in curve] == list(range(1, 16))
    values = [one["value"] for one in curve]
    # The mean of k votes differs by 3 with a deviation of 3 * sqrt(2 / k): right with odds Phi(sqrt(k / 2)).
    truth = [0.5 * (1 + math.erf(math.sqrt(k / 2) / math.sqrt(2))) for k in range(1, 16)]
    assert values == pytest.approx(truth, abs=0.04)
    assert all(one["scored"] == 1 for one in curve)


def test_few_choices_are_all_tried_and_of_many_some_are_drawn():
    curve = over_votes(noisy(30, 15), "pair", aggregate="mean")
    assert [(one["choices"], one["exact"]) for one in curve] == [
        (min(math.comb(15, k), MOST_CHOICES), math.comb(15, k) <= MOST_CHOICES) for k in range(1, 16)
    ]
    assert curve == over_votes(noisy(30, 15), "pair", aggregate="mean")
    assert curve != over_votes(noisy(30, 15), "pair", aggregate="mean", seed=1)
    assert curve[-1]["spread"] == 0


def test_the_exact_curve_is_the_mean_over_every_choice():
    table = noisy(50, 4)
    curve = over_votes(table, "pair", aggregate="mean")
    for count in (1, 2, 3):
        values = []
        for places in combinations(range(4), count):
            scores_NC = table.votes_NOKC[:, 0, list(places)].mean(axis=1)
            values.append(((scores_NC[:, 0] > scores_NC[:, 1]) == (table.human_NC[:, 0] == 1)).mean())
        assert curve[count - 1]["value"] == pytest.approx(np.mean(values))


def test_a_vote_that_cannot_be_read_costs_rows_their_quorum():
    table = table_of(line(i, [[[7, 3], None, None]], [1, 0]) for i in range(6))
    curve = over_votes(table, "pair", aggregate="mean")
    assert [one["scored"] for one in curve] == pytest.approx([1 / 3, 0, 0])
    assert math.isnan(curve[2]["value"])


def test_the_last_point_of_the_curve_is_the_outcome_itself():
    table = noisy(100, 5, orders=2)
    human = table.human_NC[:, 0] == 1
    assert over_votes(table, "pair", aggregate="mean")[-1]["value"] == pytest.approx(
        ((table.scores_NC[:, 0] > table.scores_NC[:, 1]) == human).mean()
    )


def test_bins_of_length_hold_as_many_rows_and_see_a_trend():
    table = table_of(line(i, [[[7, 3]]], [float(i >= 50), float(i < 50)], length=10 + i) for i in range(100))
    found = over_length(table, "pair")
    assert [one["n"] for one in found["bins"]] == [20] * 5
    assert [one["value"] for one in found["bins"]] == [0, 0, 0.5, 1, 1]
    assert found["bins"][0]["length"] == pytest.approx(19.5)
    assert found["spearman"] > 0.8


def test_replies_of_one_length_are_one_bin_and_too_few_rows_none():
    found = over_length(table_of(line(i, [[[7, 3]]], [1, 0]) for i in range(30)), "pair")
    assert [one["n"] for one in found["bins"]] == [30]
    assert over_length(table_of(line(i, [[[7, 3]]], [1, 0]) for i in range(19)), "pair") == {}


def test_confidence_by_margin_votes_and_orders():
    table = table_of(
        [
            line(0, [[[10, 1], [9, 2], [8, 3]], [[9, 2], [9, 2], [9, 2]]], [1, 0]),
            line(1, [[[7, 3], [3, 7], [7, 3]], [[3, 7], [3, 7], [3, 7]]], [1, 0]),
            line(2, [[None, None, [7, 3]], [[7, 3], [7, 3], [7, 3]]], [1, 0]),
        ]
    )
    found = confidences(table, "pair", TEN)
    assert found["margin"][0] == pytest.approx((9 - 2) / 9)
    np.testing.assert_allclose(found["votes"], [1, (2 / 3 + 1) / 2, 1])
    np.testing.assert_array_equal(found["orders"], [1, 0, math.nan])
    # Of the second row, which the orders together give to the other side: one of three replies, and all three.
    np.testing.assert_allclose(found["agreement"], [1, (1 / 3 + 1) / 2, 1])


def test_ratings_are_sure_where_their_votes_agree():
    table = table_of([line(0, [[[5], [5]]], [5]), line(1, [[[1], [10]]], [5])])
    found = confidences(table, "rating", TEN)
    assert set(found) == {"votes", "agreement"}
    np.testing.assert_allclose(found["votes"], [1, 0.5])
    np.testing.assert_allclose(found["agreement"], [1, 0])


def test_a_judge_that_is_sure_where_it_is_right_is_told_from_one_that_is_not():
    sure = table_of(line(i, [[[9, 1] if i % 2 else [5, 6]]], [1, 0]) for i in range(60))
    found = told_by_confidence(sure, "pair", TEN)["margin"]
    assert (found["auroc"], found["n"]) == (1, 60)
    assert [round(one["accuracy"], 6) for one in found["coverage"]] == [
        round(min(1, 0.5 / share), 6) for share in COVERAGES
    ]
    blind = table_of(line(i, [[[9, 1]]], [i % 2, 1 - i % 2]) for i in range(60))
    found = told_by_confidence(blind, "pair", TEN)["margin"]
    assert found["auroc"] == 0.5
    assert {one["accuracy"] for one in found["coverage"]} == {0.5}


def test_agreement_of_votes_tells_right_from_wrong():
    found = told_by_confidence(noisy(300, 5, orders=2), "pair", TEN)
    assert set(found) == {"margin", "votes", "orders", "agreement"}
    assert all(one["auroc"] > 0.6 for one in found.values())
    assert all(one["coverage"][0]["accuracy"] > one["coverage"][-1]["accuracy"] for one in found.values())


def test_a_judge_that_is_always_right_has_no_auroc():
    table = table_of(line(i, [[[9, 1]]], [1, 0]) for i in range(30))
    assert math.isnan(told_by_confidence(table, "pair", TEN)["margin"]["auroc"])


def test_too_few_rows_tell_nothing_of_confidence():
    assert told_by_confidence(table_of(line(i, [[[9, 1]]], [1, 0]) for i in range(19)), "pair", TEN) == {}
