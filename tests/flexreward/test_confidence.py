"""One number says how sure a judge was, by the shares of its replies that say what the judgment says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexreward.engines.scripted import ScriptedEngine
from flexreward.files.outcomes import Item, outcome_row
from flexreward.judge import Judge
from flexreward.order import combine
from flexreward.templates import load_template
from flexreward.types import JudgeRequest, Judgment, OrderOutcome, Reason, Reply, Scale, Unscored, Verdict, Vote
from flexreward.votes import aggregate

TEN = Scale(low=1, high=10)
A, B, T = (9.0, 2.0), (3.0, 4.0), (7.0, 7.0)


def judgment(*orders, how="majority") -> Judgment:
    """Of the scores of each order's votes, ``None`` for one that cannot be read; every second order is reversed."""
    made = []
    for number, rows in enumerate(orders):
        width = max((len(row) for row in rows if row), default=2)
        outcomes = [Unscored(reason=Reason.NO_END) if row is None else Verdict(scores=row, scale=TEN) for row in rows]
        votes = tuple(Vote(outcome=one, reply=Reply(text="", index=i)) for i, one in enumerate(outcomes))
        order = tuple(range(width))[:: -1 if number % 2 else 1]
        made.append(OrderOutcome(order=order, outcome=aggregate(votes, how), votes=votes))
    return Judgment(request_id="q", template="pair", outcome=combine(made, scale=TEN), orders=tuple(made), judge="j")


@pytest.mark.parametrize(
    ("orders", "sure"),
    [
        (([A, A, A, A], [A, A, A, B]), 0.875),
        (([A, A], [B, B]), 0.5),  # 9 to 2 outweighs 3 to 4, and half of the replies say so
        (([A, A], [(2.0, 9.0)] * 2), 0),  # it follows the place: a tie, which no reply has said
        (([T, T], [T, T]), 1),
        (([A, A, None], [A, None, A]), 1),
        (([A, A, B],), 2 / 3),
        (([A], [A]), 1),
        (([A],), None),
        (([A, None, None], [A, A, A]), None),
        (([(4.0,), (4.0,)],), 1),
        (([(1.0,), (10.0,)],), 0),
        (([(4.0,)],), None),
    ],
)
def test_the_confidence_is_the_share_of_the_replies_that_say_what_the_judgment_says(orders, sure):
    assert judgment(*orders).confidence == (sure if sure is None else pytest.approx(sure))


SCORES = st.integers(1, 10).map(float)
VOTES = st.lists(st.one_of(st.none(), st.tuples(SCORES, SCORES)), min_size=1, max_size=6)
MANY = st.lists(VOTES, min_size=1, max_size=2)
HOW = st.sampled_from(["mean", "median", "majority"])


@given(MANY, HOW)
def test_it_lies_between_0_and_1_and_is_none_where_there_is_no_score(orders, how):
    found = judgment(*orders, how=how)
    if isinstance(found.outcome, Unscored):
        assert found.confidence is None
    elif found.confidence is not None:
        assert 0 <= found.confidence <= 1


@given(MANY, HOW)
def test_it_is_the_same_whichever_completion_comes_first_in_the_request(orders, how):
    flipped = [[row and row[::-1] for row in rows] for rows in orders]
    assert judgment(*flipped, how=how).confidence == judgment(*orders, how=how).confidence


@given(st.tuples(SCORES, SCORES), st.integers(1, 6), st.integers(1, 2), HOW)
def test_it_is_1_where_all_replies_in_all_orders_agree(row, votes, num_orders, how):
    found = judgment(*[[row] * votes] * num_orders, how=how).confidence
    assert found == (None if votes * num_orders == 1 else 1)


@given(MANY, HOW, st.randoms())
def test_the_order_of_the_votes_is_nothing_to_it(orders, how, rng):
    shuffled = [rng.sample(rows, len(rows)) for rows in orders]
    assert judgment(*shuffled, how=how).confidence == judgment(*orders, how=how).confidence


async def test_it_stands_in_the_outcome_line_beside_the_verdict():
    says = [f"<think>x</think><answer>{a}</answer><answer>{b}</answer>" for a, b in ((9, 3), (9, 3), (9, 3), (2, 5))]
    request = JudgeRequest(id="q", prompt="2+2?", completions=("4", "5"))
    judge = Judge(ScriptedEngine(lambda _: says), load_template("pair"), votes=4, both_orders=False)
    line = outcome_row(await judge.judge(request), Item(request, {}))
    assert line["confidence"] == 0.75
    assert list(line).index("confidence") == list(line).index("tie") + 1
