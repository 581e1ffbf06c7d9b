import random
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexreward.bradley_terry import Pair, Result, expected_wins, fit, next_pairs, parts, won
from flexreward.types import Scale, Verdict

TEN = Scale(low=1, high=10)


def all_results(strengths: list[float]) -> list[Result]:
    pairs = combinations(range(len(strengths)), 2)
    return [Result(i, j, 0.5 if strengths[i] == strengths[j] else float(strengths[i] > strengths[j])) for i, j in pairs]


def test_a_tie_is_half_a_win_and_a_clear_win_nearly_a_whole():
    assert won(Verdict(scores=(4, 4), scale=TEN)) == 0.5
    assert won(Verdict(scores=(9, 2), scale=TEN)) > 0.999
    assert won(Verdict(scores=(2, 9), scale=TEN)) < 0.001


@given(st.floats(1, 10), st.floats(1, 10))
def test_what_the_first_does_not_win_the_second_does(one, other):
    both = won(Verdict(scores=(one, other), scale=TEN)) + won(Verdict(scores=(other, one), scale=TEN))
    assert both == pytest.approx(1.0)


def test_strengths_are_ranked_as_they_beat_each_other():
    strengths = fit(all_results([3.0, 1.0, 2.0]), size=3).strengths_N
    assert sorted(range(3), key=lambda i: strengths[i]) == [1, 2, 0]


def test_one_who_never_lost_stays_finite():
    strengths = fit(all_results([float(i) for i in range(20)]), size=20).strengths_N
    assert abs(strengths).max() < 20
    assert list(strengths) == sorted(strengths)


def test_without_any_comparison_nothing_is_known():
    assert list(fit([], size=3).strengths_N) == [0, 0, 0]
    assert expected_wins([], size=3) == [None, None, None]


def test_with_all_pairs_compared_the_expected_share_of_wins_is_near_the_share_won():
    won_shares = [1.0, 0.75, 0.5, 0.25, 0.0]
    assert expected_wins(all_results([4, 3, 2, 1, 0]), size=5) == pytest.approx(won_shares, abs=0.08)


def test_expected_wins_lie_between_zero_and_one_and_half_of_them_are_won():
    wins = expected_wins(all_results([2, 2, 7, 1, 0, 9]), size=6)
    assert all(0 < share < 1 for share in wins)
    assert sum(wins) / 6 == pytest.approx(0.5)
    assert wins[0] == pytest.approx(wins[1])


def test_who_met_nobody_has_no_expected_wins():
    assert expected_wins([Result(0, 1, 1.0)], size=3)[2] is None


def test_parts_that_no_comparison_connects_gain_nothing_on_each_other():
    wins = expected_wins([Result(0, 1, 1.0), Result(2, 3, 1.0)], size=4)
    assert parts([Result(0, 1, 1.0), Result(2, 3, 1.0)], size=4) == [[0, 1], [2, 3]]
    assert wins[0] == pytest.approx(wins[2])
    assert wins[1] == pytest.approx(wins[3])
    assert wins[0] + wins[1] == pytest.approx(1.0)


def test_a_part_is_found_through_others():
    assert parts([Result(0, 3, 1.0), Result(1, 4, 0.5), Result(4, 3, 0.0)], size=5) == [[0, 1, 3, 4], [2]]


@given(size=st.integers(2, 9), seed=st.integers(0, 99))
def test_rounds_meet_nobody_twice_and_in_the_end_all_pairs(size, seed):
    rng, asked, results = random.Random(seed), set(), []
    while pairs := next_pairs(results, size=size, asked=asked, count=100):
        assert len({member for pair in pairs for member in pair}) == 2 * len(pairs)
        assert asked.isdisjoint(pairs)
        asked.update(pairs)
        results += [Result(*pair, rng.choice([0.0, 0.5, 1.0])) for pair in pairs]
    assert asked == set(combinations(range(size), 2))


@pytest.mark.parametrize("size", [2, 3, 4, 7, 16])
def test_one_pair_less_than_there_are_members_connects_everybody(size):
    asked, results = set(), []
    while len(asked) < size - 1:
        for pair in next_pairs(results, size=size, asked=asked, count=size - 1 - len(asked)):
            asked.add(pair)
            results.append(Result(*pair, 1.0))
    assert len(parts(results, size=size)) == 1


def test_a_pair_that_nothing_is_known_of_goes_before_one_that_is_settled():
    results = [Result(0, 1, 1.0), Result(2, 3, 1.0)]
    assert next_pairs(results, size=4, asked={Pair(0, 1), Pair(2, 3)}, count=1)[0] in {(0, 2), (1, 3), (0, 3), (1, 2)}
    ladder = all_results([6, 5, 4, 3, 2, 1, 0])
    close = next_pairs([one for one in ladder if one.second - one.first != 1], size=7, asked=set(), count=1)
    assert close[0].second - close[0].first == 1
