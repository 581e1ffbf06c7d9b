from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexreward.order import combine, drawn, flip, orders, restore, show, unflip
from flexreward.templates import load_template
from flexreward.types import JudgeRequest, OrderOutcome, Outcome, Reason, Reply, Scale, Unscored, Verdict

TEN = Scale(low=1, high=10)
SCORES = st.floats(1, 10).map(lambda score: round(score, 2))
COMPLETIONS = st.lists(st.text(max_size=8), min_size=1, max_size=6).map(tuple)
REQUESTS = st.builds(JudgeRequest, prompt=st.text(max_size=8), completions=COMPLETIONS)


def verdict(*scores: float) -> Verdict:
    return Verdict(scores=scores, scale=TEN)


def seen(order: tuple[int, ...], outcome: Outcome) -> OrderOutcome:
    return OrderOutcome(order=order, outcome=outcome, votes=())


@given(REQUESTS)
def test_flipping_twice_is_the_request_itself(request_):
    assert flip(flip(request_)) == request_


@given(st.lists(SCORES, min_size=1, max_size=6))
def test_unflipping_twice_is_the_verdict_itself(scores):
    assert unflip(unflip(verdict(*scores))) == verdict(*scores)


@given(REQUESTS)
def test_flip_shows_the_reversed_order(request_):
    assert flip(request_) == show(request_, orders(len(request_.completions), both=True)[-1])


@given(st.data())
def test_restore_undoes_show_for_any_permutation(data):
    scores = data.draw(st.lists(SCORES, min_size=1, max_size=6))
    order = tuple(data.draw(st.permutations(range(len(scores)))))
    shown = verdict(*(scores[index] for index in order))
    assert restore(shown, order) == verdict(*scores)


@given(st.data())
def test_scores_follow_the_request_whatever_order_the_judge_saw(data):
    names = data.draw(st.lists(st.integers(1, 9), min_size=2, max_size=5))
    request = JudgeRequest(prompt="p", completions=tuple(f"worth {name}" for name in names))
    order = tuple(data.draw(st.permutations(range(len(names)))))
    template = load_template("batch")

    shown = template.render(show(request, order)).user
    judged = "".join(f"<answer>{line.split()[1]}</answer>" for line in shown.splitlines() if line.startswith("worth"))
    outcome = restore(template.parse(Reply(text="</think>" + judged), count=len(order)), order)

    assert isinstance(outcome, Verdict)
    assert outcome.scores == tuple(names)


def test_an_unscored_outcome_has_no_order_to_restore():
    lost = Unscored(reason=Reason.NO_END, reply="<think>")
    assert restore(lost, (1, 0)) is lost


def test_both_orders_of_a_list_are_forward_and_reversed():
    assert orders(4, both=True) == ((0, 1, 2, 3), (3, 2, 1, 0))
    assert orders(4, both=False) == ((0, 1, 2, 3),)


def test_one_completion_has_one_order():
    assert orders(1, both=True) == ((0,),)


def test_a_judge_that_always_prefers_slot_one_ends_in_a_tie():
    template = load_template("pair")
    reply = Reply(text="</think><answer>8.3</answer><answer>3.1</answer>")
    outcomes = [seen(order, restore(template.parse(reply, count=2), order)) for order in orders(2, both=True)]
    both = combine(outcomes, scale=template.scale)
    assert isinstance(both, Verdict)
    assert both.tie


@given(scores=st.lists(SCORES, min_size=2, max_size=6))
def test_a_judge_that_goes_by_slot_alone_scores_first_and_last_alike(scores):
    outcomes = [seen(order, restore(verdict(*scores), order)) for order in orders(len(scores), both=True)]
    both = combine(outcomes, scale=TEN)
    assert isinstance(both, Verdict)
    assert both.scores == both.scores[::-1]


@given(scores=st.lists(SCORES, min_size=2, max_size=6))
def test_orders_that_agree_are_their_common_verdict(scores):
    outcomes = [seen(order, verdict(*scores)) for order in orders(len(scores), both=True)]
    assert combine(outcomes, scale=TEN) == verdict(*scores)


def test_orders_are_averaged_by_completion():
    outcomes = [seen((0, 1), verdict(8, 3)), seen((1, 0), verdict(6, 7))]
    assert combine(outcomes, scale=TEN) == verdict(7, 5)


@pytest.mark.parametrize("scored", [(0, 1), (1, 0)])
def test_half_an_answer_never_stands_in_for_a_whole_one(scored):
    lost = Unscored(reason=Reason.NO_END)
    outcomes = [seen(order, verdict(8, 3) if order == scored else lost) for order in orders(2, both=True)]
    both = combine(outcomes, scale=TEN)
    assert isinstance(both, Unscored)
    assert both.reason == Reason.QUORUM
    assert both.detail == "1 of 2 readable; 1 no_end"


def test_orders_unscored_for_one_reason_keep_it():
    outcomes = [seen(order, Unscored(reason=Reason.OFF_SCALE)) for order in orders(2, both=True)]
    both = combine(outcomes, scale=TEN)
    assert isinstance(both, Unscored)
    assert both.reason == Reason.OFF_SCALE


def test_a_single_order_keeps_its_reply():
    outcome = replace(verdict(8, 3), reply="<think>...")
    assert combine([seen((0, 1), outcome)], scale=TEN) == outcome


def test_the_order_of_the_orders_does_not_matter():
    outcomes = [seen((0, 1, 2), verdict(8.1, 3.3, 5)), seen((2, 1, 0), verdict(1.7, 9.9, 2.3))]
    assert len({combine(each, scale=TEN) for each in permutations(outcomes)}) == 1


@given(st.integers(1, 8), st.text(max_size=8), st.integers(0, 5))
def test_a_drawn_order_shows_everything_and_is_the_same_for_the_same_row_and_seed(count, name, seed):
    order = drawn(count, id=name, seed=seed)
    assert sorted(order) == list(range(count))
    assert order == drawn(count, id=name, seed=seed)


def test_drawn_orders_put_either_completion_first_and_change_with_the_seed():
    first = [[drawn(2, id=f"row-{i}", seed=seed)[0] for i in range(1_000)] for seed in (0, 1)]
    assert all(450 < sum(places) < 550 for places in first)
    assert 400 < sum(a != b for a, b in zip(*first, strict=True)) < 600


def test_half_a_character_in_a_rows_name_is_no_reason_to_end():
    assert sorted(drawn(3, id="\ud800", seed=1)) == [0, 1, 2]
    assert len({drawn(4, id=f"{name}\ud800", seed=1) for name in range(20)}) > 1


def test_names_draw_what_they_drew_in_earlier_runs():
    assert [drawn(3, id=name, seed=7) for name in ("a", "é", "")] == [(2, 1, 0), (2, 1, 0), (0, 2, 1)]
