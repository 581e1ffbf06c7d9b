"""A vote on a label that ends early says what the full vote says."""

import random
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexreward.errors import RecipeError
from flexreward.stops import _bounds, _chance_to_meet, check_stop, decided, label, name_of_stop
from flexreward.types import Outcome, Reason, Reply, Scale, Unscored, Verdict, Vote
from flexreward.votes import aggregate

TEN, ONE = Scale(low=1, high=10), Scale(low=0, high=1)
UNREAD = Unscored(reason=Reason.NO_END)
PAIR = (
    Verdict(scores=(9.0, 2.0), scale=TEN),
    Verdict(scores=(3.0, 4.0), scale=TEN),
    Verdict(scores=(7.0, 7.0), scale=TEN),
    UNREAD,
)
LABELS = tuple(Verdict(scores=scores, scale=ONE) for scores in ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.0, 0.0)))


def votes(outcomes) -> list[Vote]:
    return [Vote(outcome=outcome, reply=Reply(text="", index=i)) for i, outcome in enumerate(outcomes)]


def until_decided(outcomes, stop: float) -> list[Outcome]:
    """Those that are read when they come in this order."""
    read: list[Outcome] = []
    for outcome in outcomes:
        read.append(outcome)
        if decided(read, len(outcomes), stop):
            break
    return read


@pytest.mark.parametrize("kinds", [PAIR, (*LABELS, UNREAD)])
@pytest.mark.parametrize("total", range(1, 6))
def test_the_lossless_stop_equals_the_full_vote_in_every_small_case(kinds, total):
    num_stopped = 0
    for outcomes in product(kinds, repeat=total):  # every vote in every order in which its replies can end
        read = until_decided(outcomes, 0.0)
        num_stopped += len(read) < total
        assert label(votes(read)) == label(votes(outcomes))
    assert num_stopped > 0 or total < 3


SCORES = st.integers(1, 10).map(float)


@given(st.integers(2, 4).flatmap(lambda n: st.lists(st.one_of(st.none(), st.tuples(*[SCORES] * n)), min_size=1)))
def test_the_lossless_stop_equals_the_full_vote_for_any_scores_and_any_number_of_completions(rows):
    outcomes = [UNREAD if row is None else Verdict(scores=row, scale=TEN) for row in rows]
    assert label(votes(until_decided(outcomes, 0.0))) == label(votes(outcomes))


@pytest.mark.parametrize("total", range(1, 6))
def test_a_vote_goes_on_for_as_long_as_some_rest_could_change_it(total):
    kinds = (*LABELS[:3], UNREAD)
    for seen in range(1, total):
        for outcomes in product(kinds, repeat=seen):
            ends = {label(votes((*outcomes, *rest))) for rest in product(kinds, repeat=total - seen)}
            winner = {end.preferred if isinstance(end, Verdict) else "unscored" for end in ends}
            certain = len(ends) == 1 and winner <= {0, 1}
            assert decided(outcomes, total, 0.0) == certain


@given(st.lists(st.sampled_from((*LABELS, UNREAD)), min_size=1, max_size=9))
def test_with_a_template_of_labels_the_label_is_what_majority_says(outcomes):
    assert label(votes(outcomes)) == aggregate(votes(outcomes), "majority")


@given(st.lists(st.sampled_from(PAIR), min_size=1, max_size=9))
def test_a_label_prefers_whom_the_majority_prefers_and_keeps_the_scores_of_ties(outcomes):
    full, found = aggregate(votes(outcomes), "majority"), label(votes(outcomes))
    if isinstance(full, Unscored):
        assert found == full
    else:
        assert found.preferred == full.preferred
        assert found.scores == (full.scores if full.tie else ((10, 1) if full.preferred == 0 else (1, 10)))


