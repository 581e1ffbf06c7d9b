import itertools
import random
from math import isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexreward.errors import RecipeError
from flexreward.pairs.best_of_n import Prompt, chances, expected, expected_best
from flexreward.pairs.bracket import Found
from flexreward.pairs.contest import METHODS, Contest, Plan
from flexreward.reward import Game, win_rates
from flexreward.types import Reason, Scale, Unscored, Verdict

TEN = Scale(low=1, high=10)


def contest_of(method, texts, *, seed=0, list_size=16, id="q"):
    same = tuple(texts.index(text) for text in texts)
    return Contest(plan=Plan(method=method, seed=seed, list_size=list_size), id=id, same=same)


def played(contest, judge):
    """The contest judged to its end: what is known, and how many rounds it took."""
    known, num_rounds = {}, 0
    while shown := contest.asks(known):
        num_rounds += 1
        known.update({members: judge(members) for members in shown})
    return known, num_rounds


def by_worth(texts):
    """A judge that scores each by its number; what holds a ``?`` it cannot read."""

    def judge(members):
        shown = [texts[i] for i in members]
        if "?" in shown:
            return Found(None, TEN)
        return Found(tuple(float(text) for text in shown), TEN)

    return judge


def at_random(seed, *, unread=0.2):
    def judge(members):
        rng = random.Random(f"{seed} {members}")
        if rng.random() < unread:
            return Found(None, TEN)
        return Found(tuple(float(rng.randint(4, 7)) for _ in members), TEN, flipped=rng.random() < 0.3)

    return judge


COMPARED = [method for method in METHODS if method != "pointwise"]
TEXTS = st.lists(st.sampled_from("1234567"), min_size=1, max_size=9)


@given(st.sampled_from(METHODS), st.permutations("123456789"), st.integers(1, 9), st.integers(0, 3))
def test_a_judge_that_knows_finds_the_best_by_every_method(method, order, count, seed):
    texts = order[:count]
    contest = contest_of(method, texts, seed=seed, list_size=4)
    standing = contest.standing(played(contest, by_worth(texts))[0])
    assert standing.best == (texts.index(max(texts)),)
    assert standing.order[0] == standing.best[0]
    assert sorted(standing.order) == list(range(count))


@given(st.sampled_from(METHODS), TEXTS, st.integers(0, 50), st.sampled_from([3, 4, 16]))
def test_the_chances_of_every_choice_come_to_one_and_no_judge_beats_the_oracle(method, texts, seed, list_size):
    contest = contest_of(method, texts, list_size=list_size)
    known, _ = played(contest, at_random(seed))
    truth = tuple(random.Random(seed).choice([0.0, 0.5, 1.0]) for _ in texts)
    sizes = contest.sizes()
    assert {1, len(texts)} <= sizes
    prompt = Prompt((), truth, {n: contest.draws(known, n) for n in sizes})
    for n in sizes:
        assert isclose(sum(prompt.draws[n].chances), 1)
        assert expected(prompt, n) <= expected_best(prompt, n) + 1e-9
    if method != "knockout":  # whose one draw of a tie is the choice, while its curve averages pairs
        best = [prompt.draws[len(texts)].chances[i] for i in contest.standing(known).best]
        assert not best or isclose(sum(best), 1)


@given(st.sampled_from(METHODS), TEXTS, st.integers(0, 20))
def test_what_was_never_read_has_no_score_and_ranks_last(method, texts, seed):
    contest = contest_of(method, texts, list_size=4)
    known, _ = played(contest, at_random(seed, unread=0.5))
    standing = contest.standing(known)
    read = {member for members, found in known.items() if found.scores for member in members}
    assert [score is not None for score in standing.scores] == [text in read for text in contest.same]
    scored = [standing.scores[i] is not None for i in standing.order]
    assert scored == sorted(scored, reverse=True)
    assert standing.counts.unscored == sum(found.scores is None for found in known.values())
    if known:
        assert bool(standing.best) == bool(read)


def test_a_knockout_of_sixteen_takes_fifteen_judgments_in_four_rounds():
    texts = [str(n) for n in range(16)]
    known, num_rounds = played(contest_of("knockout", texts), by_worth(texts))
    assert (len(known), num_rounds) == (15, 4)
    assert len(played(contest_of("round-robin", texts), by_worth(texts))[0]) == 120
    assert len(played(contest_of("listwise", texts), by_worth(texts))[0]) == 1


def test_a_knockouts_choices_among_fewer_are_the_winners_of_its_own_parts():
    texts = [str(n) for n in range(12)]
    contest = contest_of("knockout", texts)
    known, _ = played(contest, by_worth(texts))
    assert contest.sizes() == {1, 2, 4, 8, 12}
    for n, num_parts in ((2, 6), (4, 3), (8, 1), (12, 1)):
        pools = contest.draws(known, n).pools
        assert len(pools) == num_parts
        assert len({i for pool in pools for i in pool}) == n * num_parts
    assert {contest.asks({}) != contest_of("knockout", texts, seed=seed).asks({}) for seed in (1, 2)} == {True}


def test_lists_that_are_too_many_for_a_prompt_are_a_knockout_of_lists():
    texts = [str(n) for n in range(20)]
    contest = contest_of("listwise", texts, list_size=6)
    known, num_rounds = played(contest, by_worth(texts))
    assert sorted(len(members) for members in known) == [4, 5, 5, 5, 5]
    assert num_rounds == 2
    assert contest.most_judgments() == 5
    assert contest.sizes() == {1, 2, 3, 4, 5, 20}
    with pytest.raises(RecipeError, match="list_size: 2 is too few"):
        Plan(method="listwise", list_size=2)


