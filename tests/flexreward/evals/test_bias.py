import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from flexreward.evals.bias import bias, length_bias, position_bias, score_use
from flexreward.evals.table import Table, table_of
from flexreward.types import Scale

FIRST, SECOND, TIED = [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]


def line(human: list[float], *orders: list[float] | None, words: list[int] | None = None) -> dict[str, Any]:
    """A row shown forward, then reversed; scores in the order of the request."""
    read = [scores for scores in orders if scores]
    scores = np.mean(read, axis=0).tolist() if len(read) == len(orders) else None
    places = list(range(len(human)))
    votes = [{"scores": one, "reason": None if one else "no_answer", "reply": ""} for one in orders]
    return {
        **{"id": "", "human": human, "group": "", "systems": [], "words": words or [None] * len(human), "columns": {}},
        **{"scores": scores, "reason": None if scores else "quorum", "tokens": {"prompt": 1, "completion": 1}},
        "orders": [{"order": places[:: -1 if i else 1], "votes": [vote]} for i, vote in enumerate(votes)],
    }


def table(*lines: dict[str, Any]) -> Table:
    return table_of(one | {"id": str(number)} for number, one in enumerate(lines))


def value(part: dict[str, Any], name: str) -> float:
    return part[name]["value"]


def test_position_bias_by_hand():
    rows = table(
        line(FIRST, [8, 3], [8, 3]),  # the same choice both times
        line(FIRST, [8, 3], [3, 8]),  # whatever stands first
        line(SECOND, [8, 3], [3, 8]),
        line(SECOND, [3, 8], [8, 3]),  # whatever stands second
        line(TIED, [5, 5], [8, 3]),  # a tie, then the second slot
        line(SECOND, [8, 3], None),
    )
    found = position_bias(rows)
    assert value(found, "flips") == 4 / 5
    assert value(found, "always_slot_1") == 2 / 5
    assert value(found, "always_slot_2") == 1 / 5
    assert value(found, "tie_in_one") == 1 / 5
    # Of ten choices: 1 of 2, 2 of 2, 2 of 2, 0 of 2, 0 of 1, 1 of 1.
    assert value(found, "slot_1") == 6 / 10
    assert value(found, "ties_in_one_order") == 1 / 11
    assert value(found, "ties") == 3 / 5
    assert value(found, "people_ties") == 1 / 5
    assert found["slot_1"]["n"] == 10
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(("scores", "flips", "slot_1"), [
    ([[8, 3], [3, 8]], 1, 1),
    ([[3, 8], [8, 3]], 1, 0),
    ([[8, 3], [8, 3]], 0, 0.5),
])  # fmt: skip
def test_a_judge_that_follows_the_place_is_seen_to(scores, flips, slot_1):
    found = position_bias(table(*[line(FIRST, *scores)] * 10))
    assert (value(found, "flips"), value(found, "slot_1")) == (flips, slot_1)
    assert value(found, "people_slot_1") == 0.5  # shown in both orders, each stands there once


def test_in_one_order_people_say_how_often_slot_1_should_win():
    found = position_bias(table(*[line(FIRST, [8, 3])] * 9, line(SECOND, [8, 3])))
    assert (value(found, "slot_1"), value(found, "people_slot_1")) == (1, 0.9)
    assert "flips" not in found


def test_exchanging_the_completions_of_every_row_moves_nothing():
    rng = np.random.default_rng(0)
    rows, mirrored = [], []
    for _ in range(100):
        human = [FIRST, SECOND, TIED][rng.integers(3)]
        one, other = rng.integers(1, 9, 2).tolist(), rng.integers(1, 9, 2).tolist()
        rows.append(line(human, one, other))
        mirrored.append(line(human[::-1], other[::-1], one[::-1]))
    there, back = position_bias(table(*rows)), position_bias(table(*mirrored))
    assert there == back


def test_by_margin_the_close_calls_are_the_ones_that_flip():
    rows = [line(FIRST, [6, 5], [4, 5])] * 20 + [line(FIRST, [9, 2], [8, 2])] * 30 + [line(FIRST, [8, 4], [8, 4])] * 20
    close, *clear = position_bias(table(*rows))["by_margin"]
    assert (close["low"], close["high"], close["n"], close["flips"], close["accuracy"]) == (0, 0, 20, 1, 0)
    assert sum(part["n"] for part in clear) == 50
    assert all(part["flips"] == 0 and part["accuracy"] == 1 and part["slot_1"] == 0.5 for part in clear)
    assert [part["low"] for part in clear] == sorted(part["low"] for part in clear)


def test_each_of_few_margins_is_a_part_of_its_own_however_frequent_one_is():
    rows = [line(FIRST, [1, 0], [1, 0])] * 90 + [line(FIRST, [1, 0], [1, 1])] * 4 + [line(FIRST, [1, 0], [0, 1])] * 6
    parts = position_bias(table(*rows))["by_margin"]
    assert [(part["low"], part["n"], part["flips"]) for part in parts] == [(0, 6, 1), (0.5, 4, 1), (1, 90, 0)]


