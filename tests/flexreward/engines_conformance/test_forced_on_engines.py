"""Forced answers, from a model whose every token is noise, on each engine that can be held to a pattern."""

from dataclasses import replace

import pytest

from flexreward.engines.base import Sampling
from flexreward.engines.forced import ForcedEngine
from flexreward.engines.waiting import WaitingEngine
from flexreward.judge import Judge
from flexreward.templates import load_template
from flexreward.types import JudgeRequest, Verdict

PAIR = replace(load_template("pair"), system="Score both 1-10.")
TWO = JudgeRequest(prompt="2+2?", completions=("4", "5"))


def judge_of(engine, **options):
    return Judge(ForcedEngine(engine), options.pop("template", PAIR), **options)


@pytest.mark.parametrize("budget", [1, 2, 7, 40, 1000])
@pytest.mark.parametrize("waits", [0, 2])
async def test_every_reply_is_read_at_any_budget(drawing, budget, waits):
    sampling = Sampling(temperature=1.0, max_tokens=budget, seed=5)
    engine = WaitingEngine(drawing, waits) if waits else drawing
    judgment = await judge_of(engine, sampling=sampling, votes=3).judge(TWO)
    for order in judgment.orders:
        for vote in order.votes:
            assert isinstance(vote.outcome, Verdict)
            assert vote.reply.completion_tokens <= budget + 43


@pytest.mark.parametrize("template", ["pair-answer-first", "pair-direct"])
async def test_answers_that_come_first_are_read_too(drawing, template):
    short = replace(load_template(template), system="Score both 1-10.")
    judgment = await judge_of(drawing, template=short, sampling=Sampling(max_tokens=9)).judge(TWO)
    assert isinstance(judgment.outcome, Verdict)


async def test_scores_by_expectation_are_read_too(local):
    judgment = await judge_of(local, sampling=Sampling(max_tokens=9), aggregate="expected").judge(TWO)
    assert isinstance(judgment.outcome, Verdict)


@pytest.mark.vllm
async def test_both_engines_give_the_same_scores_by_expectation(transformers_engine, vllm_engine):
    found = []
    for engine in (transformers_engine, vllm_engine):
        judgment = await judge_of(engine, sampling=Sampling(max_tokens=9), aggregate="expected").judge(TWO)
        found.append(judgment)
    ours, theirs = found
    assert theirs.outcome.scores == pytest.approx(ours.outcome.scores, abs=1e-3)
    assert [order.votes[0].reply.text for order in theirs.orders] == [o.votes[0].reply.text for o in ours.orders]


@pytest.mark.vllm
async def test_a_servers_forced_answers_are_read_and_its_cut_thoughts_marked(openai_engine):
    """Not that they are those of an engine in process: noise holds half characters, which a server cannot hand back."""
    judgment = await judge_of(openai_engine, sampling=Sampling(max_tokens=9)).judge(TWO)
    assert isinstance(judgment.outcome, Verdict)
    assert all(order.votes[0].reply.thought_cut for order in judgment.orders)
    assert all("</think>" in order.votes[0].reply.text for order in judgment.orders)
