"""What a folder of pairs comes to, from counts that add up."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from flexreward.cli import run
from flexreward.files.samples import Origin, Sample
from flexreward.pairs.card import told
from flexreward.pairs.keep import JudgedPair, disagreement
from flexreward.pairs.study import Study, length_bin, share
from flexreward.types import Scale

SCALE = Scale(low=1, high=10)
SCORES = st.tuples(st.integers(1, 10), st.integers(1, 10))


def sample(right=(), temperatures=()) -> Sample:
    origins = tuple(Origin(temperature=temperature) for temperature in temperatures)
    return Sample(id="q", prompt="p", completions=("a", "b"), origins=origins, extra={"right": list(right)})


def pair(first, second, lengths=(1, 1)) -> JudgedPair:
    scores = tuple((a + b) / 2 for a, b in zip(first, second, strict=True)) if first and second else None
    return JudgedPair(id="q#0-1", indices=(0, 1), scores=scores, orders=(first, second), lengths=lengths)


def study_of(*pairs, samples=None, drop=()) -> Study:
    study = Study(SCALE, "right")
    for i, one in enumerate(pairs):
        reason = "margin" if i in drop else disagreement(one)
        study.add(samples[i] if samples else sample(), one, reason)
    return study


def test_the_yield_counts_every_judged_pair_by_what_became_of_it():
    pairs = [pair((8, 3), (7, 2)), pair((8, 3), (3, 8)), pair((5, 5), (5, 5)), pair((8, 3), None), pair((8, 7), (8, 7))]
    found = study_of(*pairs, drop=[4]).summary()["yield"]
    assert found["by_outcome"] == {"kept": 1, "flipped": 1, "margin": 1, "tied": 1, "unscored": 1}
    assert found["kept"]["value"] == 0.2
    assert found["kept"]["low"] == pytest.approx(0.0362, abs=1e-4)
    assert found["kept"]["high"] == pytest.approx(0.6245, abs=1e-4)


def test_flips_are_shares_of_the_readable_pairs_by_margin_and_by_length():
    pairs = [
        pair((8, 3), (3, 8), (10, 30)),
        pair((9, 1), (5, 6), (10, 10)),
        pair((9, 1), (9, 1), (10, 10)),
        pair((9, 1), None, (10, 10)),
    ]
    flips = study_of(*pairs).summary()["flips"]
    assert (flips["value"], flips["n"]) == (2 / 3, 3)
    assert [(one["from"], one["to"], one["value"]) for one in flips["by_margin"]] == [(0, 1, 1), (3, 4, 1), (8, 9, 0)]
    assert [(one["from"], one["to"], one["value"]) for one in flips["by_length"]] == [(1, 1, 0.5), (2, 4, 1)]


def test_agreement_with_the_truth_is_over_pairs_of_which_one_is_better_and_one_wins():
    pairs = [
        pair((8, 3), (8, 3)),
        pair((3, 8), (3, 8)),
        pair((5, 5), (5, 5)),
        pair((8, 3), (8, 3)),
        pair((2, 9), (9, 4)),
    ]
    samples = [sample(right) for right in ([True, False], [1, 0], [True, False], [True, True], [1.0, 0.5])]
    truth = study_of(*pairs, samples=samples).summary()["truth"]
    assert (truth["differ"], truth["undecided"]) == (4, 1)
    assert (truth["before"]["value"], truth["before"]["n"]) == (1 / 3, 3)
    assert (truth["after"]["value"], truth["after"]["n"]) == (0.5, 2)


@pytest.mark.parametrize("right", [(), (1,), ("yes", "no"), (None, 1)])
def test_a_column_that_does_not_say_it_of_each_completion_is_no_truth(right):
    assert "truth" not in study_of(pair((8, 3), (8, 3)), samples=[sample(right)]).summary()


def test_the_longer_and_the_earlier_win_so_often_before_and_after():
    pairs = [
        pair((8, 3), (8, 3), (9, 2)),
        pair((8, 3), (2, 3), (9, 2)),
        pair((1, 3), (1, 3), (9, 2)),
        pair((1, 2), (1, 2)),
    ]
    found = study_of(*pairs).summary()
    assert (found["longer_won"]["before"]["value"], found["longer_won"]["before"]["n"]) == (2 / 3, 3)
    assert (found["longer_won"]["after"]["value"], found["longer_won"]["after"]["n"]) == (0.5, 2)
    assert found["earlier_won"]["before"]["value"] == 0.5
    assert found["earlier_won"]["after"]["value"] == 1 / 3


def test_a_judge_of_the_place_alone_names_slot_1_each_time_and_kept_pairs_name_both_slots_alike():
    found = study_of(pair((8, 3), (3, 8)), pair((9, 2), (2, 9)), pair((8, 3), (8, 3))).summary()["slot_1"]
    assert (found["before"]["value"], found["before"]["n"]) == (5 / 6, 6)
    assert (found["after"]["value"], found["after"]["n"]) == (0.5, 2)


def test_the_cooler_sample_wins_so_often():
    pairs = [pair((8, 3), (8, 3)), pair((8, 3), (8, 3)), pair((8, 3), (8, 3))]
    samples = [sample(temperatures=t) for t in ((0.8, 1.2), (1.2, 0.8), (1.2, 1.2))]
    [found] = study_of(*pairs, samples=samples).summary()["temperatures"]
    assert found["temperatures"] == [0.8, 1.2]
    assert (found["cooler_won"]["before"]["value"], found["cooler_won"]["before"]["n"]) == (0.5, 2)


@given(st.lists(st.tuples(SCORES, st.none() | SCORES, st.tuples(st.integers(0, 50), st.integers(0, 50))), max_size=20))
def test_studies_of_parts_add_up_to_the_study_of_the_whole(drawn):
    pairs = [pair(*one) for one in drawn]
    half = len(pairs) // 2
    assert (study_of(*pairs[:half]) + study_of(*pairs[half:])).summary() == study_of(*pairs).summary()
    histograms = study_of(*pairs).summary()["histograms"]
    readable = sum(one.readable for one in pairs)
    assert sum(histograms["length"]["kept"] + histograms["length"]["dropped"]) == len(pairs)
    assert sum(histograms["margin"]["kept"] + histograms["margin"]["dropped"]) == readable
    assert sum(histograms["score"]["kept"] + histograms["score"]["dropped"]) == 2 * readable


def test_a_study_of_many_pairs_is_no_larger_than_one_of_few():
    rng = random.Random(0)

    def draw():
        return pair(*[(rng.randint(1, 10), rng.randint(1, 10))] * 2, lengths=(rng.randint(1, 9), rng.randint(1, 9)))

    assert len(study_of(*(draw() for _ in range(20_000))).cells) < 600


@pytest.mark.parametrize(
    ("lengths", "bin"),
    [((0, 0), 0), ((7, 7), 0), ((10, 11), 1), ((20, 10), 4), ((10, 40), 5), ((41, 10), 6), ((0, 1), 6)],
)
def test_lengths_are_binned_by_how_many_times_the_longer_one_is_as_long(lengths, bin):
    assert length_bin(lengths) == bin


@pytest.mark.parametrize(("num", "of"), [(0, 3), (3, 3), (1, 7), (412_345, 1_000_000)])
def test_the_interval_of_a_share_is_that_of_scipy(num, of):
    found = share(num, of)
    low, high = binomtest(num, of).proportion_ci(method="wilson")
    assert (found["low"], found["high"]) == pytest.approx((low, high), abs=1e-12)


def test_a_share_of_nothing_has_no_value():
    assert share(0, 0) == {"value": None, "low": None, "high": None, "n": 0}


def test_the_folder_and_the_json_tell_of_the_study_and_another_rule_changes_it(tmp_path, capsys):
    source, out = tmp_path / "s.jsonl", tmp_path / "pairs"
    rows = [{"prompt": f"p{i}", "completions": ["x" * 9, "x" * 99], "right": [i % 4 == 0, True]} for i in range(8)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ["pairs", str(source), "--out", str(out), "--judge", "scripted:longer", "--no-store", "--json"]
    assert run(options) == 0
    study = json.loads(capsys.readouterr().out)["study"]
    assert study == json.loads((out / "summary.json").read_text())["study"]
    assert (study["truth"]["before"]["value"], study["truth"]["before"]["n"]) == (1, 6)
    assert study["longer_won"]["after"]["value"] == 1
    card = (out / "README.md").read_text()
    assert "The winner is the longer in 100.0 % (67.6 to 100.0, n 8) of the pairs with a winner" in card
    assert "By `right` the better one wins in 100.0 %" in card
    assert run([*options, "--keep", "ratio=2"]) == 0
    capsys.readouterr()
    study = json.loads((out / "summary.json").read_text())["study"]
    assert study["yield"]["by_outcome"] == {"ratio": 8}
    assert study["truth"]["after"]["value"] is None
    assert told(study)[0] == "0.0 % (0.0 to 32.4, n 8) of the judged pairs are kept."


def test_a_truth_that_is_named_must_be_there_and_is_no_matter_of_a_policy(tmp_path, capsys):
    source = tmp_path / "s.jsonl"
    source.write_text(json.dumps({"prompt": "p", "completions": ["a", "b"], "good": [1]}) + "\n")
    options = ["pairs", str(source), "--out", str(tmp_path / "pairs"), "--judge", "scripted:longer", "--no-store"]
    assert run([*options, "--truth", "good"]) == 2
    assert "--truth good has 1 values for 2 completions" in capsys.readouterr().err
    assert run([*options, "--truth", "good", "--policy", "tiny"]) == 2
    assert "--right tells of those" in capsys.readouterr().err