def test_rows_of_four_know_their_first_slot_and_their_last():
    human = [3.0, 2, 1, 0]
    found = position_bias(table(line(human, [9, 5, 4, 3], [1, 2, 3, 9]), line(human, [9, 1, 1, 1], [9, 2, 1, 1])))
    assert (value(found, "always_slot_1"), value(found, "always_slot_2")) == (0.5, 0)
    assert value(found, "slot_1") == 3 / 4
    reverse = position_bias(table(line(human, [1, 2, 3, 9], [9, 5, 4, 3])))
    assert value(reverse, "always_slot_2") == 1


def preferring(choose: Callable[[int, int], list[float]], num: int = 400) -> Table:
    """Rows of all lengths, where people prefer the longer in six of ten, judged by its lengths alone."""
    rng = np.random.default_rng(0)
    lines = []
    for _ in range(num):
        one, other = rng.integers(10, 200, 2).tolist()
        longer_wins = rng.random() < 0.6
        human = FIRST if (one > other) == longer_wins else SECOND
        lines.append(line(human, choose(one, other), words=[one, other]))
    return table(*lines)


def test_a_judge_that_likes_length_wins_more_of_the_longer_than_people_do():
    found = length_bias(preferring(lambda one, other: [8, 3] if one > other else [3, 8]), "pair")
    assert value(found, "judge") == 1
    assert value(found, "people") == pytest.approx(0.6, abs=0.06)
    assert found["difference"]["difference"] == pytest.approx(1 - value(found, "people"))
    assert found["difference"]["low"] > 0.3
    assert found["difference"]["p"] < 0.01
    assert sum(part["n"] for part in found["bins"]) == found["judge"]["n"]
    assert all(one["high"] < other["low"] for one, other in zip(found["bins"], found["bins"][1:], strict=False))


def test_a_judge_that_ties_wins_half():
    found = length_bias(preferring(lambda one, other: [5, 5]), "pair")
    assert [part["judge"] for part in found["bins"]] == [0.5] * len(found["bins"])


def test_only_a_bias_beyond_people_is_told_as_one():
    rows = table(*[line(FIRST, [8, 3], words=[20, 10]), line(SECOND, [2, 4], words=[20, 10])] * 30)
    difference = length_bias(rows, "pair")["difference"]
    assert (difference["difference"], difference["p"]) == (0, 1)


def test_completions_of_the_same_length_or_of_none_say_nothing_of_length():
    same, none = line(FIRST, [8, 3], words=[7, 7]), line(FIRST, [8, 3])
    assert length_bias(table(same, none), "pair") == {}
    longer = line(SECOND, [8, 3], words=[9, 7])
    assert length_bias(table(same, none, longer), "pair")["judge"] == {"value": 1, "low": 1, "high": 1, "n": 1}


def test_each_two_completions_of_a_row_are_compared():
    found = length_bias(table(line([2.0, 1, 0], [9, 5, 5], words=[3, 2, 1])), "ranking")
    assert (value(found, "people"), value(found, "judge"), found["judge"]["n"]) == (1, 2.5 / 3, 3)


def test_length_of_a_rated_completion_is_told_by_its_correlation():
    lines = [line([float(i % 3)], [float(i)], words=[10 * i]) for i in range(30)]
    found = length_bias(table(*lines), "rating")
    assert value(found, "judge") == pytest.approx(1)
    assert abs(value(found, "people")) < 0.3
    assert found["difference"]["low"] > 0.3


def test_scores_at_the_ends_of_the_scale_are_counted():
    rows = table(line(FIRST, [10, 1], [10, 4]), line(FIRST, [10, 7], None))
    found = score_use(rows, Scale(low=1, high=10))
    assert (found["n"], found["values"], found["at_low"], found["at_high"]) == (6, 4, 1 / 6, 3 / 6)
    assert (found["most"], found["most_share"]) == (10, 0.5)
    assert found["histogram"][0] == {"low": 1, "high": 1, "n": 1}
    assert score_use(rows)["at_low"] == 1 / 6  # without a scale, of what was given
    assert score_use(rows, Scale(low=0, high=10))["at_low"] == 0


def test_many_different_scores_share_bins():
    rows = table(*(line(FIRST, [i / 128, 1 - i / 128]) for i in range(129)))
    found = score_use(rows, Scale(low=0, high=1))
    assert found["values"] == 129
    assert len(found["histogram"]) == 20
    assert sum(part["n"] for part in found["histogram"]) == found["n"] == 258


def test_parts_that_a_run_cannot_tell_are_left_out():
    assert bias(SimpleNamespace(task="pair"), table(line(FIRST, None))) == {}
    rated = bias(SimpleNamespace(task="rating"), table(line([3.0], [4.0])))
    assert list(rated) == ["scores"]
    paired = bias(SimpleNamespace(task="pair"), table(line(FIRST, [8, 3], [7, 3], words=[1, 2])))
    assert list(paired) == ["position", "length", "scores"]
    json.dumps(paired, allow_nan=False)