def test_equal_completions_are_never_held_against_each_other_and_share_their_place():
    texts = ["3", "9", "3", "9", "3"]
    for method in COMPARED:
        contest = contest_of(method, texts)
        known, _ = played(contest, by_worth(texts))
        assert list(known) == [(0, 1)]
        assert contest.standing(known).best == (1, 3)


def test_one_completion_is_chosen_without_a_judgment_where_there_is_nothing_to_compare():
    for texts in (["5"], ["5", "5"]):
        for method in COMPARED:
            contest = contest_of(method, texts)
            standing = contest.standing({})
            assert contest.asks({}) == []
            assert standing.best == tuple(range(len(texts)))
            assert set(standing.scores) == {None}
            assert standing.num_unscored == 0


def test_ties_share_the_best_place_but_a_knockout_draws_and_counts_it():
    texts = ["5", "6", "7", "8"]

    def equal(members):
        return Found((5.0,) * len(members), TEN)

    for method in METHODS:
        contest = contest_of(method, texts)
        standing = contest.standing(played(contest, equal)[0])
        if method == "knockout":
            assert (len(standing.best), standing.counts.drawn) == (1, 3)
        else:
            assert (standing.best, standing.counts.drawn) == ((0, 1, 2, 3), 0)
    winners = {
        contest_of("knockout", texts, seed=seed)
        .standing(played(contest_of("knockout", texts, seed=seed), equal)[0])
        .best
        for seed in range(40)
    }
    assert winners == {(0,), (1,), (2,), (3,)}


def test_orders_that_disagree_are_counted_and_their_averages_decide():
    contest = contest_of("knockout", ["a", "b"])
    standing = contest.standing({(0, 1): Found((6.0, 5.5), TEN, flipped=True)})
    assert (standing.best, standing.counts.flipped, standing.counts.drawn) == ((0,), 1, 0)


def test_a_pair_without_a_verdict_is_counted_and_who_was_read_before_goes_on():
    texts = ["?", "1", "2", "3"]
    for seed in range(20):
        contest = contest_of("knockout", texts, seed=seed)
        known, _ = played(contest, by_worth(texts))
        standing = contest.standing(known)
        assert standing.best[0] != 0
        assert standing.scores[0] is None
        assert standing.num_unscored >= 1
        assert 1 <= standing.counts.unread <= 2


def test_expected_scores_break_the_ties_of_every_method():
    def judge(members):
        return Found((5.0,) * len(members), TEN, expected=tuple(5 + 0.1 * i for i in members))

    for method in METHODS:
        contest = contest_of(method, ["a", "b", "c", "d"])
        known, _ = played(contest, judge)
        standing = contest.standing(known)
        assert (standing.best, standing.counts.drawn) == ((3,), 0)
        assert contest.draws(known, 4).chances == (0, 0, 0, 1)
        without = {members: found._replace(expected=None) for members, found in known.items()}
        assert contest.standing(without).best == (
            (0, 1, 2, 3) if method != "knockout" else contest.standing(without).best
        )


@given(st.lists(st.sampled_from("1122334"), min_size=2, max_size=6), st.integers(0, 20))
def test_a_round_robin_among_some_is_their_win_rate_in_their_own_games(texts, seed):
    contest = contest_of("round-robin", texts)
    known, _ = played(contest, at_random(seed))
    outcomes = {
        members: Unscored(reason=Reason.QUORUM) if found.scores is None else Verdict(scores=found.scores, scale=TEN)
        for members, found in known.items()
    }
    read = {i for members, found in known.items() if found.scores for i in members}
    tie = Verdict(scores=(1, 1), scale=TEN)
    for n in range(2, len(texts) + 1):
        chance = [0.0] * len(texts)
        subsets = list(itertools.combinations(range(len(texts)), n))
        for subset in subsets:
            games = []
            for (at, i), (to, j) in itertools.combinations(enumerate(subset), 2):
                one, other = contest.same[i], contest.same[j]
                if one != other:
                    turned = one > other
                    games.append(
                        Game(to if turned else at, at if turned else to, outcomes[tuple(sorted((one, other)))])
                    )
                elif one in read:
                    games.append(Game(at, to, tie))
            rates = [-1 if rate is None else rate for rate in win_rates(games, group_size=n)]
            best = [i for i, rate in zip(subset, rates, strict=True) if rate == max(rates)]
            for i in best:
                chance[i] += 1 / len(best) / len(subsets)
        assert contest.draws(known, n).chances == pytest.approx(chance)


def test_ten_trials_of_drawn_ties_come_to_the_exact_average():
    rng = random.Random(3)
    prompts = []
    for _ in range(400):
        truth = [rng.random() < 0.4 for _ in range(8)]
        prompts.append(([float(rng.randint(5, 7) + 2 * good) for good in truth], truth))

    def trial(scores, truth, n):
        drawn = rng.sample(range(8), n)
        best = max(scores[i] for i in drawn)
        return truth[rng.choice([i for i in drawn if scores[i] == best])]

    for n in (2, 4, 8):
        published = sum(trial(*prompt, n) for _ in range(10) for prompt in prompts) / 4000
        exact = (
            sum(
                chance * good
                for scores, truth in prompts
                for chance, good in zip(chances(scores, n), truth, strict=True)
            )
            / 400
        )
        assert abs(published - exact) < 3 * 0.5 / 4000**0.5


def test_a_method_that_is_none_is_named():
    with pytest.raises(RecipeError, match="method: 'swiss' is unknown, expected one of pointwise, knockout"):
        Plan(method="swiss")
