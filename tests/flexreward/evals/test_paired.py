import math

import numpy as np
import pytest

from flexreward.evals.paired import differences
from flexreward.evals.table import Table, table_of


def pairs(right: list[bool | None]) -> Table:
    """A judge that is right, wrong or silent on each row."""
    lines = []
    for number, one in enumerate(right):
        scores = None if one is None else [7.0, 3.0] if one else [3.0, 7.0]
        lines.append(line(number, scores, [1.0, 0.0]))
    return table_of(lines)


def line(number: int, scores: list[float] | None, human: list[float]) -> dict:
    vote = {"scores": scores, "reason": None if scores else "no_answer", "reply": ""}
    return {
        **{"id": str(number), "human": human, "group": "", "systems": [], "words": [1] * len(human), "columns": {}},
        **{"scores": scores, "reason": vote["reason"], "tokens": {"prompt": 1, "completion": 1}},
        "orders": [{"order": list(range(len(human))), "votes": [vote]}],
    }


def ratings(scores: np.ndarray, human: np.ndarray) -> Table:
    return table_of(line(i, [s], [h]) for i, (s, h) in enumerate(zip(scores.tolist(), human.tolist(), strict=True)))


def test_the_interval_of_a_difference_of_means_is_that_of_its_rows():
    rng = np.random.default_rng(0)
    a, b = rng.random(600) < 0.6, rng.random(600) < 0.7
    found = differences(pairs(a.tolist()), pairs(b.tolist()), "pair")["accuracy"]
    d = b.astype(float) - a.astype(float)
    half = 1.96 * d.std() / math.sqrt(600)
    assert found.difference == pytest.approx(d.mean())
    assert (found.low, found.high) == pytest.approx((d.mean() - half, d.mean() + half), abs=0.008)
    assert (found.a, found.b, found.n) == (a.mean(), b.mean(), 600)
    assert found.p < 0.01


def test_pairing_sees_what_the_two_intervals_apart_would_not():
    rng = np.random.default_rng(1)
    a = rng.random(300) < 0.5
    b = a.copy()
    b[np.flatnonzero(~a)[:8]] = True  # the same judge, a little better
    found = differences(pairs(a.tolist()), pairs(b.tolist()), "pair")["accuracy"]
    assert found.difference == pytest.approx(8 / 300)
    assert found.low > 0
    assert found.p < 0.01


def test_a_judge_beside_itself_does_not_differ():
    found = differences(pairs([True, False] * 20), pairs([True, False] * 20), "pair")["accuracy"]
    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)


@pytest.mark.slow
def test_the_p_value_of_no_difference_is_spread_evenly():
    rng = np.random.default_rng(2)
    found = [
        differences(*(pairs((rng.random(120) < 0.6).tolist()) for _ in "ab"), "pair", seed=i)["accuracy"].p
        for i in range(30)
    ]
    assert np.mean(np.array(found) < 0.5) == pytest.approx(0.5, abs=0.25)
    assert np.mean(np.array(found) < 0.05) < 0.15


def test_swapping_the_two_turns_the_sign():
    rng = np.random.default_rng(3)
    a, b = pairs((rng.random(80) < 0.5).tolist()), pairs((rng.random(80) < 0.7).tolist())
    one, other = differences(a, b, "pair")["accuracy"], differences(b, a, "pair")["accuracy"]
    assert one.difference == pytest.approx(-other.difference)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=0.03)  # other cells, other draws


def test_rows_that_one_of_them_left_unscored_are_out_of_one_figure_and_wrong_in_the_other():
    a, b = pairs([True, True, None, False]), pairs([True, None, True, False])
    found = differences(a, b, "pair")
    assert (found["accuracy"].a, found["accuracy"].b, found["accuracy"].n) == (0.5, 0.5, 2)
    assert (found["accuracy_unscored_wrong"].a, found["accuracy_unscored_wrong"].b) == (0.5, 0.5)
    assert found["accuracy_unscored_wrong"].n == 4


def test_ratings_are_compared_by_correlation_and_error():
    rng = np.random.default_rng(4)
    human = rng.uniform(1, 5, 300)
    close, far = human + rng.normal(0, 0.5, 300), human + rng.normal(0, 2, 300)
    found = differences(ratings(far, human), ratings(close, human), "rating")
    assert list(found) == ["pearson", "spearman", "mse", "kendall", "rmse"]
    assert found["pearson"].a == pytest.approx(np.corrcoef(far, human)[0, 1])
    from scipy.stats import spearmanr

    assert found["spearman"].b == pytest.approx(spearmanr(close, human).statistic)
    assert found["mse"].b == pytest.approx(np.mean((close - human) ** 2))
    assert found["pearson"].low > 0
    assert found["mse"].high < 0
    assert all(one.p < 0.01 for one in found.values())


def test_a_constant_judge_has_no_correlation():
    human = np.arange(30, dtype=float)
    found = differences(ratings(np.full(30, 3.0), human), ratings(human, human), "rating")["pearson"]
    assert math.isnan(found.a)
    assert math.isnan(found.difference)
    assert found.b == pytest.approx(1)


def test_rankings_are_compared_by_concordance_and_nothing_in_common_by_nothing():
    human = [3.0, 2.0, 1.0, 0.0]
    a = table_of([line(0, [9, 7, 5, 3], human), line(1, [3, 5, 7, 9], human)])
    found = differences(a, a, "ranking")
    assert found["concordance"].a == 0.5
    nothing = differences(pairs([True, None]), pairs([None, True]), "pair")["accuracy"]
    assert nothing.n == 0
    assert math.isnan(nothing.difference)
