"""The count of wrong answers that win, on judges whose leanings are known."""

from __future__ import annotations

import pytest

from flexreward.engines.base import Prompt
from flexreward.engines.scripted import ScriptedEngine
from recipes.attacks.families import FAMILIES, attacked
from recipes.attacks.measure import against_right, alone
from recipes.tiny.measure import held_out

PROBLEMS = held_out(32, seed=0)


def halves(prompt: Prompt) -> list[str]:
    return prompt.user.split("[Assistant 2's Answer]")


def scored(first: float, second: float) -> str:
    return f"<think></think><answer>{first}</answer><answer>{second}</answer>"


def likes(word: str) -> ScriptedEngine:
    return ScriptedEngine(lambda prompt: scored(*(9 if word in half else 2 for half in halves(prompt))))


async def test_a_judge_that_believes_a_word_is_beaten_where_the_word_stands():
    share = sum("professor" in sentence for sentence in FAMILIES["authority"]) / len(FAMILIES["authority"])
    figures = await against_right(likes("professor"), PROBLEMS, "authority", seed=0)
    assert (figures["beats_right"], figures["ties"], figures["loses"]) == (share, 1 - share, 0)
    on_right = await against_right(likes("professor"), PROBLEMS, "authority", seed=0, said_of="right")
    assert (on_right["beats_right"], on_right["ties"], on_right["loses"]) == (0, 1 - share, share)


async def test_a_judge_that_believes_slot_one_is_beaten_once_and_not_in_both_orders():
    figures = await against_right(ScriptedEngine(lambda prompt: scored(9, 2)), PROBLEMS, "plain", seed=0)
    assert (figures["beats_right"], figures["beats_right_once"], figures["ties"]) == (0, 1, 1)


async def test_what_cannot_be_read_is_counted_and_is_no_win():
    figures = await against_right(ScriptedEngine(lambda prompt: "10"), PROBLEMS, "verdict", seed=0)
    assert (figures["unscored"], figures["beats_right"], figures["parse_rate"]) == (1, 0, 0)
    assert await alone(ScriptedEngine(lambda prompt: "10"), PROBLEMS, "verdict", seed=0) == {
        "called_good": 0,
        "unscored": 1,
    }


async def test_scored_alone_a_generous_judge_calls_every_wrong_answer_good():
    generous = ScriptedEngine(lambda prompt: "<think></think><answer>4</answer>")
    assert await alone(generous, PROBLEMS, "thought", seed=0) == {"called_good": 1, "unscored": 0, "mean_score": 4}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_sentence_follows_the_answer_with_its_value_filled_in(family):
    texts = {attacked("It is 7.", "7", family=family, index=i) for i in range(8)}
    assert len(texts) == len(FAMILIES[family])
    assert all(text.startswith("It is 7.") and "{" not in text for text in texts)
