"""Calls as verl's reward managers make them: keywords, one sample each, many at once."""

import asyncio
import functools
import inspect
import math

import numpy as np
import PIL.Image
import pytest

from flexreward.adapters import verl
from flexreward.adapters.verl import compute_score
from flexreward.errors import UserError
from tests.faulty_server import FaultyServer, by_length, serving

KEYS = {"score", "unscored", "flipped", "judge_tokens"}


@pytest.fixture(scope="module")
def listening():
    with serving(FaultyServer()) as made:
        yield made


@pytest.fixture
def server(listening):
    listening.__dict__ |= FaultyServer(url=listening.url).__dict__
    verl._sources.clear()
    return listening


def unscored(number, body):
    return by_length(body) | {"rewards": [None] * len(body["prompts"]), "reasons": ["engine"] * len(body["prompts"])}


def call(solution, *, truth="7", info=None, **kwargs):
    """As verl calls the function that its reward_kwargs are bound to."""
    function = functools.partial(compute_score, **kwargs)
    extra_info = {"index": 3, "split": "train", "num_turns": 2} | ({"question": "How?"} if info is None else info)
    return function(data_source="math", solution_str=solution, ground_truth=truth, extra_info=extra_info)


def run(*args, **kwargs):
    return asyncio.run(call(*args, **kwargs))


def rows_of(server):
    return [body for body in server.bodies if body["prompts"]]


def test_it_is_a_coroutine_function_which_is_what_verl_looks_for():
    assert inspect.iscoroutinefunction(compute_score)


def test_a_sample_gets_a_dict_of_finite_numbers(server):
    found = run("xxx", url=server.url)
    assert found == {"score": 0.03, "unscored": 0.0, "flipped": 0.0, "judge_tokens": 0.0}


@pytest.mark.parametrize("script", [unscored, lambda number, body: {"rewards": [math.nan] * len(body["prompts"])}])
def test_an_unscored_sample_has_the_same_keys_and_a_mark(server, script):
    server.script = script
    found = run("xxx", url=server.url, deadline_s=2.0)
    assert found.keys() == KEYS
    assert (found["score"], found["unscored"]) == (0.5, 1.0)
    assert run("xxx", url=server.url, deadline_s=2.0, neutral=0.25)["score"] == 0.25


def test_an_unscored_sample_has_the_mean_of_its_group_where_the_judge_knows_it(server):
    server.script = lambda number, body: unscored(number, body) | {"group_means": [0.75] * len(body["prompts"])}
    assert run("xxx", url=server.url)["score"] == 0.75


def test_what_stands_in_extra_info_is_shown(server):
    image = PIL.Image.new("RGB", (2, 2))
    info = {"prompt": np.array([{"role": "user", "content": "What?"}], dtype=object), "images": [image], "rubric": "r"}
    run("x", url=server.url, info=info, num_generations=8, run="a")
    (body,) = rows_of(server)
    assert body["prompts"] == [[{"role": "user", "content": "What?"}]]
    assert body["columns"]["images"][0][0].startswith("data:")
    assert (body["columns"]["rubric"], body["columns"]["reference"]) == (["r"], ["7"])
    assert (body["group_size"], body["run"]) == (8, "a")


def test_a_prompt_may_stand_under_another_name(server):
    run("x", url=server.url, info={"task": "How?"}, prompt_key="task")
    assert rows_of(server)[0]["prompts"] == ["How?"]


@pytest.mark.parametrize("info", [{}, {"prompt": ""}, {"prompt": []}, {"prompt": 3}])
def test_without_a_prompt_it_says_where_to_put_it(server, info):
    with pytest.raises(UserError, match="extra_info holds no prompt, expected one of prompt, question"):
        run("x", url=server.url, info=info)


def test_a_sample_that_cannot_be_shown_is_unscored_and_stops_nothing(server):
    found = run("x", url=server.url, info={"prompt": "How?", "images": [3]})
    assert (found["score"], found["unscored"]) == (0.5, 1.0)


def test_a_server_that_does_not_take_the_key_stops_the_training_at_its_first_sample(server):
    server.key = "another"
    for _ in range(2):
        with pytest.raises(UserError, match="give its reward key"):
            run("x", url=server.url)


def test_an_option_that_is_none_is_named(server):
    with pytest.raises(UserError, match="unknown field 'urll'"):
        run("x", url=server.url, urll="x")


def test_what_verl_binds_of_its_own_is_taken(server):
    assert run("x", url=server.url, reward_router_address="host:1", reward_model_tokenizer=object())["unscored"] == 0


def test_many_samples_at_once_probe_the_server_once_and_another_loop_once_more(server):
    async def many():
        return await asyncio.gather(*(call("x" * n, url=server.url) for n in range(1, 9)))

    for _ in range(2):
        found = asyncio.run(many())
        assert [one["score"] for one in found] == pytest.approx([n / 100 for n in range(1, 9)])
    assert len(server.bodies) - len(rows_of(server)) == 2
