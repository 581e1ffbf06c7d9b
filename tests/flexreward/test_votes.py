import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexreward.errors import RecipeError
from flexreward.types import Outcome, Reason, Reply, Scale, Unscored, Verdict, Vote
from flexreward.votes import AGGREGATES, aggregate, mean

TEN = Scale(low=1, high=10)
SCORES = st.floats(1, 10).map(lambda score: round(score, 1))
UNSCORED = st.sampled_from(list(Reason)).map(lambda reason: Unscored(reason=reason))


def verdict(*scores: float) -> Verdict:
    return Verdict(scores=scores, scale=TEN)


def lost(reason: Reason = Reason.NO_END) -> Unscored:
    return Unscored(reason=reason)


def count(how: str, *outcomes: Outcome) -> Outcome:
    return aggregate([Vote(outcome=outcome, reply=Reply(text="")) for outcome in outcomes], how)


@st.composite
def ballots(draw) -> list[Outcome]:
    """Votes on the same completions, some of them unreadable."""
    width = draw(st.integers(1, 4))
    readable = st.lists(SCORES, min_size=width, max_size=width).map(lambda scores: verdict(*scores))
    return draw(st.lists(st.one_of(readable, readable, UNSCORED), min_size=1, max_size=7))


@given(outcomes=ballots(), how=st.sampled_from(AGGREGATES), data=st.data())
def test_the_order_of_the_votes_never_matters(outcomes, how, data):
    shuffled = data.draw(st.permutations(outcomes))
    assert count(how, *outcomes) == count(how, *shuffled)


@given(outcome=ballots().map(lambda outcomes: outcomes[0]), how=st.sampled_from(AGGREGATES))
def test_one_vote_is_itself(outcome, how):
    assert count(how, outcome) == outcome


@given(outcomes=ballots(), how=st.sampled_from(AGGREGATES))
def test_a_verdict_needs_more_than_half_of_the_votes_and_stays_on_the_scale(outcomes, how):
    readable = sum(isinstance(outcome, Verdict) for outcome in outcomes)
    result = count(how, *outcomes)
    assert isinstance(result, Verdict) == (readable > len(outcomes) / 2)
    if isinstance(result, Verdict):
        assert all(1 <= score <= 10 for score in result.scores)


@given(scores=st.lists(SCORES, min_size=1, max_size=4), votes=st.integers(1, 7), how=st.sampled_from(AGGREGATES))
def test_votes_that_agree_are_their_common_verdict(scores, votes, how):
    assert count(how, *[verdict(*scores)] * votes) == verdict(*scores)


@given(outcomes=ballots())
def test_majority_prefers_whom_most_votes_prefer_and_nobody_when_they_are_split(outcomes):
    readable = [outcome for outcome in outcomes if isinstance(outcome, Verdict)]
    result = count("majority", *readable) if readable else lost()
    if isinstance(result, Verdict):
        winners = [outcome.preferred for outcome in readable]
        most = max(winners.count(winner) for winner in winners)
        leaders = {winner for winner in winners if winners.count(winner) == most}
        assert result.preferred == (leaders.pop() if len(leaders) == 1 else None)


def test_mean_and_median_go_by_completion():
    outcomes = verdict(9, 1), verdict(9, 2), verdict(3, 6)
    assert count("mean", *outcomes) == verdict(7, 3)
    assert count("median", *outcomes) == verdict(9, 2)


def test_majority_takes_its_scores_from_the_winning_side():
    assert count("majority", verdict(8, 2), verdict(6, 4), verdict(1, 10)) == verdict(7, 3)


def test_a_tie_can_win_a_vote():
    result = count("majority", verdict(5, 5), verdict(7, 7), verdict(9, 1))
    assert result == verdict(6, 6)
    assert result.tie


def test_a_split_vote_is_a_tie_and_not_a_coin_toss():
    result = count("majority", verdict(9, 1), verdict(3, 8))
    assert isinstance(result, Verdict)
    assert result.tie


def test_a_split_vote_does_not_lift_a_third_nobody_preferred():
    result = count("majority", verdict(9, 1, 8), verdict(1, 9, 8))
    assert isinstance(result, Verdict)
    assert result.scores == (5, 5, 5)


def test_majority_of_a_single_completion_is_its_mean():
    assert count("majority", verdict(4), verdict(5), verdict(9)) == verdict(6)


def test_half_of_the_votes_is_no_quorum():
    result = count("mean", verdict(8, 2), lost(), verdict(8, 2), lost(Reason.MISSING))
    assert isinstance(result, Unscored)
    assert (result.reason, result.detail) == (Reason.QUORUM, "2 of 4 readable; 1 no_end, 1 missing")


def test_votes_unscored_for_one_reason_keep_it():
    result = count("mean", lost(Reason.OFF_SCALE), lost(Reason.OFF_SCALE))
    assert isinstance(result, Unscored)
    assert result.reason == Reason.OFF_SCALE


def test_a_failed_engine_is_named_because_trying_again_may_help():
    result = count("mean", lost(Reason.DEADLINE), verdict(8, 2), lost(Reason.NO_END))
    assert isinstance(result, Unscored)
    assert result.reason == Reason.DEADLINE


def test_an_unknown_aggregate_is_refused():
    with pytest.raises(RecipeError, match="unknown aggregate 'avg', expected one of mean, median, majority"):
        count("avg", verdict(1, 2), verdict(1, 2))


@given(st.lists(st.floats(0, 10), min_size=1, max_size=9))
def test_a_mean_lies_between_its_values_in_spite_of_rounding(values):
    assert min(values) <= mean(values) <= max(values)
    assert mean(values) == mean(values[::-1])
