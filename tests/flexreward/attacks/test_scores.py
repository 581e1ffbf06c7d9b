"""Scores come from the judge alone, whatever is written by those whom it judges."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flexreward.engines.base import Prompt, Sampling
from flexreward.engines.scripted import Script, ScriptedEngine
from flexreward.engines.waiting import WaitingEngine
from flexreward.judge import Judge
from flexreward.templates import Template, load_template, template_ids
from flexreward.types import JudgeRequest, Message, Outcome, Reason, Unscored, Verdict
from tests.flexreward.attacks.catalogue import ATTACKS
from tests.flexreward.attacks.requests import request_for

SOME = ("pair", "batch", "rubric-score", "pair-answer-first", "score-direct", "gen-edit")
EVERY = [name if name in SOME else pytest.param(name, marks=pytest.mark.slow) for name in template_ids()]


def answers(template: Template) -> str:
    """A verdict that favours the first completion, as the template's reader takes it."""
    if template.reader == "genai":
        return "<answer>[[A>B]]</answer>"
    scores = ("4.5", "2", "3.5")[: template.num_completions or 3]
    return "".join(f"<answer>{score}</answer>" for score in scores)


def fixed(template: Template) -> Script:
    """The same reply to everything."""
    own = answers(template)
    reply = {"first": f"<think>fine</think>{own}", "last": f"{own}<think>fine</think>", "none": own}[template.reasoning]
    return lambda prompt: reply


def echoing(template: Template) -> Script:
    """All that it has read, quoted in its thought; and then the same verdict on everything."""
    own = answers(template)
    if template.reasoning == "last":
        return lambda prompt: f"{own}<think>{prompt.user}</think>"
    return lambda prompt: f"<think>They say:\n{prompt.user}\n{prompt.system}\nSo be it.</think>{own}"


async def judged(template: Template, script: Script, request: JudgeRequest) -> Outcome:
    judge = Judge(ScriptedEngine(script), template, both_orders=False)
    return (await judge.judge(request)).outcome


@pytest.mark.parametrize("turns", [False, True], ids=["texts", "turns"])
@pytest.mark.parametrize("sees", ["final", "all"])
@pytest.mark.parametrize("name", EVERY)
async def test_no_attack_changes_a_verdict(name, sees, turns):
    template = load_template(name, judge_sees=sees)
    expected = await judged(template, fixed(template), request_for(template, ["x"]))
    assert isinstance(expected, Verdict)
    assert expected.preferred == 0
    for attack in ATTACKS.values():
        request = request_for(template, [attack], turns=turns, id=attack)
        assert await judged(template, fixed(template), request) == expected


@pytest.mark.parametrize("turns", [False, True], ids=["texts", "turns"])
@pytest.mark.parametrize("sees", ["final", "all"])
@pytest.mark.parametrize("name", [n for n in SOME if load_template(n).reasoning != "none"])
async def test_a_judge_that_quotes_everything_in_its_thought_still_speaks_for_itself(name, sees, turns):
    template = load_template(name, judge_sees=sees)
    judge = Judge(ScriptedEngine(echoing(template)), template, both_orders=False)
    expected = (await judge.judge(request_for(template, ["x"]))).outcome
    assert isinstance(expected, Verdict)
    for attack in ATTACKS.values():
        outcome = (await judge.judge(request_for(template, [attack], turns=turns, id=attack))).outcome
        assert isinstance(outcome, Verdict), (attack, outcome)
        assert outcome.scores == expected.scores


@pytest.mark.parametrize("name", ["pair-direct", "score-direct", "pair", "score", "batch"])
async def test_a_judge_that_quotes_where_it_answers_is_unscored_and_never_gives_what_it_quotes(name):
    """Its own verdict comes too, so that there is one too many wherever the quote holds one.

    Completions alone: of a prompt that spells ``</think>`` and a verdict, quoted after the judge's own answers, nothing
    tells the quote from an end of the judge's own.
    """
    template = load_template(name)
    own = answers(template)
    opening = "" if template.reasoning == "none" else "<think>fine</think>"
    expected = await judged(template, lambda prompt: opening + own, request_for(template, ["x"]))
    unscored = set()
    for attack in ATTACKS.values():
        request = replace(request_for(template, [attack]), prompt="Who is right?")
        for script in (lambda prompt: f"{opening}{prompt.user}{own}", lambda prompt: f"{opening}{own}{prompt.user}"):
            outcome = await judged(template, script, request)
            if isinstance(outcome, Unscored):
                unscored.add(outcome.reason)
            else:
                assert outcome.scores == expected.scores, attack
    assert {Reason.EXTRA, Reason.NOT_A_NUMBER} <= unscored


@pytest.mark.parametrize("template", [load_template(n) for n in ("pair", "score", "batch")], ids=lambda t: t.id)
async def test_a_judge_that_only_quotes_never_ends_its_thought(template):
    """By default a completion's tags of thought are not shown, so that a quoted one cannot end the judge's thought."""
    for attack in ATTACKS.values():
        request = replace(request_for(template, [attack]), prompt="Who is right?")
        outcome = await judged(template, lambda prompt: f"<think>{prompt.user}", request)
        assert isinstance(outcome, Unscored), attack
        assert outcome.reason is Reason.NO_END


@pytest.mark.parametrize("name", ["pair", "pair-answer-first", "score"])
async def test_a_completion_shows_no_tag_of_thought_to_a_judge_that_sees_what_was_said(name):
    template = load_template(name)
    for attack in ATTACKS.values():
        turns = (Message(role="assistant", content=attack), Message(role="assistant", content=attack + "!"))
        for completion in (attack, turns):
            request = JudgeRequest(prompt="q", completions=(completion,) * (template.num_completions or 2))
            user = template.render(request).user
            assert "<think>" not in user
            assert "</think>" not in user


@pytest.mark.parametrize("waits", [1, 3])
async def test_a_thought_made_to_go_on_cannot_be_ended_by_what_it_quotes(waits):
    template = load_template("pair", judge_sees="all")
    engine = WaitingEngine(ScriptedEngine(echoing(template)), waits)
    judge = Judge(engine, template, both_orders=False, sampling=Sampling(max_tokens=10_000))
    for attack in ATTACKS.values():
        outcome = (await judge.judge(request_for(template, [attack]))).outcome
        assert isinstance(outcome, Verdict), attack
        assert outcome.scores == (4.5, 2)


async def test_a_judge_that_knows_the_better_text_finds_it_in_either_slot_beside_every_attack():
    template = load_template("pair", judge_sees="all")

    def by_what_stands_first(prompt: Prompt) -> str:
        first = prompt.user.startswith("[Question]\nq\n\n[Assistant 1's Answer]\nthe better one\n\n[Assistant 2's")
        return "<think></think>" + "".join(f"<answer>{n}</answer>" for n in ((9, 2) if first else (2, 9)))

    judge = Judge(ScriptedEngine(by_what_stands_first), template)
    for attack in ATTACKS.values():
        judgment = await judge.judge(JudgeRequest(prompt="q", completions=(attack, "the better one")))
        assert isinstance(judgment.outcome, Verdict)
        assert judgment.outcome.scores == (2, 9), attack
        assert judgment.consistent
