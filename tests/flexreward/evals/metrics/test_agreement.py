import math

import numpy as np
import pytest
from sklearn import metrics as sk

from flexreward.evals.metrics.agreement import (
    ACCURACY,
    AUROC,
    BASE_RATE,
    KAPPA,
    classes,
    credit,
    macro_f1,
    macro_precision,
    macro_recall,
    tie_calibrated,
)
from flexreward.evals.winners import TIE, UNREAD

SAID = np.array([0, 0, 0, 1, 1, TIE])
CHOSEN = np.array([0, 0, 1, 1, TIE, TIE])


def test_choices_by_hand():
    assert ACCURACY.exact(SAID, CHOSEN) == 4 / 6
    assert BASE_RATE.exact(SAID) == 3 / 6
    assert macro_recall(classes(SAID)).exact(SAID, CHOSEN) == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert macro_precision(classes(SAID)).exact(SAID, CHOSEN) == pytest.approx((1 + 1 / 2 + 1 / 2) / 3)
    chance = (3 * 2 + 2 * 2 + 1 * 2) / 36
    assert KAPPA.exact(SAID, CHOSEN) == pytest.approx((4 / 6 - chance) / (1 - chance))


def test_figures_are_scikit_learns():
    assert macro_f1(classes(SAID)).exact(SAID, CHOSEN) == pytest.approx(sk.f1_score(SAID, CHOSEN, average="macro"))
    assert KAPPA.exact(SAID, CHOSEN) == pytest.approx(sk.cohen_kappa_score(SAID, CHOSEN))


def test_what_cannot_be_read_agrees_with_nobody():
    chosen = np.array([0, 0, UNREAD, 1, UNREAD, UNREAD])
    assert ACCURACY.exact(SAID, chosen) == 3 / 6
    assert macro_recall(classes(SAID)).exact(SAID, chosen) == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)


def test_a_perfect_judge_has_all_figures_at_one_where_people_never_tie():
    said = np.array([0, 1, 1])
    for metric in (macro_f1(classes(said)), macro_precision(classes(said)), macro_recall(classes(said)), KAPPA):
        assert metric.exact(said, said) == 1


def test_a_class_that_is_never_chosen_counts_zero():
    assert macro_precision((0, 1)).exact(np.array([0, 1]), np.array([0, 0])) == (0.5 + 0) / 2


def test_kappa_of_one_and_the_same_choice_is_not_defined():
    assert math.isnan(KAPPA.exact(np.zeros(3, dtype=int), np.zeros(3, dtype=int)))
    assert KAPPA.exact(np.array([0, 1, 0, 1]), np.zeros(4, dtype=int)) == 0


def test_auroc_pools_the_completions_of_all_rows():
    scores = np.array([[8.0, 3.0], [5.0, 5.0], [2.0, np.nan]])
    good = np.array([[True, False], [False, True], [True, False]])
    # Good ones 8, 5, 2 against bad ones 3, 5: of six pairs 8 wins two, 5 one and a half, 2 none.
    assert AUROC.exact(scores, good) == pytest.approx(3.5 / 6)
    assert AUROC.exact(scores, good) == pytest.approx(sk.roc_auc_score([1, 0, 0, 1, 1], [8, 3, 5, 5, 2]))
    assert math.isnan(AUROC.exact(scores, np.zeros((3, 2), dtype=bool)))


def test_one_right_among_several_gets_its_share_of_a_shared_first_place():
    scores = np.array([[9.0, 2, 2, 1], [7, 7, 1, 1], [5, 5, 5, 5], [1, 9, 1, 1], [np.nan] * 4])
    good = np.arange(4) == np.zeros((5, 1))
    assert credit(scores, good).tolist() == [1, 1 / 2, 1 / 4, 0, 0]


def test_the_threshold_gives_credit_for_ties_that_are_nearly_tied():
    judge = np.array([[4.0], [3.0], [-0.5], [0.5], [-3.0]])
    human = np.array([[1.0], [1.0], [0.0], [0.0], [1.0]])
    # Without a threshold the first two of five are right; up to 0.5 the two ties of people are as well.
    assert tie_calibrated(judge, human) == (4 / 5, 0.5)


def test_a_judge_that_never_errs_needs_no_threshold():
    human = np.array([[1.0], [-1.0], [0.0]])
    assert tie_calibrated(human * 3, human) == (1, 0)


def test_the_threshold_is_the_best_of_all_by_exhaustion():
    rng = np.random.default_rng(0)
    for _ in range(20):
        human = rng.integers(-1, 2, (40, 3)).astype(float)
        judge = np.round(human + rng.normal(0, 1.5, (40, 3)), 1)
        judge[rng.random((40, 3)) < 0.1] = np.nan
        told = ~np.isnan(judge)
        found = {
            epsilon: np.mean(np.where(np.abs(judge) <= epsilon, 0, np.sign(judge))[told] == human[told])
            for epsilon in [0.0, *np.abs(judge[told])]
        }
        best = tie_calibrated(judge, human)
        assert best.accuracy == pytest.approx(max(found.values()))
        assert found[best.epsilon] == pytest.approx(best.accuracy)
        assert all(value < best.accuracy - 1e-12 for epsilon, value in found.items() if epsilon < best.epsilon)
