import numpy as np
import pytest

from flexreward.bench import BENCHES, measure, met, overlap
from flexreward.bench.figures import GOAL, bars, estimates, library_folds, made, plain, plain_folds


@pytest.mark.parametrize("distinct", [False, True])
def test_the_plain_loop_computes_the_same_five_figures(distinct):
    verdicts = made(2_000, distinct=distinct)
    by_hand = plain(*(column.tolist() for column in verdicts.columns()))
    assert [one.value for one in estimates(verdicts)] == pytest.approx(by_hand)


def test_all_three_draw_rows_from_the_same_distribution():
    verdicts = made(2_000)
    folds = {loop.__name__: np.array(loop(verdicts, 60)) for loop in (plain_folds, library_folds)}
    for place, one in enumerate(estimates(verdicts)):
        for found in folds.values():
            assert found[:, place].std() == pytest.approx((one.high - one.low) / (2 * 1.96), rel=0.35)
            assert one.low < found[:, place].mean() < one.high


def test_bars_are_ratios_of_paired_runs_with_the_seconds_beside_them():
    found = bars(3_000, rounds=2)
    assert found["bootstrap"].goal == GOAL
    assert found["bootstrap_s"].goal is None
    assert found["bootstrap"].value > 1
    assert found["bootstrap_s"].baseline > found["bootstrap_s"].value > 0
    assert all(bar.n == 3_000 and bar.interval.low <= bar.value <= bar.interval.high for bar in found.values())


@pytest.mark.alone
@pytest.mark.slow
def test_a_thousand_folds_over_100_000_verdicts_are_20_times_as_fast_as_a_loop():
    bar = bars(rounds=1)["bootstrap"]
    assert met("bootstrap", bar), f"{bar.value:.1f}"


def test_the_bench_of_eval_has_the_bars_of_all_its_parts(monkeypatch):
    assert BENCHES["eval"] == "flexreward.bench.eval:bars"
    one = next(iter(bars(1_000, rounds=1).values()))
    monkeypatch.setattr("flexreward.bench.figures.bars", lambda: {"bootstrap": one})
    monkeypatch.setattr(overlap, "bars", lambda: {"engine_idle": one})
    assert {"bootstrap", "engine_idle"} <= measure("eval").keys()
