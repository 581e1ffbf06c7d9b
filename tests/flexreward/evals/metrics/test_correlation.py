import csv
import math

import numpy as np
import pytest
from scipy import stats

from flexreward.evals.metrics import correlation
from flexreward.evals.metrics.bootstrap import estimate
from flexreward.evals.metrics.correlation import KENDALL, MSE, PEARSON, RMSE, SPEARMAN, grouped, system_means

X = np.array([1.0, 2, 3, 4, 4])
Y = np.array([2.0, 1, 4, 3, 4])


def test_figures_are_scipys():
    assert PEARSON.exact(X, Y) == pytest.approx(stats.pearsonr(X, Y).statistic)
    assert SPEARMAN.exact(X, Y) == pytest.approx(stats.spearmanr(X, Y).statistic)
    assert KENDALL.exact(X, Y) == pytest.approx(stats.kendalltau(X, Y).statistic)


def test_errors_by_hand():
    assert MSE.exact(X, Y) == pytest.approx((1 + 1 + 1 + 1 + 0) / 5)
    assert RMSE.exact(X, Y) == pytest.approx(math.sqrt(0.8))


def test_tau_b_by_hand():
    # Of ten pairs one is tied in x and one in y; of the eight others two are discordant.
    assert KENDALL.exact(X, Y) == pytest.approx((6 - 2) / math.sqrt(9 * 9))


@pytest.mark.parametrize("metric", [PEARSON, SPEARMAN, KENDALL], ids=["pearson", "spearman", "kendall"])
def test_a_judge_that_always_says_the_same_has_no_correlation(metric):
    assert math.isnan(metric.exact(np.full(5, 0.1), Y))
    assert np.isnan(metric.weighted(np.ones((3, 5)), np.full(5, 0.1), Y)).all()


@pytest.mark.parametrize("metric", [PEARSON, SPEARMAN, KENDALL], ids=["pearson", "spearman", "kendall"])
def test_a_draw_of_one_value_has_none_either(metric):
    weights = np.array([[5.0, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    found = metric.weighted(weights, X + 1e6, Y)
    assert math.isnan(found[0])
    assert found[1] == pytest.approx(metric.exact(X, Y))


@pytest.mark.parametrize("metric", [SPEARMAN, KENDALL], ids=["spearman", "kendall"])
def test_rank_correlations_see_the_order_alone(metric):
    assert metric.exact(np.exp(X), Y**3) == pytest.approx(metric.exact(X, Y))
    assert metric.exact(-X, Y) == pytest.approx(-metric.exact(X, Y))


def test_weights_are_summed_by_place():
    weights = np.array([[1.0, 2, 3], [4, 5, 6]])
    assert grouped(weights, np.array([2, 0, 2]), 4).tolist() == [[2, 0, 4, 0], [5, 0, 10, 0]]


def test_systems_are_judged_by_their_mean():
    names, judge, human = system_means(["b", "a", "b"], np.array([1.0, 5, 3]), np.array([2.0, 4, 2]))
    assert names == ("a", "b")
    assert (judge.tolist(), human.tolist()) == ([5, 2], [4, 2])


@pytest.fixture
def bvcc(shared_data):
    """Predictions for the 1,066 clips of BVCC's test set, as a challenge baseline ships them, and its 187 systems."""
    with (shared_data / "mos_lists" / "bvcc_test_example_results.csv").open() as file:
        rows = list(csv.DictReader(file))
    judge, human = (np.array([float(row[name]) for row in rows]) for name in ("answer", "avg_score"))
    return [row["system_id"] for row in rows], judge, human


def test_bvccs_published_figures_come_out(bvcc):
    systems, judge, human = bvcc
    figures = MSE, PEARSON, SPEARMAN, KENDALL
    assert [round(m.exact(judge, human), 3) for m in figures] == [0.271, 0.867, 0.870, 0.693]
    names, judge_S, human_S = system_means(systems, judge, human)
    assert len(names) == 187
    assert [round(m.exact(judge_S, human_S), 4) for m in figures[1:3]] == [0.9299, 0.9302]
    assert [round(m.exact(judge_S, human_S), 3) for m in (MSE, KENDALL)] == [0.123, 0.777]


def test_bvccs_interval_is_fishers(bvcc):
    _, judge, human = bvcc
    found = estimate(correlation.PEARSON, judge, human)
    half = 1.96 / math.sqrt(len(judge) - 3)
    assert (found.low, found.high) == pytest.approx(
        (math.tanh(math.atanh(found.value) - half), math.tanh(math.atanh(found.value) + half)), abs=0.006
    )
