import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexreward.reward import Game, reward, rewards, win_rates
from flexreward.types import Judgment, OrderOutcome, Outcome, Reason, Scale, Unscored, Verdict

TEN = Scale(low=1, high=10)


def verdict(*scores: float, scale: Scale = TEN) -> Verdict:
    return Verdict(scores=scores, scale=scale)


def judgment(outcome: Outcome, *, count: int) -> Judgment:
    seen = OrderOutcome(order=tuple(range(count)), outcome=outcome, votes=())
    return Judgment(request_id="", template="pair", outcome=outcome, orders=(seen,), judge="")


def test_the_ends_of_the_scale_are_the_ends_of_the_reward():
    assert [reward(verdict(1, 10), index) for index in (0, 1)] == [0.0, 1.0]
    assert reward(verdict(3, scale=Scale(low=1, high=5))) == 0.5


@given(low=st.floats(0, 5), width=st.floats(0.1, 95), part=st.floats(0, 1))
def test_a_reward_lies_between_zero_and_one(low, width, part):
    scale = Scale(low=low, high=low + width)
    score = min(max(low + part * width, scale.low), scale.high)
    assert 0.0 <= reward(verdict(score, scale=scale)) <= 1.0


@given(st.floats(1, 10), st.floats(1, 10))
def test_a_better_score_is_never_a_worse_reward(one, other):
    assert (reward(verdict(one)) <= reward(verdict(other))) or one > other


@pytest.mark.parametrize("reason", list(Reason))
def test_a_failure_is_never_a_reward(reason):
    lost = Unscored(reason=reason)
    assert reward(lost) is None
    assert reward(judgment(lost, count=2), 1) is None
    assert rewards(judgment(lost, count=3)) == (None, None, None)


def test_rewards_follow_the_request():
    assert rewards(judgment(verdict(10, 1, 5.5), count=3)) == (1.0, 0.0, 0.5)


def test_a_win_rate_counts_a_tie_half_and_leaves_the_unscored_out():
    games = [
        Game(0, 1, verdict(8, 2)),
        Game(0, 2, verdict(5, 5)),
        Game(1, 2, Unscored(reason=Reason.QUORUM)),
        Game(3, 1, Unscored(reason=Reason.NO_END)),
    ]
    assert win_rates(games, group_size=4) == (0.75, 0.0, 0.5, None)
