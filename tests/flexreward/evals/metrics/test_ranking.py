import math
from itertools import permutations

import numpy as np
import pytest

from flexreward.evals.metrics.ranking import MOST_ORDERS, edits, levenshtein, orders, tau


@pytest.mark.parametrize(("one", "other", "distance"), [
    ("ABCD", "ABCD", 0),
    ("ABCD", "ABDC", 2),
    ("ABCD", "DCBA", 4),
    ("ABCD", "BCDA", 2),  # one left out in front, one put in at the end
    ("ABCD", "ABC", 1),
])  # fmt: skip
def test_edits_by_hand(one, other, distance):
    assert edits(tuple(map(ord, one)), tuple(map(ord, other))) == distance
    assert edits(tuple(map(ord, other)), tuple(map(ord, one))) == distance


def test_scores_become_an_order_best_first():
    assert list(orders((3.0, 1.0, 9.0))) == [(2, 0, 1)]
    assert set(orders((3.0, 9.0, 3.0))) == {(1, 0, 2), (1, 2, 0)}
    assert len(set(orders((1.0,) * 4))) == 24


def test_of_too_many_orders_a_part_is_drawn_and_always_the_same():
    found = list(orders((1.0,) * 9))
    assert len(found) == MOST_ORDERS
    assert found == list(orders((1.0,) * 9))
    assert all(sorted(order) == list(range(9)) for order in found[:50])


def test_a_tie_is_the_mean_over_the_orders_it_stands_for():
    human = np.array([[3.0, 2, 1, 0]])
    # 7 7 5 1 stands for ABCD, which is people's, and BACD, which is two edits away.
    assert levenshtein(np.array([[7.0, 7, 5, 1]]), human).tolist() == [(0 + 2) / 2 / 4]
    alike = levenshtein(np.array([[5.0] * 4]), human)[0]
    assert alike == pytest.approx(np.mean([edits(order, (0, 1, 2, 3)) for order in permutations(range(4))]) / 4)


def test_ties_of_people_are_read_the_same_way():
    judge, human = np.array([[4.0, 3, 2, 1]]), np.array([[2.0, 2, 1, 0]])
    assert levenshtein(judge, human) == levenshtein(human, judge) == [(0 + 2) / 2 / 4]


def test_names_of_the_completions_do_not_matter():
    rng = np.random.default_rng(0)
    judge, human = rng.integers(1, 5, (50, 4)).astype(float), rng.random((50, 4))
    mixed = rng.permutation(4)
    assert levenshtein(judge[:, mixed], human[:, mixed]) == pytest.approx(levenshtein(judge, human))
    assert tau(judge[:, mixed], human[:, mixed]) == pytest.approx(tau(judge, human))


def test_an_unscored_row_has_no_distance_and_padding_is_no_completion():
    judge = np.array([[np.nan] * 4, [2.0, 1.0, np.nan, np.nan]])
    human = np.array([[3.0, 2, 1, 0], [1.0, 2.0, np.nan, np.nan]])
    found = levenshtein(judge, human)
    assert math.isnan(found[0])
    assert found[1] == 1
    assert math.isnan(tau(judge, human)[0])
    assert tau(judge, human)[1] == -1


def test_an_order_of_nothing_but_ties_goes_neither_way():
    assert tau(np.array([[5.0] * 4]), np.array([[3.0, 2, 1, 0]])).tolist() == [0]
