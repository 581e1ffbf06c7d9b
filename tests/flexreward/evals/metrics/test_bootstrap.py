import math
import tracemalloc

import numpy as np
import pytest

from flexreward.evals.metrics import agreement, bootstrap, correlation
from flexreward.evals.metrics.bootstrap import Metric, cells, draws, estimate, mean_of, paired, sampled

LABELS = (-1, 0, 1)


def choices(rng: np.random.Generator, num: int) -> tuple[np.ndarray, ...]:
    said = rng.integers(-1, 2, num)
    return said, np.where(rng.random(num) < 0.5, said, rng.integers(-1, 2, num))


def rated(rng: np.random.Generator, num: int) -> tuple[np.ndarray, ...]:
    human = rng.integers(1, 6, num).astype(float)
    return np.clip(human + rng.integers(-2, 3, num), 1, 5), human


def measured(rng: np.random.Generator, num: int) -> tuple[np.ndarray, ...]:
    human = rng.normal(size=num)
    return human + rng.normal(size=num), human


def several(rng: np.random.Generator, num: int) -> tuple[np.ndarray, ...]:
    scores = rng.integers(1, 6, (num, 3)).astype(float)
    scores[:, 2] = np.where(rng.random(num) < 0.3, np.nan, scores[:, 2])  # rows of two and of three
    return scores, np.arange(3) == rng.integers(0, 2, (num, 1))


def gaps(rng: np.random.Generator, num: int) -> tuple[np.ndarray, ...]:
    human = rng.integers(-1, 2, (num, 1)).astype(float)
    return human * 2 + rng.integers(-3, 4, (num, 1)), human


METRICS = {
    "accuracy": (agreement.ACCURACY, choices),
    "precision": (agreement.macro_precision(LABELS), choices),
    "recall": (agreement.macro_recall(LABELS), choices),
    "f1": (agreement.macro_f1(LABELS), choices),
    "kappa": (agreement.KAPPA, choices),
    "base rate": (agreement.BASE_RATE, lambda rng, num: choices(rng, num)[:1]),
    "auroc": (agreement.AUROC, several),
    "tie-calibrated accuracy": (agreement.TIE_CALIBRATED_ACCURACY, gaps),
    "tie-calibrated epsilon": (agreement.TIE_CALIBRATED_EPSILON, gaps),
    "mean": (correlation.MEAN, lambda rng, num: rated(rng, num)[:1]),
    "ratio": (correlation.RATIO, rated),
    "mse": (correlation.MSE, rated),
    "rmse": (correlation.RMSE, measured),
    **{f"{name} of few values": (metric, rated) for name, metric in [
        ("pearson", correlation.PEARSON), ("spearman", correlation.SPEARMAN), ("kendall", correlation.KENDALL),
    ]},
    **{f"{name} of values all different": (metric, measured) for name, metric in [
        ("pearson", correlation.PEARSON), ("spearman", correlation.SPEARMAN), ("kendall", correlation.KENDALL),
    ]},
}  # fmt: skip
EACH = pytest.mark.parametrize(("metric", "made"), METRICS.values(), ids=METRICS)


@EACH
def test_a_row_of_weight_k_is_a_row_that_stands_there_k_times(metric: Metric, made):
    rng = np.random.default_rng(0)
    columns = made(rng, 60)
    weights = np.concatenate([np.ones((1, 60)), rng.integers(0, 4, (5, 60))]).astype(float)
    found = metric.weighted(weights, *columns)
    repeated = [[np.repeat(column, w.astype(int), axis=0) for column in columns] for w in weights]
    assert found == pytest.approx([metric.exact(*rows) for rows in repeated], abs=1e-12)


@EACH
def test_the_order_of_the_rows_moves_no_figure(metric: Metric, made):
    rng = np.random.default_rng(1)
    columns = made(rng, 60)
    mixed = rng.permutation(60)
    assert metric.exact(*(column[mixed] for column in columns)) == pytest.approx(metric.exact(*columns))


@EACH
def test_the_same_rows_and_seed_give_the_same_interval_and_it_holds_the_value(metric: Metric, made):
    columns = made(np.random.default_rng(2), 300)
    found = estimate(metric, *columns, seed=3)
    assert found == estimate(metric, *columns, seed=3)
    assert found.low <= found.value <= found.high
    assert found.n == 300


def test_the_interval_of_a_share_is_the_binomial_one():
    said, chosen = np.zeros(1000, dtype=int), (np.arange(1000) >= 700).astype(int)
    found = estimate(agreement.ACCURACY, said, chosen)
    half = 1.96 * math.sqrt(0.7 * 0.3 / 1000)
    assert found.value == 0.7
    assert (found.low, found.high) == pytest.approx((0.7 - half, 0.7 + half), abs=0.004)