@given(st.lists(st.sampled_from(PAIR), min_size=1, max_size=15), st.sampled_from([0.0, 0.05, 0.25]))
def test_no_vote_ends_before_more_than_half_of_all_its_replies_were_read(outcomes, stop):
    read = until_decided(outcomes, stop)
    if len(read) < len(outcomes):
        assert 2 * sum(isinstance(outcome, Verdict) for outcome in read) > len(outcomes)


def wrong_share(counts: tuple[int, ...], stop: float, *, rounds: int, rng: random.Random) -> float:
    """How often a full vote of so many for each side, read in random order, ends with another winner."""
    sides = [kind for kind, count in zip(PAIR, counts, strict=True) for _ in range(count)]
    full = label(votes(sides))
    wrong = 0
    for _ in range(rounds):
        rng.shuffle(sides)
        found = label(votes(until_decided(sides, stop)))
        wrong += isinstance(found, Unscored) or isinstance(full, Unscored) or found.preferred != full.preferred
    return wrong / rounds


def compositions(total: int) -> list[tuple[int, ...]]:
    """Full votes that come to a verdict: two winners, ties, unread replies."""
    every = product(range(total + 1), repeat=3)
    return [(a, b, t, total - a - b - t) for a, b, t in every if a >= b and 2 * (a + b + t) > total >= a + b + t]


@pytest.mark.parametrize("error", [0.05, 0.2])
def test_the_statistical_stop_errs_no_more_often_than_it_states_whatever_the_full_vote(error):
    rng = random.Random(1)
    for counts in compositions(5):
        assert wrong_share(counts, error, rounds=60, rng=rng) <= error + 4 * (error / 60) ** 0.5
    for counts in ((4, 4, 0, 0), (7, 8, 0, 0), (7, 7, 1, 0), (5, 5, 5, 0), (8, 7, 0, 0), (9, 6, 0, 0)):
        assert wrong_share(counts, error, rounds=500, rng=rng) <= error + 4 * (error / 500) ** 0.5


def test_however_the_replies_fall_to_several_losers_they_end_a_vote_no_more_often_than_two_with_half_each():
    for total, error in product((6, 9, 15), (0.05, 0.2)):
        bounds = _bounds(total, error)
        chance = [_chance_to_meet(total, count, bounds) for count in range(total // 2 + 1)]
        worst = [0.0] * (total + 1)  # by how many replies there are to share out among losers
        for left in range(1, total + 1):
            worst[left] = max(chance[count] + worst[left - count] for count in range(1, min(left, total // 2) + 1))
        assert worst[total] <= error + 1e-12


def test_the_statistical_stop_reads_less_than_the_lossless_one_and_does_err():
    rng = random.Random(2)
    read = {0.0: 0, 0.2: 0}
    for _ in range(400):
        outcomes = rng.choices(PAIR[:2], weights=(8, 2), k=15)
        for stop in read:
            read[stop] += len(until_decided(outcomes, stop))
    assert read[0.2] < read[0.0] < 400 * 15
    assert wrong_share((7, 8, 0, 0), 0.2, rounds=1000, rng=rng) > 0.01  # the bound is no empty word


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stop": 0.5, "aggregate": "majority", "num_completions": 2}, "stop: an error of 0.5 is none to work with"),
        ({"stop": 0.0, "aggregate": "mean", "num_completions": 2}, "stop: mean needs every vote"),
        ({"stop": 0.0, "aggregate": "median", "num_completions": 2}, "stop: median needs every vote"),
        ({"stop": 0.0, "aggregate": "majority", "num_completions": 1}, "stop: one completion alone has no winner"),
    ],
)
def test_a_stop_that_nothing_can_be_made_of_is_refused(options, message):
    with pytest.raises(RecipeError, match=message):
        check_stop(**options)


def test_no_stop_fits_everything_and_each_has_a_name():
    check_stop(None, aggregate="mean", num_completions=1)
    check_stop(0.0, aggregate="majority", num_completions=None)
    assert [name_of_stop(stop) for stop in (0.0, 0.05)] == ["lossless", "error 0.05"]
