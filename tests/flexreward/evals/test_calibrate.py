import numpy as np
import pytest

from flexreward.errors import RecipeError
from flexreward.evals.calibrate import (
    FITS,
    NUM_BINS,
    apply,
    calibrate,
    points_of,
    reliability,
    required,
    unseen,
)
from flexreward.evals.table import Table, table_of
from flexreward.types import Scale

TEN = Scale(low=1, high=10)
HEADER = {"judge": {"model": "m"}, "template": {"id": "pair", "digest": "d", "scale": [1, 10]}}


def line(number: int, scores: list[float] | None, human: list[float]) -> dict:
    vote = {"scores": scores, "reason": None if scores else "no_answer", "reply": "", "finish_reason": "stop"}
    order = {"order": list(range(len(human))), "scores": scores, "reason": vote["reason"], "votes": [vote]}
    return {
        **{"id": str(number), "human": human, "group": "", "systems": [], "words": [1] * len(human), "columns": {}},
        **{"scores": scores, "reason": vote["reason"], "orders": [order], "tokens": {"prompt": 1, "completion": 1}},
    }


def simulated(num: int, *, seed: int = 0, sharp: float = 0.4) -> Table:
    """Pairs whose true odds are logistic in the margin with slope ``sharp``, ties now and then."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(1, 11, size=(num, 2)).astype(float)
    odds = 1 / (1 + np.exp(-sharp * (scores[:, 0] - scores[:, 1])))
    first = rng.random(num) < odds
    tie = rng.random(num) < 0.05
    human = [[1.0, 1.0] if t else [1.0, 0.0] if f else [0.0, 1.0] for f, t in zip(first, tie, strict=True)]
    return table_of(line(i, list(pair), h) for i, (pair, h) in enumerate(zip(scores.tolist(), human, strict=True)))


def test_a_pair_is_a_margin_and_whom_people_prefer():
    table = table_of([line(0, [7, 3], [1, 0]), line(1, [2, 4], [1, 0]), line(2, [5, 5], [0, 0]), line(3, None, [1, 0])])
    points = points_of(table, "pair", TEN)
    assert points.x_M.tolist() == [4, -2, 0]
    assert points.y_M.tolist() == [1, 1, 0.5]
    assert points.row_M.tolist() == [0, 1, 2]
    assert points.plain_M == pytest.approx([0.5 + 4 / 18, 0.5 - 2 / 18, 0.5])


def test_every_two_completions_of_a_ranking_are_a_point():
    points = points_of(table_of([line(0, [9, 5, 1], [2, 0, 1]), line(1, [3, 4], [0, 1])]), "ranking", TEN)
    assert points.row_M.tolist() == [0, 0, 0, 1]
    assert sorted(zip(points.x_M.tolist(), points.y_M.tolist(), strict=True)) == [(-1, 0), (4, 0), (4, 1), (8, 1)]


def test_a_rating_is_a_fraction_of_the_scale_that_people_used():
    five = Scale(low=1, high=5)
    points = points_of(table_of([line(0, [2], [4.0]), line(1, [5], [1.0])]), "rating", five)
    assert (points.x_M.tolist(), points.y_M.tolist()) == ([2, 5], [0.75, 0])
    wide = points_of(table_of([line(0, [2], [50.0]), line(1, [5], [100.0])]), "rating", five)
    assert wide.y_M.tolist() == [0, 1]


def test_a_judge_that_says_what_is_has_no_error():
    p = np.repeat([0.6, 0.75, 1.0], 20)
    y = np.concatenate([np.arange(20) < 12, np.arange(20) < 15, np.ones(20)]).astype(float)
    found = reliability(p, y, over="margin")
    assert found["ece"] == pytest.approx(0, abs=1e-12)
    assert [round(one["confidence"], 9) for one in found["curve"]] == [0.6, 0.75, 1.0]
    assert sum(one["n"] for one in found["curve"]) == 60


def test_the_error_is_the_mean_distance_by_bin():
    found = reliability(np.array([0.9, 0.9, 0.9, 0.9]), np.array([1.0, 0, 0, 1]), over="score")
    assert found["ece"] == pytest.approx(0.4)
    assert found["brier"] == pytest.approx((0.01 * 2 + 0.81 * 2) / 4)


def test_which_completion_comes_first_does_not_matter():
    rng = np.random.default_rng(0)
    p, y = rng.random(500), rng.integers(0, 3, 500) / 2
    p[:50] = 0.5
    one, other = (reliability(*points, over="margin") for points in ((p, y), (1 - p, 1 - y)))
    assert [one["ece"], one["brier"]] == pytest.approx([other["ece"], other["brier"]])
    assert one["ece"] > 0.1


@pytest.mark.parametrize("kind", FITS)
def test_a_fitted_curve_finds_the_odds_that_are_there(kind):
    points = points_of(simulated(4_000), "pair", TEN)
    curve = FITS[kind](points)
    margins = np.arange(-9, 10).astype(float)
    truth = 0.05 * 0.5 + 0.95 / (1 + np.exp(-0.4 * margins))
    assert np.abs(apply(curve, margins) - truth).max() < (0.03 if kind == "platt" else 0.1)
    assert apply(curve, margins) + apply(curve, -margins) == pytest.approx(np.ones(19))


@pytest.mark.parametrize("kind", FITS)
def test_ratings_are_mended_too(kind):
    rng = np.random.default_rng(1)
    human = rng.uniform(1, 5, 600)
    said = np.clip(np.round(human / 2 + 2.4 + rng.normal(0, 0.2, 600), 1), 1, 5)  # too kind, and in the middle
    table = table_of(line(i, [s], [h]) for i, (s, h) in enumerate(zip(said.tolist(), human.tolist(), strict=True)))
    points = points_of(table, "rating", Scale(low=1, high=5))
    before = reliability(points.plain_M, points.y_M, over="score")
    after = reliability(unseen(points, FITS[kind]), points.y_M, over="score")
    assert after["ece"] < before["ece"] / 3
    assert after["brier"] < before["brier"]


def test_the_gain_is_measured_on_rows_that_were_not_fitted():
    noise = simulated(200, sharp=0.0)
    points = points_of(noise, "pair", TEN)
    held, seen = unseen(points, FITS["isotonic"]), apply(FITS["isotonic"](points), points.x_M)
    fitted, unfitted = (float(np.mean((p - points.y_M) ** 2)) for p in (seen, held))
    odds = float(np.mean((0.5 - points.y_M) ** 2))
    assert fitted < odds < unfitted  # noise can be learnt by heart, but not foretold


def test_calibrating_names_what_it_was_fitted_on_and_what_it_gained():
    found = calibrate(simulated(1_000), "pair", HEADER, benchmark="pandalm")
    assert found.fields["after"]["ece"] < found.fields["before"]["ece"]
    assert set(found.fields["tried"]) == {"isotonic", "platt"}
    curve = required(found)
    assert (curve.benchmark, curve.n, curve.template["id"], curve.over) == ("pandalm", 1_000, "pair", "margin")
    assert curve.measured["after"]["brier"] == found.fields["after"]["brier"]
    assert found.fields["kind"] == curve.kind
    assert all(one["n"] for one in found.fields["after"]["curve"])
    assert len(found.fields["before"]["curve"]) <= NUM_BINS


@pytest.mark.parametrize("kind", FITS)
def test_a_judge_that_is_always_wrong_is_worth_no_more_than_even_odds(kind):
    table = table_of(line(i, [9, 1] if i % 2 else [1, 9], [0, 1] if i % 2 else [1, 0]) for i in range(40))
    curve = FITS[kind](points_of(table, "pair", TEN))
    assert curve.rewards([9, 1]) == pytest.approx((0.5, 0.5))


@pytest.mark.parametrize("kind", FITS)
def test_a_judge_that_is_always_right_is_believed(kind):
    table = table_of(line(i, [9, 1] if i % 2 else [1, 9], [1, 0] if i % 2 else [0, 1]) for i in range(40))
    assert FITS[kind](points_of(table, "pair", TEN)).rewards([9, 1])[0] > 0.95


def test_too_few_rows_are_measured_and_not_fitted():
    found = calibrate(simulated(12), "pair", HEADER, benchmark="pandalm")
    assert found.fields["before"]["curve"]
    assert "after" not in found.fields
    with pytest.raises(RecipeError, match="--calibrate: 12 scored rows are too few"):
        required(found)


def test_nothing_scored_is_said():
    found = calibrate(table_of([line(0, None, [1, 0])]), "pair", HEADER, benchmark="pandalm")
    assert found.fields["why_not"] == "no row is scored"
