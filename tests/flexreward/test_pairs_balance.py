"""Pairs whose winners are as often long as short, and as often first as second."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexreward.cli import run
from flexreward.errors import RecipeError
from flexreward.pairs.balance import Balance, earlier_won, longer_won, parse_balance
from flexreward.pairs.keep import JudgedPair

KINDS = st.tuples(st.booleans(), st.sampled_from([(5, 9), (9, 5), (7, 7)]))


def pairs_of(kinds) -> list[JudgedPair]:
    return [
        JudgedPair(
            id=f"q{i}#0-1",
            indices=(0, 1),
            scores=(2.0, 1.0) if first else (1.0, 2.0),
            orders=(),
            lengths=lengths,
        )
        for i, (first, lengths) in enumerate(kinds)
    ]


def kept(pairs, traits, *, seed=0) -> list[JudgedPair]:
    balance = Balance(traits, seed=seed)
    for pair in pairs:
        balance.show(pair)
    return [pair for pair in pairs if balance.reason(pair) is None]


@given(st.lists(KINDS, max_size=60))
def test_what_is_kept_is_balanced_in_every_trait_and_no_pair_could_be_added(kinds):
    pairs = pairs_of(kinds)
    found = kept(pairs, (longer_won, earlier_won))
    for trait in (longer_won, earlier_won):
        sides = Counter(trait(pair) for pair in found)
        assert sides[0] == sides[1]
    counts = Counter((longer_won(pair), earlier_won(pair)) for pair in pairs)
    opposites = [((1, 1), (0, 0)), ((1, 0), (0, 1)), ((None, 1), (None, 0))]
    assert len(found) == sum(2 * min(counts[one], counts[other]) for one, other in opposites)


def test_equal_lengths_are_no_surplus():
    pairs = pairs_of([(True, (7, 7))] * 3 + [(True, (9, 5))] * 2 + [(True, (5, 9))])
    assert [pair.lengths for pair in kept(pairs, (longer_won,))].count((7, 7)) == 3
    assert len(kept(pairs, (longer_won,))) == 5


def test_which_of_the_surplus_go_is_drawn_by_the_seed():
    pairs = pairs_of([(True, (9, 5))] * 40 + [(True, (5, 9))] * 20)
    assert kept(pairs, (longer_won,)) == kept(pairs, (longer_won,))
    assert kept(pairs, (longer_won,)) != kept(pairs, (longer_won,), seed=1)


def test_a_trait_that_is_none_is_named():
    assert parse_balance("") == ()
    assert parse_balance("length, position,length") == (longer_won, earlier_won)
    with pytest.raises(RecipeError, match="--balance 'lenght': expected length or position"):
        parse_balance("lenght")


def test_the_command_keeps_as_many_winners_that_stood_first_and_judges_nothing_anew(tmp_path, capsys):
    texts = [["a longer text", f"short {i}"] for i in range(3)] + [["short", "a longer text"]]
    rows = [{"id": f"q{i}", "prompt": "p", "completions": pair} for i, pair in enumerate(texts)]
    (tmp_path / "s.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["pairs", str(tmp_path / "s.jsonl"), "--out", str(tmp_path / "o"), "--judge", "scripted:longer"]
    assert run([*command, "--no-store"]) == 0
    judged = (tmp_path / "o/pair_outcomes.jsonl").read_bytes()
    assert run([*command, "--no-store", "--balance", "position"]) == 0
    assert (tmp_path / "o/pair_outcomes.jsonl").read_bytes() == judged
    kept = [json.loads(line) for line in (tmp_path / "o/train.jsonl").read_text().splitlines()]
    assert sorted(row["chosen_index"] for row in kept) == [0, 1]
    dropped = [json.loads(line)["reason"] for line in (tmp_path / "o/dropped.jsonl").read_text().splitlines()]
    assert dropped == ["unbalanced"] * 2
    assert run([*command, "--no-store", "--balance", "length"]) == 0  # all winners are longer
    assert (tmp_path / "o/train.jsonl").read_text() == ""
