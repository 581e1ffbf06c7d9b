"""How sure a judge was of one request: the same figures as of a whole benchmark."""

import pytest

from flexreward.engines.scripted import ScriptedEngine
from flexreward.evals.confidence import confidence_of
from flexreward.judge import Judge
from flexreward.templates import load_template
from flexreward.types import JudgeRequest

PAIR, SCORE = load_template("pair"), load_template("score")
REQUEST = JudgeRequest(id="q", prompt="2+2?", completions=("good", "bad"))


def said(*scores: int) -> str:
    return "<think>x</think>" + "".join(f"<answer>{score}</answer>" for score in scores)


def fair(prompt) -> list[str]:
    """Four votes, three for what is good, wherever it stands."""
    first = prompt.user.index("\ngood") < prompt.user.index("\nbad")
    return [said(9, 3) if first else said(3, 9)] * 3 + [said(4, 6) if first else said(6, 4)]


async def sure(script, request=REQUEST, template=PAIR, **options) -> dict[str, float]:
    judge = Judge(ScriptedEngine(script), template, **options)
    return confidence_of(await judge.judge(request), template.scale)


async def test_votes_that_agree_orders_that_agree_and_the_margin_each_say_how_sure_a_judge_is():
    found = await sure(fair, votes=4)
    assert found == {"margin": pytest.approx((7.75 - 3.75) / 9), "votes": 0.75, "orders": 1, "agreement": 0.75}


async def test_a_judge_that_follows_the_place_has_no_agreement_of_orders_and_no_margin():
    assert await sure(lambda _: [said(9, 3)] * 2, votes=2) == {"margin": 0, "votes": 1, "orders": 0, "agreement": 0}


async def test_what_was_not_asked_says_nothing():
    assert await sure(fair, both_orders=False) == {"margin": pytest.approx(6 / 9)}
    assert await sure(lambda _: "<think>", votes=2) == {}


async def test_ratings_are_sure_where_their_votes_lie_together():
    one = JudgeRequest(id="q", prompt="2+2?", completions=("4",))
    assert await sure(lambda _: [said(4), said(4)], one, SCORE, votes=2) == {"votes": 1, "agreement": 1}
    width = SCORE.scale.high - SCORE.scale.low
    apart = await sure(lambda _: [said(2), said(4)], one, SCORE, votes=2)
    assert apart == {"votes": pytest.approx(1 - 1 / width), "agreement": pytest.approx(1 - 2 / width)}


async def test_a_vote_that_ended_early_counts_by_what_was_read():
    votes = [said(9, 3)] * 3 + [said(1, 2)] * 2
    found = await sure(lambda _: votes, votes=5, aggregate="majority", stop=0.0, both_orders=False)
    assert found == {"margin": 1, "votes": 1, "agreement": 1}