def test_the_interval_of_a_correlation_is_fishers():
    x, y = measured(np.random.default_rng(0), 4000)
    found = estimate(correlation.PEARSON, x, y)
    half = 1.96 / math.sqrt(4000 - 3)
    low, high = math.tanh(math.atanh(found.value) - half), math.tanh(math.atanh(found.value) + half)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.004)


def test_intervals_hold_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(0)
    truth, held = 1 / math.sqrt(2), 0
    for seed in range(200):
        found = estimate(correlation.PEARSON, *measured(rng, 150), seed=seed)
        held += found.low <= truth <= found.high
    assert 0.90 <= held / 200 <= 0.985


def test_cells_put_rows_together_that_are_alike_in_every_column():
    cell, first = cells([np.array([1, 2, 1, 1]), np.array([[0.5, math.nan]] * 3 + [[0.5, 1.0]])])
    assert cell[0] == cell[2]
    assert len({*cell.tolist()}) == len(first) == 3


def test_drawing_cells_is_drawing_rows():
    x, y = rated(np.random.default_rng(0), 2000)
    by_cell = draws(correlation.PEARSON.weighted, (x, y))
    row_by_row = draws(correlation.PEARSON.weighted, (x, y), clusters=np.arange(2000))
    assert by_cell.mean() == pytest.approx(row_by_row.mean(), abs=0.002)
    assert by_cell.std() == pytest.approx(row_by_row.std(), rel=0.1)


def test_rows_of_one_prompt_say_less_than_as_many_rows_of_prompts_of_their_own():
    once = np.random.default_rng(0).random(200)
    nine = np.repeat(once, 9)
    apart, together = (
        estimate(correlation.MEAN, nine, clusters=clusters) for clusters in (None, np.repeat(np.arange(200), 9))
    )
    assert apart.value == pytest.approx(together.value)
    assert (together.high - together.low) / (apart.high - apart.low) == pytest.approx(3, rel=0.1)


def test_memory_is_that_of_a_chunk(monkeypatch):
    monkeypatch.setattr(bootstrap, "MOST_WEIGHTS", 100_000)
    values = np.random.default_rng(0).random(20_000)
    tracemalloc.start()
    try:
        estimate(correlation.MEAN, values)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000  # bytes; all weights at once would be 160 MB


def test_a_figure_that_most_draws_do_not_define_has_no_interval():
    found = estimate(correlation.PEARSON, np.array([1.0, 1, 1, 2]), np.array([1.0, 1, 1, 1]))
    assert all(math.isnan(number) for number in (found.value, found.low, found.high))
    nothing = estimate(correlation.MSE, np.zeros(0), np.zeros(0))
    assert math.isnan(nothing.value)
    assert nothing.n == 0


def test_the_mean_of_parts_leaves_out_a_part_without_the_figure():
    rng = np.random.default_rng(0)
    parts = [sampled(correlation.PEARSON, *measured(rng, 200), seed=[0, i]) for i in range(4)]
    constant = sampled(correlation.PEARSON, np.ones(50), np.arange(50.0), seed=[0, 4])
    found = mean_of([*parts, constant])
    assert found.value == pytest.approx(np.mean([part.value for part in parts]))
    assert found.n == 800
    width = found.estimate.high - found.estimate.low
    assert width == pytest.approx((parts[0].estimate.high - parts[0].estimate.low) / 2, rel=0.25)


def test_a_judge_does_not_differ_from_itself():
    said, chosen = choices(np.random.default_rng(0), 500)
    found = paired(agreement.macro_f1(LABELS), (said, chosen), (said, chosen))
    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_exchanging_two_judges_turns_the_sign_and_nothing_else():
    rng = np.random.default_rng(0)
    one, human = rated(rng, 300)
    other = np.clip(human + rng.integers(-1, 2, 300), 1, 5)
    there = paired(correlation.SPEARMAN, (one, human), (other, human))
    back = paired(correlation.SPEARMAN, (other, human), (one, human), seed=1)
    assert (there.difference, there.n) == (pytest.approx(-back.difference), 300)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=0.02)
    assert there.difference > 0.1
    assert there.p == back.p == pytest.approx(2 / 1001)


def test_judges_that_are_alike_seldom_seem_to_differ():
    rng = np.random.default_rng(0)
    ps = [paired(correlation.MEAN, (rng.random(100) < 0.7,), (rng.random(100) < 0.7,), seed=i).p for i in range(300)]
    assert 0.02 <= np.mean(np.array(ps) < 0.05) <= 0.09
    assert np.mean(ps) == pytest.approx(0.5, abs=0.08)
