"""What TRL's trainers hand to the reward functions, without the trainers."""

import asyncio
import functools
import inspect
import math
import pickle
import subprocess
import sys
from types import SimpleNamespace

import PIL.Image
import pytest
from fastapi import Response

from flexreward.adapters import trl
from flexreward.adapters.trl import judge_reward, judge_reward_pairs, options_of
from flexreward.errors import UserError
from flexreward.types import Reason
from tests.faulty_server import FaultyServer, by_length, serving

END = 9


@pytest.fixture(scope="module")
def listening():
    with serving(FaultyServer()) as made:
        yield made


@pytest.fixture
def server(listening):
    listening.__dict__ |= FaultyServer(url=listening.url).__dict__
    trl._trainings.clear()
    return listening


def rows_of(server):
    """What was judged; the call without items is the probe."""
    return [body for body in server.bodies if body["prompts"]]


def call(server, prompts, completions, *, step=0, **more):
    """The rewards, the metrics and the columns of the completions' table."""
    metrics, extra = {}, {}
    state = None if step is None else SimpleNamespace(global_step=step)
    told = {} if step is None else {"trainer_state": state, "log_extra": extra.__setitem__}
    told |= {} if step is None else {"log_metric": metrics.__setitem__}
    rewards = asyncio.run(judge_reward(prompts=prompts, completions=completions, url=server.url, **told, **more))
    return rewards, metrics, extra


def test_each_completion_gets_its_reward(server):
    rewards, metrics, extra = call(server, ["p", "p", "q"], ["x", "xx", "xxx"])
    assert rewards == [0.01, 0.02, 0.03]
    assert metrics["judge/score_mean"] == pytest.approx(0.02)
    assert metrics["judge/unscored"] == 0
    assert extra == {"judge_reasoning": [""] * 3, "judge_unscored": [""] * 3}


