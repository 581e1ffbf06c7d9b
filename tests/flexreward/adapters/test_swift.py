"""Calls as ms-swift's trainer makes them: each step in an event loop of its own, completions first, columns by name."""

import asyncio
import inspect
from types import SimpleNamespace

import pytest

from flexreward.adapters.swift import JudgeReward
from flexreward.errors import RecipeError, UserError
from tests.faulty_server import FaultyServer, by_length, serving

ARGS = SimpleNamespace(num_generations=2, max_completion_length=64, reward_funcs=["judge", "format"], reward_model=None)
ALONE = SimpleNamespace(**(vars(ARGS) | {"reward_funcs": ["judge"]}))


@pytest.fixture(scope="module")
def listening():
    with serving(FaultyServer()) as made:
        yield made


@pytest.fixture
def server(listening, monkeypatch):
    listening.__dict__ |= FaultyServer(url=listening.url).__dict__
    monkeypatch.setenv("FLEXREWARD_RECIPE", listening.url)
    return listening


def some(number, body):
    """A reward for each but those that say so."""
    rewards = [None if "broken" in text else len(text) / 100 for text in body["completions"]]
    return {"rewards": rewards, "reasons": [None if reward is not None else "engine" for reward in rewards]}


def call(function, completions, *, prompts=("p", "p"), step=0):
    """A step: all functions are gathered in a new loop."""
    columns = {
        "messages": [
            [{"role": "user", "content": prompt}, {"role": "assistant", "content": text}]
            for prompt, text in zip(prompts, completions, strict=True)
        ],
        "solution": ["7"] * len(completions),
        "prompt_id": ["id"] * len(completions),
        "trainer_state": SimpleNamespace(global_step=step),
    }

    async def gather():
        return (await asyncio.gather(function(completions, **columns)))[0]

    return asyncio.run(gather())


def rows_of(server):
    return [body for body in server.bodies if body["prompts"]]


def test_its_call_is_a_coroutine_function_which_is_what_ms_swift_looks_for(server):
    assert inspect.iscoroutinefunction(JudgeReward(args=ARGS).__call__)


def test_it_lives_through_a_new_loop_at_each_step(server):
    function = JudgeReward(args=ARGS)
    for step in range(3):
        assert call(function, ["x", "xx"], step=step) == [0.01, 0.02]


def test_the_prompt_is_the_messages_without_the_completion(server):
    call(JudgeReward(args=ARGS), ["x", "xx"])
    (body,) = rows_of(server)
    assert body["prompts"] == [[{"role": "user", "content": "p"}]] * 2
    assert body["completions"] == ["x", "xx"]
    assert body["group_size"] == 2


def test_unscored_is_none_beside_another_reward_function(server):
    server.script = some
    assert call(JudgeReward(args=ARGS), ["x", "broken"]) == [0.01, None]
    assert call(JudgeReward(args=ARGS), ["broken", "broken"]) == [None, None]


def test_where_no_other_stands_beside_it_unscored_is_the_mean_of_its_group_and_never_a_zero(server):
    server.script = some
    function = JudgeReward(args=ALONE)
    assert call(function, ["x", "broken", "xxx", "xxxxx"], prompts=("p", "p", "q", "q")) == [0.01, 0.01, 0.03, 0.05]
    assert call(function, ["broken", "broken"], step=1) == [0.5, 0.5]


def test_whether_it_stands_alone_may_be_said(server):
    server.script = some
    assert call(JudgeReward(args=ALONE, alone=False), ["x", "broken"]) == [0.01, None]
    assert call(JudgeReward(alone=True), ["x", "broken"]) == [0.01, 0.01]


def test_after_steps_without_a_score_it_stops_the_training(server):
    server.script = lambda number, body: by_length(body) if not body["prompts"] else {"rewards": [None] * 2}
    function = JudgeReward(args=ALONE, patience=2, deadline_s=1.0)
    assert call(function, ["x", "xx"], step=0) == [0.5, 0.5]
    with pytest.raises(UserError, match="JudgeReward"):
        call(function, ["x", "xx"], step=1)


def test_without_a_judge_it_says_what_to_give(monkeypatch):
    monkeypatch.delenv("FLEXREWARD_RECIPE", raising=False)
    with pytest.raises(RecipeError, match="set FLEXREWARD_RECIPE"):
        JudgeReward(args=ARGS)
