"""The bench of stopped votes counts what it says."""

import pytest

from flexreward.bench.votes import AGREEMENTS, PAIR, VOTES, replies, saved, saved_bars, statistical_bars
from flexreward.engines.base import Prompt
from flexreward.types import JudgeRequest


async def test_of_two_votes_nothing_can_be_saved_and_of_three_that_agree_the_last_is_cut():
    none = await saved(2, 1.0, 20)
    assert (set(none.side_by_side), set(none.one_by_one), none.num_same) == ({0.0}, {0.0}, 20)
    found = await saved(3, 1.0, 50)
    lengths = [[reply.completion_tokens for reply in replies(asked(i), 3, 1.0)] for i in range(50)]
    assert found.num_same == 50
    assert found.tokens == pytest.approx(sum(map(sum, lengths)) / 50)
    assert found.side_by_side == pytest.approx([max(c - max(a, b), 0) / (a + b + c) for a, b, c in lengths])
    assert found.in_parts == found.one_by_one
    assert found.one_by_one == pytest.approx([c / (a + b + c) for a, b, c in lengths])


def asked(number: int) -> Prompt:
    return PAIR.render(JudgeRequest(prompt=f"{number}?", completions=("a", "b")))


def test_replies_agree_as_often_as_is_said():
    said = [[reply.text for reply in replies(asked(i), 15, 0.8)] for i in range(300)]
    kept = sum(max(texts.count(text) for text in set(texts)) for texts in said) / (15 * 300)
    assert 0.78 < kept < 0.84


def test_every_number_of_votes_and_every_agreement_has_its_bars_and_all_verdicts_are_equal():
    bars = saved_bars(num_requests=8)
    assert len(bars) == 3 * len(VOTES) * len(AGREEMENTS) + 1
    equal = bars.pop("verdicts_equal_to_the_full_vote")
    assert (equal.value, equal.goal, equal.n) == (1, 1, 8 * 15)
    assert all(0 <= bar.value < 1 and bar.interval.low <= bar.value <= bar.interval.high for bar in bars.values())
    sure, unsure = (bars[f"tokens_saved_one_by_one_of_15_votes_at_{a}"].value for a in ("0.95", "0.6"))
    assert sure > unsure


def test_the_statistical_stop_keeps_at_least_the_verdicts_that_it_states_and_saves_replies():
    bars = statistical_bars(num_votes=600)
    kept = {name: bar for name, bar in bars.items() if name.startswith("verdicts_kept")}
    assert len(kept) == 8
    assert all(bar.goal == 0.95 and bar.interval.high >= 0.95 for bar in kept.values())
    assert min(bar.value for bar in kept.values()) < 1  # of a judge that is torn, some are lost
    assert bars["replies_saved_at_error_0.05_of_15_votes_at_0.95"].value > 0.45
