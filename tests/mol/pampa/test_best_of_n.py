import numpy as np
import pytest

from flexreward.types import Reason
from mol.pampa.asking import Answer, Candidate
from mol.pampa.best_of_n import choose, counts, discrimination, spread_of
from mol.pampa.recipe import BestOfN


def best(**more) -> BestOfN:
    judging = {"system": "", "user": "<mol> {completion}", "bins": [5.0], **more.pop("judging", {})}
    fields = {"candidates": 4, "n": [4], "trials": 10, "judge": {"model": "j"}, "judging": judging} | more
    return BestOfN.model_validate(fields)


def candidate(label: int, score: float | None) -> Candidate:
    answer = Answer(text="x", label=label, reason=Reason.NO_ANSWER if label < 0 else None, published=label)
    return Candidate(answer=answer, score=score, published_score=score, reason=Reason.NO_END if score is None else None)


FOUR = [candidate(1, 3.0), candidate(0, 8.0), candidate(1, 6.0), candidate(0, 2.0)]


def test_the_best_score_is_chosen_and_the_margin_is_told():
    found = choose({"CCO": FOUR}, ["CCO"], best(), n=4, seed=0)
    assert found.labels_NT.tolist() == [[0] * 10]
    assert found.scores_NT.tolist() == [[6.0 - 8.0] * 10]


def test_molecules_are_matched_by_name_and_never_by_their_place():
    other = [candidate(1, 9.0)] * 4
    one = choose({"CCO": FOUR, "CCN": other}, ["CCO", "CCN"], best(), n=4, seed=0)
    turned = choose({"CCN": other, "CCO": FOUR}, ["CCN", "CCO"], best(), n=4, seed=0)
    assert one.labels_NT.tolist() == turned.labels_NT[::-1].tolist()


def test_a_tie_is_drawn_by_the_seed_and_by_nothing_else():
    tied = {f"m{i}": [candidate(1, 7.0), candidate(0, 7.0), candidate(1, 1.0), candidate(0, 1.0)] for i in range(50)}
    names = list(tied)
    found = choose(tied, names, best(), n=4, seed=0)
    assert 0.4 < found.labels_NT.mean() < 0.6
    assert len({tuple(row) for row in found.labels_NT.tolist()}) > 1
    again = choose(dict(reversed(tied.items())), names, best(), n=4, seed=0)
    assert (again.labels_NT == found.labels_NT).all()
    assert (choose(tied, names, best(), n=4, seed=1).labels_NT != found.labels_NT).any()


def test_fewer_than_all_are_drawn_for_each_trial_alike_for_all_molecules():
    found = choose({"a": FOUR, "b": FOUR}, ["a", "b"], best(), n=1, seed=0)
    assert set(found.labels_NT.ravel().tolist()) == {0, 1}
    assert (found.labels_NT[0] == found.labels_NT[1]).all()


def test_a_molecule_without_a_score_is_unread_and_counted():
    none = {"CCO": [candidate(1, None)] * 4, "CCN": FOUR}
    found = choose(none, ["CCO", "CCN", "missing"], best(), n=4, seed=0)
    assert found.labels_NT[0].tolist() == [-1] * 10
    assert found.labels_NT[2].tolist() == [-1] * 10
    assert np.isnan(found.scores_NT[0]).all()
    assert counts(none, ["CCO", "CCN"]) == {
        "candidates": 8,
        "unread": {},
        "unscored": {"no_end": 4},
        "molecules_without_a_score": 1,
    }


def test_an_unread_candidate_can_be_chosen_and_is_then_unread():
    found = choose({"CCO": [candidate(-1, 9.0), *FOUR[1:]]}, ["CCO"], best(), n=4, seed=0)
    assert found.labels_NT.tolist() == [[-1] * 10]


def test_a_threshold_of_the_recipe_lets_nobody_be_chosen_below_it():
    found = choose({"CCO": FOUR}, ["CCO"], best(judging={"threshold": 8.5}), n=4, seed=0)
    assert found.labels_NT.tolist() == [[-1] * 10]


def test_a_judge_that_only_knows_the_label_has_an_area_of_one_half_within_it():
    names = [f"m{i}" for i in range(40)]
    truth = np.array([1] * 30 + [0] * 10)
    blind = {name: [candidate(1, 8.0), candidate(0, 3.0)] for name in names}
    high, low = discrimination(blind, names, truth, best(), clusters=np.arange(40), seed=0)
    assert (high["count"], high["right"]) == (40, 30)
    assert (low["count"], low["right"]) == (40, 10)
    assert [cell["count"] for cell in high["bins"]] == [0, 40]
    assert high["auroc"]["value"] == 0.5


def test_a_judge_that_knows_more_ranks_right_above_wrong_within_a_label():
    names = [f"m{i}" for i in range(40)]
    truth = np.array([1] * 30 + [0] * 10)
    seeing = {name: [candidate(1, 8.0 if is_high else 4.0)] for name, is_high in zip(names, truth, strict=True)}
    high, low = discrimination(seeing, names, truth, best(), clusters=np.arange(40), seed=0)
    assert [(cell["right"], cell["count"]) for cell in high["bins"]] == [(0, 10), (30, 30)]
    assert high["auroc"]["value"] == 1
    assert (low["count"], low["auroc"]["value"]) == (0, None)


def test_trials_that_agree_have_no_deviation():
    found = choose({"CCO": FOUR, "CCN": FOUR}, ["CCO", "CCN"], best(), n=4, seed=0)
    assert spread_of(np.array([1, 0]), found)["accuracy"] == pytest.approx(0)
