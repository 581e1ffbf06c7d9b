import itertools
from math import isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexreward.errors import RecipeError
from flexreward.pairs.best_of_n import Prompt, chances, choice, curve, estimate, expected, expected_best
from flexreward.pairs.choose import parse_counts

SCORES = st.lists(st.sampled_from([None, 1.0, 2.0, 2.5, 10.0]), min_size=1, max_size=7)


def enumerated(scores, n):
    """Every subset, every draw among its best: what the formula must come to."""
    subsets = list(itertools.combinations(range(len(scores)), n))
    chance = [0.0] * len(scores)
    for subset in subsets:
        ranks = [float("-inf") if scores[i] is None else scores[i] for i in subset]
        best = [i for i, rank in zip(subset, ranks, strict=True) if rank == max(ranks)]
        for i in best:
            chance[i] += 1 / len(best) / len(subsets)
    return chance


@given(SCORES, st.data())
def test_the_chances_are_those_of_every_subset_and_every_draw(scores, data):
    n = data.draw(st.integers(1, len(scores)))
    assert chances(scores, n) == pytest.approx(enumerated(scores, n))
    assert isclose(sum(chances(scores, n)), 1)


@given(SCORES)
def test_among_one_everything_has_the_same_chance_and_among_all_the_best_win(scores):
    assert chances(scores, 1) == pytest.approx([1 / len(scores)] * len(scores))
    best = choice(scores) or tuple(range(len(scores)))
    assert [i for i, chance in enumerate(chances(scores, len(scores))) if chance > 0] == list(best)


@given(
    st.lists(
        st.tuples(st.sampled_from([None, 1.0, 2.0, 3.0]), st.sampled_from([0.0, 0.5, 1.0])), min_size=2, max_size=6
    )
)
def test_no_judge_beats_the_oracle_and_the_oracle_never_falls(pairs):
    prompt = Prompt(*map(tuple, zip(*pairs, strict=True)))
    best = [expected_best(prompt, n) for n in range(1, len(pairs) + 1)]
    assert all(expected(prompt, n) <= value + 1e-12 for n, value in enumerate(best, 1))
    assert best == pytest.approx(sorted(best))


def test_an_unscored_completion_is_chosen_only_where_nothing_is_scored():
    assert chances([None, 1.0, None], 2) == pytest.approx([1 / 6, 2 / 3, 1 / 6])
    assert chances([None, None], 2) == [0.5, 0.5]
    assert choice([None, None]) == ()
    assert choice([2.0, None, 3.0, 3.0]) == (2, 3)


def test_a_good_judge_climbs_and_a_shuffled_one_does_not():
    prompts = [Prompt(scores=(9.0, 3.0, 2.0, 1.0), truth=(1.0, 0.0, 0.0, 0.0))] * 200
    found = curve(prompts, [1, 2, 4])
    assert [round(found.judge[n].mean, 6) for n in (1, 2, 4)] == [0.25, 0.5, 1.0]
    assert found.oracle == found.judge
    assert all(abs(found.shuffled[n].mean - 0.25) < 0.05 for n in (1, 2, 4))
    assert found == curve(prompts, [1, 2, 4])
    assert found.as_json()["best_of_n"]["4"] == {"mean": 1.0, "low": 1.0, "high": 1.0}


def test_the_interval_is_over_prompts():
    found = estimate([0.0] * 50 + [1.0] * 50)
    assert found.mean == 0.5
    assert 0.38 < found.low < 0.43  # 0.5 - 1.96 * sqrt(0.25 / 100) is 0.402
    assert 0.57 < found.high < 0.62


def test_sizes_are_whole_numbers():
    assert parse_counts("4, 1,4") == (1, 4)
    for text in ("", "0", "1,x", "-1", "1.5"):
        with pytest.raises(RecipeError, match="expected whole numbers"):
            parse_counts(text)
