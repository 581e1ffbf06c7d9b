"""RewardClient and TRL against the real server, whose parts are killed under it."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import time

import pytest

from flexreward.adapters import trl as adapter
from flexreward.adapters.trl import judge_reward, options_of
from flexreward.client import RewardClient
from flexreward.config import BUNDLED
from flexreward.errors import UserError
from flexreward.pairs.contest import METHODS
from flexreward.serving.contract import RewardItem
from flexreward.types import JudgeRequest

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


def items(name, count):
    return [RewardItem(prompt=f"{name} {n // 5}", completion="x" * (1 + n % 5)) for n in range(count)]


def until_back(server, part):
    until = time.monotonic() + 60
    while len(server.replicas(part)) < 2 and time.monotonic() < until:
        time.sleep(0.2)


async def test_a_client_is_let_in_with_its_key_alone(server):
    await RewardClient(server.url, key=server.key).probe()
    with pytest.raises(UserError, match=r"401.*FLEXREWARD_KEY"):
        await RewardClient(server.url, key="another-key-0123456789").probe()
    with pytest.raises(UserError, match="'strict'"):
        await RewardClient(server.url, key=server.key).probe(judge="strict")


async def test_an_ingress_copy_killed_under_a_client_ends_in_the_same_rewards(server):
    client = RewardClient(server.url, key=server.key, deadline_s=120)
    work = asyncio.create_task(client.rewards(items("client", 200)))
    await asyncio.sleep(0.5)
    os.kill(server.replicas("Ingress")[0], signal.SIGKILL)
    found = [one.reward for one in await work]
    await asyncio.to_thread(until_back, server, "Ingress")
    again = await client.rewards(items("client", 200))
    assert None not in found
    assert found == [one.reward for one in again]


@pytest.mark.filterwarnings("ignore")  # TRL's own
def test_grpo_is_rewarded_by_the_server(server, tmp_path, monkeypatch):
    trl = pytest.importorskip("trl", reason="needs pip install 'flexreward[train]'")
    from datasets import Dataset
    from transformers import AutoTokenizer

    monkeypatch.setenv("FLEXREWARD_KEY", server.key)
    adapter._trainings.clear()
    policy = str(BUNDLED / "tiny-policy")
    tokenizer = AutoTokenizer.from_pretrained(policy)
    args = trl.GRPOConfig(
        output_dir=str(tmp_path),
        use_cpu=True,
        bf16=False,
        max_steps=2,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        gradient_checkpointing=False,
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=16,
    )
    trainer = trl.GRPOTrainer(
        model=policy,
        reward_funcs=functools.partial(judge_reward, url=server.url, **options_of(args, tokenizer)),
        args=args,
        train_dataset=Dataset.from_list([{"prompt": f"What is {n} + {n}?"} for n in range(11, 19)]),
        processing_class=tokenizer,
    )
    trainer.train()
    logs = [line for line in trainer.state.log_history if "rewards/judge_reward/mean" in line]
    assert len(logs) == 2
    assert all(0 <= line["rewards/judge_reward/mean"] <= 1 for line in logs if line["judge/unscored"] < 1)
    assert all(line["judge/unscored/engine"] == 0 for line in logs)


async def test_a_client_ranks_by_every_method(server):
    asked = JudgeRequest(id="q", prompt="rank", completions=tuple("x" * length for length in (4, 40, 9, 21, 40)))
    client = RewardClient(server.url, key=server.key)
    found = [await client.rerank(asked, method=method) for method in METHODS]
    assert [one.order[:2] for one in found] == [[1, 4]] * len(METHODS)
    assert [one.counts["judgments"] for one in found] == [4, 3, 6, 6, 1]  # of four different texts
