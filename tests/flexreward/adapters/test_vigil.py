import asyncio
import random
from types import SimpleNamespace

import pytest

from flexreward.adapters import trl
from flexreward.adapters.trl import judge_reward
from flexreward.errors import UserError
from flexreward.monitor import CANARIES
from tests.faulty_server import FaultyServer, serving


@pytest.fixture(scope="module")
def listening():
    with serving(FaultyServer()) as made:
        yield made


@pytest.fixture
def server(listening):
    listening.__dict__ |= FaultyServer(url=listening.url).__dict__
    trl._trainings.clear()
    return listening


def pays_for(mark, *, bonus=0.4):
    """A judge with noise that pays for a word beside what it should."""
    noise = random.Random(0)

    def judge(number, body):
        rewards = [0.3 + bonus * (mark in text) + noise.uniform(-0.2, 0.2) for text in body["completions"]]
        return {"rewards": rewards, "reasons": [None] * len(rewards)}

    return judge


def step(server, number, completions, **options):
    metrics = {}
    state = SimpleNamespace(global_step=number)
    prompts = [f"p{place // 8}" for place in range(len(completions))]
    rewards = asyncio.run(
        judge_reward(
            prompts, completions, url=server.url, trainer_state=state, log_metric=metrics.__setitem__, **options
        )
    )
    return rewards, metrics


def written(number, rng):
    """Of a policy that takes to a word."""
    return [f"It is {rng.randint(1, 99)}{', indeed' * (rng.random() < number / 16)}." for _ in range(64)]


def test_a_trick_that_spreads_is_said_in_the_log_and_in_the_metrics(server, caplog):
    server.script, rng = pays_for("indeed"), random.Random(1)
    alarms = [step(server, number, written(number, rng))[1]["judge/health/alarm/feature"] for number in range(16)]
    assert alarms[0] == 0
    assert alarms[-1] == 1
    assert "judge_reward: reward health: the judge pays for 'indeed'" in caplog.text
    assert caplog.text.count("reward health") == 1


def test_the_breaker_withholds_rewards_and_the_training_is_stopped(server):
    server.script, rng = pays_for("indeed"), random.Random(1)

    def train():
        for number in range(16):
            step(server, number, written(number, rng), health="break")

    with pytest.raises(UserError, match=r"nothing was scored in 3 steps.*withheld 64.*pays for 'indeed'"):
        train()


def test_health_may_be_left_alone(server):
    _, metrics = step(server, 0, ["x"], health="off")
    assert not [name for name in metrics if "health" in name]


def test_canaries_and_first_completions_are_judged_every_so_many_steps(server, caplog):
    server.script = lambda number, body: {
        "rewards": [0.9 if text == CANARIES["thought"] else 0.5 for text in body["completions"]],
        "reasons": [None] * len(body["completions"]),
    }
    sizes, canaries = [], []
    for number in range(5):
        before = len(server.bodies)
        rewards, metrics = step(server, number, ["x", "xx"], canary_every=2)
        assert rewards == [0.5, 0.5]
        sizes.append(sum(len(body["prompts"]) for body in server.bodies[before:]))
        canaries.append(metrics["judge/health/canary"])
    more = 2 + 2 * len(CANARIES) + 2
    assert sizes == [2, 2, more, 2, more]
    assert canaries == [0, 0, 0.9, 0.9, 0.9]
    assert "answers nothing (thought) is rewarded with 0.90" in caplog.text


def test_a_judge_that_changes_its_mind_is_flagged(server):
    server.script = lambda number, body: {
        "rewards": [0.2 if number < 4 else 0.6] * len(body["completions"]),
        "reasons": [None] * len(body["completions"]),
    }
    drifts = [step(server, number, ["x", "xx"], canary_every=1)[1]["judge/health/alarm/drift"] for number in range(6)]
    assert drifts[1] == 0
    assert drifts[-1] == 1


def test_only_the_first_process_asks_for_canaries(server, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    for number in range(3):
        step(server, number, ["x"], canary_every=1)
    assert sum(len(body["prompts"]) for body in server.bodies) == 3
