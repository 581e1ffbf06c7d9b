"""The bench of expected scores compares the same replies, read in different ways."""

import sys

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from flexreward.bench import expected as bench
from flexreward.config import open_engine, resolve_judge
from flexreward.errors import RecipeError


def test_auroc_and_ties_are_those_of_the_textbook():
    rng = np.random.default_rng(0)
    scores_P2 = rng.integers(1, 11, (60, 2)).astype(float)
    truth = [1] * 60 + [0] * 60
    assert bench.auroc(scores_P2) == pytest.approx(roc_auc_score(truth, scores_P2.T.ravel()))
    assert bench.told_apart(np.array([[8.0, 2.0], [7.0, 7.0], [1.0, 9.0]])) == pytest.approx(2 / 3)
    assert bench.distinct(np.array([[8.0, 2.0], [2.0, 2.0]])) == pytest.approx(1 / 2)
    assert bench.distinct(np.array([[8.0, 2.0], [8.0, 2.0], [8.0, 3.0]])) == pytest.approx(8 / 12)


def test_bars_are_ratios_over_the_same_problems():
    rng = np.random.default_rng(1)
    right_P, wrong_P = rng.normal(7, 1, 200), rng.normal(5, 1, 200)
    exact_P2 = np.stack([right_P, wrong_P], axis=1)
    ways = [np.round(exact_P2), exact_P2, np.round(exact_P2 * 8) / 8, exact_P2]
    found = bench.Read(np.stack(ways, axis=2), 0.97, 250)
    bars = bench.bars_of(found)
    one = bars["told_apart_expected_over_one"]
    assert one.baseline == bench.told_apart(ways[0])
    assert one.value == pytest.approx(1 / one.baseline)
    assert one.interval.low <= one.value <= one.interval.high
    assert bars["auroc_expected_over_mean_of_8"].baseline == bench.auroc(ways[2])
    assert bars["auroc_expected_mean_of_8_over_mean_of_8"].value == bars["auroc_expected_over_mean_of_8"].value
    assert all(bar.interval.low <= bar.value <= bar.interval.high for bar in bars.values())
    assert (bars["answered"].value, bars["probability_known"].value) == (0.8, 0.97)


def test_without_the_recipes_it_says_where_to_run_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "recipes.tiny.measure", None)
    with pytest.raises(RecipeError, match=r"bench expected: .*; run it where recipes/tiny lies, in a checkout"):
        bench.problem_pairs(2)


@pytest.mark.slow
async def test_the_bundled_judge_is_read_in_all_four_ways_and_its_expected_scores_stay_near_what_it_writes():
    engine = open_engine(resolve_judge("tiny"))
    found = await bench.read(engine, bench.problem_pairs(6))
    await engine.close()
    assert found.num_asked == 6
    one, expected, mean, expected_mean = np.moveaxis(found.scores_P24, 2, 0)
    assert len(one) >= 5
    assert set(np.unique(one)) <= set(range(1, 11))
    assert found.known > 0.9
    assert np.abs(expected_mean - mean).mean() < 1
    assert not np.array_equal(expected, one)
