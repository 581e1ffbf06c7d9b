"""Each of TRL's online trainers for a few steps of the bundled policy, scored by the bundled judge."""

import functools
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

import pytest

from flexreward.adapters import trl as adapter
from flexreward.adapters.recipe import RewardRecipe
from flexreward.adapters.source import service_of
from flexreward.adapters.trl import judge_reward, judge_reward_pairs, options_of
from flexreward.config import BUNDLED, ENV
from flexreward.errors import UserError
from flexreward.serving.app import build_app
from flexreward.types import Reason
from recipes.tiny import domain
from tests.faulty_server import FaultyServer, listening, serving

trl = pytest.importorskip("trl", reason="needs pip install 'flexreward[train]'")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # TRL's own

POLICY = str(BUNDLED / "tiny-policy")


def questions(count):
    stream = domain.problems(random.Random("trainers"), held_out=False)
    return [next(stream).question for _ in range(count)]


def rows(*, conversational):
    from datasets import Dataset

    def prompt(question):
        # A plain prompt is the text as the model reads it; a conversation is put into it by the chat template.
        return [{"role": "user", "content": question}] if conversational else question

    return Dataset.from_list([{"prompt": prompt(question), "reference": None} for question in questions(8)])


def settings(folder, **more):
    return {
        "output_dir": str(folder),
        "use_cpu": True,
        "bf16": False,
        "max_steps": 2,
        "logging_steps": 1,
        "report_to": "none",
        "save_strategy": "no",
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        "seed": 3,
        **more,
    }


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(POLICY)


@pytest.fixture(autouse=True)
def anew():
    adapter._trainings.clear()


def online(kind, folder, tokenizer, *, conversational=True, told=True, length=16, **options):
    """A trainer of four completions a prompt, two prompts a step."""
    make, config = {
        "grpo": (trl.GRPOTrainer, trl.GRPOConfig),
        "rloo": (trl.RLOOTrainer, trl.RLOOConfig),
    }[kind]
    sizes = {"per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": length}
    args = config(**settings(folder, log_completions=False, **sizes))
    told = options_of(args, tokenizer) if told else {}
    reward = functools.partial(judge_reward, **(told | options)) if told or options else judge_reward
    data = rows(conversational=conversational)
    return make(model=POLICY, reward_funcs=reward, args=args, train_dataset=data, processing_class=tokenizer)


def logged(trainer):
    return [line for line in trainer.state.log_history if "rewards/judge_reward/mean" in line]


@pytest.mark.parametrize("kind", ["grpo", "rloo"])
def test_a_trainer_is_rewarded_and_logs_how_it_went(kind, tmp_path, tokenizer):
    trainer = online(kind, tmp_path, tokenizer, judge="tiny")
    trainer.train()
    first, second = logged(trainer)
    assert first.keys() == second.keys()
    assert 0 <= first["rewards/judge_reward/mean"] <= 1
    assert first["judge/unscored"] == 0
    assert 1 <= first["judge/score_mean"] <= 10
    assert first["judge/tokens"] > 20
    assert {f"judge/unscored/{reason}" for reason in Reason} <= first.keys()
    thoughts = trainer._logs["extra"]["judge_reasoning"]
    assert len(thoughts) == 8
    assert all("<think>" in thought for thought in thoughts)


def test_plain_prompts_are_judged_too(tmp_path, tokenizer):
    trainer = online("grpo", tmp_path, tokenizer, conversational=False, judge="tiny")
    trainer.train()
    assert len(logged(trainer)) == 2
    assert logged(trainer)[0]["judge/unscored"] < 1


def test_a_served_judge_rewards_as_one_in_the_process_does(tmp_path, tokenizer):
    lines = []
    with listening(build_app(service_of(RewardRecipe(judge="tiny")))) as url:
        for options in ({"url": url}, {"judge": "tiny"}):
            trainer = online("grpo", tmp_path, tokenizer, **options)
            trainer.train()
            lines.append(logged(trainer))
    served, alone = lines
    same = [name for name in served[0] if not name.endswith(("_time", "latency_s"))]
    assert [[line[name] for name in same] for line in served] == [[line[name] for name in same] for line in alone]