def test_the_server_is_told_group_step_and_columns(server):
    image = PIL.Image.new("RGB", (2, 2))
    prompt = [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": "What?"}]}]
    answers = [[{"role": "assistant", "content": f"<think>hm</think>{'x' * n}"}] for n in (1, 2)]
    columns = {"rubric": ["r", "r"], "reference": [None, "y"], "images": [[image]] * 2, "source": ["s", "s"]}
    rewards, _, _ = call(server, [prompt] * 2, answers, step=7, num_generations=2, completion_ids=[[1]] * 2, **columns)
    assert rewards == [0.01, 0.02]
    (body,) = rows_of(server)
    assert body["columns"] == {"rubric": ["r", "r"], "reference": [None, "y"]}
    assert body["prompts"][0][0]["content"][0]["image"].startswith("data:")
    assert (body["step"], body["group_size"]) == (7, 2)
    assert len(set(body["ids"])) == 2
    assert body["run"]


def test_processes_of_one_launch_name_a_group_alike_and_its_members_apart(server, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_PORT", "29500")
    for rank in "01":
        trl._trainings.clear()
        monkeypatch.setenv("RANK", rank)
        call(server, ["p", "p"], ["x", "xx"], step=3, num_generations=4)
    first, second = rows_of(server)
    assert first["group_ids"] == second["group_ids"]
    assert (first["run"], first["step"], first["group_size"]) == (second["run"], 3, 4)
    assert not set(first["ids"]) & set(second["ids"])


def test_a_prompt_that_stands_in_a_batch_twice_has_two_groups(server):
    call(server, ["p"] * 4, ["x"] * 4, num_generations=2)
    call(server, ["p"] * 4, ["x"] * 4, num_generations=2)
    first, second = (body["group_ids"] for body in rows_of(server))
    assert first[0] == first[1] != first[2] == first[3]
    assert not set(first) & set(second)  # nor do two batches of a step share one


def test_what_was_cut_is_unscored_and_its_group_does_not_wait_for_it(server):
    ids = [[1, END], [1, 2, 3], [1, 2, END], [END]]
    options = {"num_generations": 4, "max_completion_length": 3, "eos_token_ids": (END,)}
    rewards, metrics, extra = call(server, ["p"] * 4, ["x", "xx", "xxx", "x"], completion_ids=ids, **options)
    assert rewards == [0.01, None, 0.03, 0.01]
    assert metrics["judge/unscored/cut_completion"] == 0.25
    assert extra["judge_unscored"] == ["", "cut_completion", "", ""]
    (body,) = rows_of(server)
    assert len(body["prompts"]) == body["group_size"] == 3


def test_what_was_cut_in_a_split_group_is_judged_for_the_others_and_not_used(server):
    options = {"num_generations": 4, "max_completion_length": 3, "eos_token_ids": (END,)}
    rewards, _, _ = call(server, ["p"] * 2, ["x", "xx"], completion_ids=[[END], [1, 2, 3]], **options)
    assert rewards == [0.01, None]
    (body,) = rows_of(server)
    assert (len(body["prompts"]), body["group_size"]) == (2, 4)


def test_what_was_cut_is_judged_where_that_is_asked_for(server):
    options = {"max_completion_length": 3, "eos_token_ids": (END,), "cut": "judged"}
    assert call(server, ["p"], ["xx"], completion_ids=[[1, 2, 3]], **options)[0] == [0.02]


def test_a_row_that_cannot_be_shown_is_unscored_and_the_others_are_scored(server):
    rewards, metrics, _ = call(server, ["p", "p"], ["x", "xx"], rubric=["r", 3.5j])
    assert rewards == [0.01, None]
    assert metrics["judge/unscored/refused"] == 0.5


def test_metrics_have_the_same_names_whatever_happened(server):
    _, fine, _ = call(server, ["p"], ["x"])
    server.script = lambda number, body: {"rewards": [None], "reasons": ["quorum"]}
    rewards, none, _ = call(server, ["p"], ["x"], step=1)
    assert rewards == [None]
    assert fine.keys() == none.keys()
    assert {f"judge/unscored/{reason}" for reason in Reason} <= fine.keys()
    assert math.isnan(none["judge/score_mean"])


def test_a_judge_that_does_not_answer_stops_the_training_before_it_begins(server):
    server.script = lambda number, body: Response(b'{"error": "no judge named strict"}', status_code=422)
    with pytest.raises(UserError, match=r"422.*no judge named strict.*name a judge"):
        call(server, ["p"], ["x"], judge="strict")


def test_a_judge_that_falls_silent_stops_the_training_at_the_third_step(server):
    call(server, ["p"], ["x"])
    server.script = lambda number, body: {"rewards": [None], "reasons": ["engine"], "details": ["the GPU is gone"]}
    assert [call(server, ["p"], ["x"], step=step)[0] for step in (1, 2)] == [[None], [None]]
    with pytest.raises(UserError, match=r"judge_reward: nothing was scored in 3 steps.*the GPU is gone"):
        call(server, ["p"], ["x"], step=3)


def test_a_trainer_that_begins_anew_in_the_same_process_is_given_the_same_patience(server):
    server.script = lambda number, body: {"rewards": [None] * len(body["prompts"]), "reasons": []}
    for _ in range(3):
        for step in (0, 1):
            assert call(server, ["p"], ["x"], step=step)[0] == [None]


def test_a_server_that_hangs_costs_the_deadline_and_no_more(server):
    server.script = lambda number, body: by_length(body) if not body["prompts"] else asyncio.sleep(60)
    rewards, metrics, _ = call(server, ["p"], ["x"], deadline_s=0.5)
    assert rewards == [None]
    assert metrics["judge/latency_s"] < 20
    assert metrics["judge/unscored/deadline"] == 1


def test_a_trainer_that_tells_no_step_is_served_too(server):
    """AsyncGRPOTrainer: neither a state nor anything to log to, a whole group a call."""
    assert call(server, ["p", "p"], ["x", "xx"], step=None, completion_ids=[[1], [2]])[0] == [0.01, 0.02]
    call(server, ["p", "p"], ["x", "xx"], step=None)
    first, second = (body["group_ids"] for body in rows_of(server))
    assert not set(first) & set(second)
    assert "step" not in rows_of(server)[0]


def test_a_partial_of_it_pickles_is_awaited_and_has_its_name(server):
    made = functools.partial(judge_reward, url=server.url, deadline_s=3)
    asyncio.run(made(prompts=["p"], completions=["x"]))
    copied = pickle.loads(pickle.dumps(made))  # noqa: S301  # ours
    assert asyncio.run(copied(prompts=["p"], completions=["xx"])) == [0.02]
    assert inspect.iscoroutinefunction(copied.func)
    assert copied.func.__name__ == "judge_reward"


def pairs(server, completions, **more):
    half = [f"p{i}" for i in range(len(completions) // 2)]
    state = SimpleNamespace(global_step=0)
    return judge_reward_pairs(half * 2, completions, url=server.url, trainer_state=state, **more)


def test_pairs_are_scored_without_awaiting(server):
    assert pairs(server, ["x", "xx", "xxx", "x"]) == [0.01, 0.02, 0.03, 0.01]
    (body,) = rows_of(server)
    assert body["prompts"] == ["p0", "p0", "p1", "p1"]
    assert len(set(body["group_ids"])) == 2


async def test_pairs_are_scored_from_within_a_running_loop(server):
    assert pairs(server, ["x", "xx"]) == [0.01, 0.02]


def test_both_completions_of_a_pair_get_the_same_where_one_cannot_be_judged(server, caplog):
    server.script = lambda number, body: {
        "rewards": [None if completion == "bad" else 0.5 for completion in body["completions"]],
        "reasons": ["quorum"] * len(body["completions"]),
    }
    assert pairs(server, ["x", "bad", "xx", "x"]) == [0.5, None, 0.5, None]
    assert "1 of 2 pairs without a score" in caplog.text


def test_pairs_of_another_shape_are_refused(server):
    with pytest.raises(UserError, match="use judge_reward"):
        judge_reward_pairs(["p", "q", "r"], ["x"] * 3, url=server.url)


def test_what_a_configuration_knows_is_taken_from_it():
    tokenizer = SimpleNamespace(eos_token_id=9, pad_token_id=0)
    config = SimpleNamespace(num_generations=4, max_completion_length=64)
    told = {"num_generations": 4, "max_completion_length": 64, "eos_token_ids": (0, 9)}
    assert options_of(config, tokenizer) == told
    pairwise = SimpleNamespace(max_new_tokens=32)
    assert options_of(pairwise, SimpleNamespace(eos_token_id=9, pad_token_id=None)) == {
        "num_generations": 2,
        "max_completion_length": 32,
        "eos_token_ids": (9,),
    }


def test_the_adapter_of_a_served_judge_loads_no_model():
    code = "import flexreward.adapters.trl, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"trl", "torch", "transformers", "ray", "fastapi"} & set(loaded)
