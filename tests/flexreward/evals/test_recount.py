import math

import numpy as np
import pytest

from flexreward.evals.recount import figure, outcomes, right
from flexreward.order import combine
from flexreward.types import OrderOutcome, Reason, Reply, Scale, Unscored, Verdict, Vote
from flexreward.votes import AGGREGATES, aggregate

SCALE = Scale(low=1, high=10)
NAN = math.nan


def by_hand(votes_OKC: np.ndarray, how: str) -> list[float]:
    """What the judge itself makes of one row's votes."""
    orders = []
    for votes_KC in votes_OKC:
        votes = [
            Vote(
                outcome=Unscored(reason=Reason.NO_ANSWER)
                if np.isnan(vote[0])
                else Verdict(scores=tuple(vote.tolist()), scale=SCALE),
                reply=Reply(text=""),
            )
            for vote in votes_KC
        ]
        orders.append(OrderOutcome(order=(0,), outcome=aggregate(votes, how), votes=tuple(votes)))
    found = combine(orders, scale=SCALE)
    return list(found.scores) if isinstance(found, Verdict) else [NAN] * votes_OKC.shape[2]


@pytest.mark.parametrize("how", AGGREGATES)
@pytest.mark.parametrize(
    "shape", [(200, 2, 1, 2), (200, 2, 3, 2), (200, 1, 5, 1), (200, 2, 4, 4), (200, 1, 6, 3)], ids=str
)
def test_a_whole_table_is_counted_as_the_judge_counts_a_row(how, shape):
    rng = np.random.default_rng(0)
    votes_NOKC = rng.integers(1, 5, size=shape).astype(float)
    votes_NOKC[rng.random(shape[:3]) < 0.3] = np.nan
    found_NC = outcomes(votes_NOKC, np.ones(shape[:2], dtype=bool), how)
    expected_NC = np.array([by_hand(votes_OKC, how) for votes_OKC in votes_NOKC])
    np.testing.assert_allclose(found_NC, expected_NC, rtol=1e-12)
    assert 20 < np.isnan(found_NC[:, 0]).sum() < 180


def test_an_order_that_was_not_asked_counts_for_nothing():
    votes_NOKC = np.array([[[[5.0, 3.0]], [[NAN, NAN]]], [[[5.0, 3.0]], [[NAN, NAN]]]])
    found_NC = outcomes(votes_NOKC, np.array([[True, False], [True, True]]), "mean")
    np.testing.assert_array_equal(found_NC, [[5, 3], [NAN, NAN]])


def test_shorter_rows_are_counted_beside_longer_ones():
    votes_NOKC = np.array([[[[5.0, 3.0, NAN], [7.0, 3.0, NAN]]], [[[1.0, 2.0, 3.0], [1.0, 2.0, 5.0]]]])
    for how in AGGREGATES:
        found_NC = outcomes(votes_NOKC, np.ones((2, 1), dtype=bool), how)
        np.testing.assert_array_equal(found_NC, [[6, 3, NAN], [1, 2, 4]])


@pytest.mark.parametrize(
    ("task", "scores", "human", "expected"),
    [
        ("pair", [7, 3], [1, 0], 1),
        ("pair", [3, 7], [1, 0], 0),
        ("pair", [5, 5], [1, 0], 0),
        ("pair", [5, 5], [1, 1], 1),
        ("pair", [5, 5], [0, 0], 1),
        ("pair", [7, 3], [1, 1], 0),
        ("best", [7, 3, 7, 7], [1, 0, 0, 0], 1 / 3),
        ("best", [8, 3, 7, 7], [1, 0, 0, 0], 1),
        ("best", [7, 8, 7, NAN], [1, 0, 0, NAN], 0),
        ("ranking", [9, 7, 5, 3], [3, 2, 1, 0], 1),
        ("ranking", [9, 7, 5, 5], [3, 2, 1, 0], 5.5 / 6),
        ("ranking", [3, 5, 7, 9], [3, 2, 1, 0], 0),
        ("ranking", [5, 5, 5, 5], [0, 0, 0, 0], NAN),
        ("rating", [7], [7], NAN),
        ("pair", [NAN, NAN], [1, 0], NAN),
    ],
)
def test_how_right_a_row_is(task, scores, human, expected):
    found = right(np.array([scores], dtype=float), np.array([human], dtype=float), task)
    np.testing.assert_allclose(found, [expected])


def test_the_figure_is_the_mean_over_scored_rows_or_the_correlation():
    pairs = np.array([[7, 3], [3, 7], [NAN, NAN]]), np.array([[1.0, 0], [1, 0], [1, 0]])
    assert figure(*pairs, "pair") == 0.5
    ratings = np.array([[1.0], [2], [3], [NAN]]), np.array([[2.0], [4], [6], [8]])
    assert figure(*ratings, "rating") == pytest.approx(1)
    assert math.isnan(figure(np.array([[2.0], [2]]), np.array([[1.0], [2]]), "rating"))
    assert math.isnan(figure(np.array([[NAN, NAN]]), np.array([[1.0, 0]]), "pair"))
