"""Which pairs a folder holds for a reader."""

from __future__ import annotations

import json
from collections import Counter

from flexreward.files.samples import Sample
from flexreward.pairs.keep import JudgedPair
from flexreward.pairs.shown import Shown


def shown_of(outcomes, **limits) -> list[dict]:
    shown = Shown(**limits)
    sample = Sample(id="q", prompt="p", completions=("a", "b"))
    for i, outcome in enumerate(outcomes):
        pair = JudgedPair(id=str(i), indices=(0, 1), scores=(2.0, 1.0), orders=((2.0, 1.0), (2.0, 1.0)))
        shown.offer(sample, pair, outcome, {"orders": [], "reason": None})
    return [json.loads(line) for line in shown.lines()]


def test_a_small_folder_shows_all_of_its_pairs_in_their_order():
    found = shown_of([None, "tied", None, "flipped"])
    assert [(line["id"], line["outcome"]) for line in found] == [
        *[("0", "kept"), ("1", "tied"), ("2", "kept"), ("3", "flipped")],
    ]


def test_a_large_one_shows_as_many_of_each_outcome_and_all_of_the_rare():
    outcomes = [None if i % 3 else "tied" for i in range(3_000)]
    outcomes[1_500:1_500] = ["flipped"] * 7
    found = shown_of(outcomes, most_pairs=107)
    assert Counter(line["outcome"] for line in found) == {"kept": 50, "tied": 50, "flipped": 7}
    ids = [int(line["id"]) for line in found if line["outcome"] == "kept"]
    assert ids == sorted(ids)
    assert found == shown_of(outcomes, most_pairs=107)
    # Drawn evenly: the first and the second half of the file are both there.
    assert 12 < sum(number < 1_500 for number in ids) < 38


def test_however_long_the_texts_are_what_is_held_is_bounded():
    found = shown_of([None] * 500, most_bytes=10_000)
    assert 20 < len(found) < 100
    assert sum(len(json.dumps(line)) for line in found) < 12_000


def test_one_pair_is_shown_even_where_it_is_larger_than_all_may_be():
    assert len(shown_of([None] * 3, most_bytes=1)) == 1
