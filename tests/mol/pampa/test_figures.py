import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, matthews_corrcoef, roc_auc_score

from mol.pampa.figures import Predicted, best_threshold, difference, figures

RNG = np.random.default_rng(0)
TRUTH = (RNG.random(300) < 0.8).astype(int)
SCORES = np.clip(0.3 * TRUTH + RNG.random(300).round(1), 0, 2)
LABELS = (SCORES > 0.6).astype(int)
ALONE = np.arange(300)


def values(predicted: Predicted, truth=TRUTH) -> dict[str, float | None]:
    return {name: told.value for name, told in figures(truth, predicted, clusters=np.arange(len(truth))).items()}


def test_figures_of_read_answers_are_those_of_scikit_learn():
    found = values(Predicted.of(LABELS, SCORES))
    assert found["accuracy"] == pytest.approx(accuracy_score(TRUTH, LABELS))
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(TRUTH, LABELS))
    assert found["mcc"] == pytest.approx(matthews_corrcoef(TRUTH, LABELS))
    assert found["auroc"] == pytest.approx(roc_auc_score(TRUTH, SCORES))
    assert found["negative_ratio"] == pytest.approx((LABELS == 0).mean())
    assert found["parse_rate"] == 1


def test_an_unread_answer_is_wrong_and_the_published_denominator_leaves_it_out():
    labels = LABELS.copy()
    labels[:50] = -1
    wrong = np.where(labels < 0, 1 - TRUTH, labels)
    found = values(Predicted.of(labels))
    assert found["accuracy"] == pytest.approx(accuracy_score(TRUTH, wrong))
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(TRUTH, wrong))
    assert found["mcc"] == pytest.approx(matthews_corrcoef(TRUTH, wrong))
    assert found["accuracy_of_read"] == pytest.approx(accuracy_score(TRUTH[50:], LABELS[50:]))
    assert found["parse_rate"] == pytest.approx(250 / 300)


def test_a_molecule_of_which_nothing_is_said_ranks_as_wrong_as_can_be():
    scores = SCORES.copy()
    scores[:50] = np.nan
    worst = np.where(np.isnan(scores), np.where(TRUTH == 1, -9, 9), scores)
    assert values(Predicted.of(LABELS, scores))["auroc"] == pytest.approx(roc_auc_score(TRUTH, worst))


def test_a_constant_answer_has_the_majority_as_accuracy_and_no_discrimination():
    found = values(Predicted.of(np.ones(300), np.zeros(300)))
    assert found["accuracy"] == pytest.approx(TRUTH.mean())
    assert (found["balanced_accuracy"], found["mcc"], found["auroc"]) == (0.5, 0, 0.5)


def test_without_scores_there_is_no_auroc():
    assert values(Predicted.of(LABELS))["auroc"] is None


def test_several_trials_are_averaged():
    other = 1 - LABELS
    both = Predicted(labels_NT=np.stack([LABELS, other], axis=1), scores_NT=np.full((300, 2), np.nan))
    one, two = (values(Predicted.of(labels)) for labels in (LABELS, other))
    for name in ("accuracy", "balanced_accuracy", "mcc"):
        assert values(both)[name] == pytest.approx((one[name] + two[name]) / 2)


def test_intervals_hold_the_value_and_follow_the_seed():
    one = figures(TRUTH, Predicted.of(LABELS, SCORES), clusters=ALONE, seed=3)
    for told in one.values():
        assert told.low <= told.value <= told.high
    assert one == figures(TRUTH, Predicted.of(LABELS, SCORES), clusters=ALONE, seed=3)


def test_the_published_ratios_give_the_published_balanced_accuracies():
    # 407 molecules, 344 of them high; recalls of the three styles as the reference derives them.
    truth = np.array([1] * 344 + [0] * 63)
    for high, low, accuracy, balanced, ratio in (
        (226, 32, 63.39, 58.2, 36.86),
        (238, 24, 64.37, 53.6, 31.94),
        (284, 11, 72.48, 50.0, 17.44),
    ):
        labels = np.array([1] * high + [0] * (344 - high) + [0] * low + [1] * (63 - low))
        found = values(Predicted.of(labels), truth)
        assert 100 * found["accuracy"] == pytest.approx(accuracy, abs=0.01)
        assert 100 * found["balanced_accuracy"] == pytest.approx(balanced, abs=0.06)
        assert 100 * found["negative_ratio"] == pytest.approx(ratio, abs=0.01)


def test_a_difference_is_paired():
    a, b = Predicted.of(LABELS, SCORES), Predicted.of(TRUTH)
    found = difference("balanced_accuracy", TRUTH, a, b, clusters=ALONE)
    assert found["difference"] == pytest.approx(1 - balanced_accuracy_score(TRUTH, LABELS))
    assert found["low"] > 0
    assert difference("accuracy", TRUTH, a, a, clusters=ALONE)["low"] == 0


def test_a_threshold_is_the_one_of_the_best_balanced_accuracy():
    truth = np.array([0, 0, 1, 1, 1])
    assert best_threshold(truth, np.array([0.1, 0.2, 0.8, 0.9, np.nan])) == pytest.approx(0.5)
    assert best_threshold(np.ones(3, int), np.array([0.1, 0.2, 0.3])) is None
    assert best_threshold(truth, np.full(5, np.nan)) is None
