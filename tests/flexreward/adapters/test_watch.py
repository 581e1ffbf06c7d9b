import math

import pytest

from flexreward.adapters.watch import BlindError, Figures, Patience, Scored, correlation
from flexreward.serving.contract import Rewarded
from flexreward.types import Reason

DEAD = Rewarded(reward=None, reason=Reason.ENGINE, detail="http://h: cannot be reached")


def scored(reward, *, group="g", length=10, score=None, **fields):
    return Scored(group, length, Rewarded(reward=reward, score=score, **fields))


def test_figures_have_the_same_names_whatever_happened():
    nothing = Figures().of([Scored("g", 1, DEAD)], seconds=1.0)
    assert nothing.keys() == Figures().of([scored(0.5)], seconds=1.0).keys() == Figures().of([], seconds=0.0).keys()
    assert {f"unscored/{reason}" for reason in Reason} <= nothing.keys()


def test_figures_of_a_batch():
    batch = [
        scored(0.0, score=1.0, flipped=True, tokens=10),
        scored(1.0, score=9.0, length=20, flipped=False, tokens=20),
        scored(0.5, group="h", score=5.0),
        scored(0.5, group="h", score=5.0, length=20),
        Scored("h", 5, DEAD),
    ]
    figures = Figures().of(batch, seconds=2.5)
    assert figures["score_mean"] == 5.0
    assert figures["score_std"] == pytest.approx(8**0.5)
    assert figures["unscored"] == figures["unscored/engine"] == 0.2
    assert figures["unscored/deadline"] == 0
    assert figures["flip_rate"] == 0.2
    assert figures["tokens"] == 6
    assert figures["latency_s"] == 2.5
    assert figures["zero_spread_groups"] == 0.5
    assert figures["length_correlation"] == pytest.approx(2**-0.5)


def test_without_a_score_there_is_no_mean_and_no_middle():
    figures = Figures().of([Scored("g", 1, DEAD)], seconds=1.0)
    assert math.isnan(figures["score_mean"])
    assert math.isnan(figures["score_std"])


def test_the_correlation_with_length_looks_back_on_earlier_batches():
    figures = Figures()
    figures.of([scored(0.0, length=1)], seconds=1)
    assert figures.of([scored(1.0, length=9)], seconds=1)["length_correlation"] == pytest.approx(1.0)


def test_a_correlation_with_what_does_not_vary_is_0():
    assert correlation([(0.5, 1), (0.5, 2)]) == correlation([(0.1, 3), (0.9, 3)]) == correlation([]) == 0


def see(patience, step, *results):
    patience.see(step, results, where="judge_reward")


def test_a_training_that_scores_nothing_is_stopped_at_the_third_step_with_the_reason():
    patience = Patience(3)
    see(patience, 0, DEAD)
    see(patience, 1, DEAD)
    with pytest.raises(BlindError, match="nothing was scored in 3 steps") as error:
        see(patience, 2, DEAD, DEAD, Rewarded(reward=None, reason=Reason.DEADLINE))
    assert "engine 2, deadline 1 (http://h: cannot be reached)" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_single_score_begins_the_count_anew():
    patience = Patience(3)
    for step in range(12):
        see(patience, step, DEAD, *[Rewarded(reward=0.0)] * (step % 3 == 2))


def test_batches_of_one_step_count_once():
    patience = Patience(2)
    for _ in range(5):
        see(patience, 0, DEAD)
    see(patience, 1, Rewarded(reward=0.5))
    see(patience, 1, DEAD)
    see(patience, 2, DEAD)
    with pytest.raises(BlindError):
        see(patience, 3, DEAD)


def test_completions_that_were_all_cut_end_in_advice():
    with pytest.raises(BlindError, match="max_completion_length"):
        see(Patience(1), 0, Rewarded(reward=None, reason=Reason.CUT_COMPLETION))