def test_without_arguments_the_environment_names_the_judge(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setenv(ENV, "tiny")
    trainer = online("grpo", tmp_path, tokenizer, told=False)
    trainer.train()
    assert logged(trainer)[1]["judge/unscored"] == 0


def test_completions_that_were_cut_take_no_part(tmp_path, tokenizer):
    trainer = online("grpo", tmp_path, tokenizer, judge="tiny", length=8)
    trainer.train()
    for line in logged(trainer):
        assert line["judge/unscored/cut_completion"] == line["completions/clipped_ratio"]
    assert 0 < sum(line["judge/unscored"] for line in logged(trainer)) < 2


def test_a_training_whose_judge_is_away_does_not_begin(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr("flexreward.client.RewardClient.probe.__kwdefaults__", {"judge": "", "deadline_s": 0.3})
    trainer = online("grpo", tmp_path, tokenizer, url="http://127.0.0.1:9")
    with pytest.raises(UserError, match="flexreward serve RECIPE"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_a_training_whose_judge_falls_silent_ends_at_the_third_step(tmp_path, tokenizer):
    def silent(number, body):
        return {"rewards": [None] * len(body["prompts"]), "reasons": ["engine"] * len(body["prompts"])}

    with serving(FaultyServer(script=silent)) as server:
        trainer = online("grpo", tmp_path, tokenizer, url=server.url)
        trainer.args.max_steps = 9
        with pytest.raises(UserError, match=r"nothing was scored in 3 steps.*engine 8"):
            trainer.train()
    assert trainer.state.global_step == 2


def test_pairs_of_online_dpo_are_scored(tmp_path, tokenizer):
    from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer

    args = OnlineDPOConfig(**settings(tmp_path, per_device_train_batch_size=4, max_new_tokens=16, max_length=128))
    seen = []

    def watched(prompts, completions, **more):
        found = judge_reward_pairs(prompts, completions, judge="tiny", **options_of(args, tokenizer), **more)
        seen.append((list(prompts), found))
        return found

    trainer = OnlineDPOTrainer(
        model=POLICY,
        reward_funcs=watched,
        args=args,
        train_dataset=rows(conversational=True).remove_columns("reference"),
        processing_class=tokenizer,
    )
    trainer.train()
    assert len(seen) == 2
    assert all(len(found) == 8 and prompts[:4] == prompts[4:] for prompts, found in seen)
    assert all(None not in found for _, found in seen)
    assert trainer.state.global_step == 2


SCORES_A_GROUP = """
import asyncio, pickle, sys
from accelerate import PartialState
from trl.experimental.async_grpo.async_rollout_worker import RolloutGroup, TrainingSequence, _AsyncRolloutLoop
from trl.trainer.utils import get_callable_name

PartialState()  # TRL's logger wants one
reward = pickle.load(sys.stdin.buffer)
loop = _AsyncRolloutLoop.__new__(_AsyncRolloutLoop)
loop.reward_funcs, loop._env_reward_types = [reward], []
loop.reward_func_names = [get_callable_name(reward)]
prompts = [[{"role": "user", "content": "What is 17 + 25?"}]] * 2
says = ["The answer is 42.", "The answer is 32."]
group = RolloutGroup(
    prompts=prompts, reward_kwargs={"reference": [None] * 2},
    completions=[[{"role": "assistant", "content": text}] for text in says], completions_ids=[[1, 2], [1, 3]],
    completions_sequences=[[TrainingSequence([1, 2], [0, 1], [0.0, 0.0], "r")] for _ in says],
    tool_call_counts=[0, 0], tool_failure_counts=[0, 0], model_version=0, group_id=0,
    env_rewards=[None] * 2, rollout_rewards=[None] * 2,
)
samples = asyncio.run(loop._score_group(group))
print(*(sample.metrics["rewards/judge_reward"] for sample in samples))
"""


def test_the_child_process_of_async_grpo_scores_a_group():
    reward = functools.partial(judge_reward, judge="tiny", num_generations=2)
    command = [sys.executable, "-c", SCORES_A_GROUP]
    run = subprocess.run(command, input=pickle.dumps(reward), capture_output=True)
    assert run.returncode == 0, run.stderr.decode()[-2000:]
    right, wrong = run.stdout.decode().splitlines()[-1].split()
    assert float(right) > float(wrong)


def test_the_trl_command_line_takes_it_by_name(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    rows(conversational=True).remove_columns("reference").to_json(data / "train.jsonl")
    (tmp_path / "reward.yaml").write_text("judge: tiny\nnum_generations: 4\nmax_completion_length: 16\n")
    asked = {
        "model_name_or_path": POLICY,
        "dataset_name": str(data),
        "reward_funcs": "flexreward.adapters.trl.judge_reward",
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 16,
        **settings(tmp_path / "out", dtype="float32"),
    }
    arguments = [word for name, value in asked.items() for word in (f"--{name}", str(value))]
    command = [str(Path(sys.executable).parent / "trl"), "grpo", *arguments]
    environment = os.environ | {ENV: str(tmp_path / "reward.yaml"), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert run.returncode == 0, run.stderr[-3000:]
    assert "'rewards/judge_reward/mean'" in run.stdout
    assert "'judge/score_mean'" in run.stdout
    assert (tmp_path / "out" / "model.safetensors").exists()
