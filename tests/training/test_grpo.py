import asyncio
import json
import random

import pytest
import yaml
from transformers import AutoModelForCausalLM

from flexreward.adapters import trl as adapter
from flexreward.adapters.recipe import RewardRecipe
from flexreward.adapters.source import service_of
from flexreward.config import BUNDLED
from flexreward.errors import OutputError, RecipeError
from flexreward.serving.app import build_app
from recipes.tiny import domain
from tests.faulty_server import FaultyServer, listening, serving
from training.recipe import GrpoRecipe

pytest.importorskip("trl", reason="needs pip install 'flexreward[train]'")
grpo = pytest.importorskip("training.grpo")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # TRL's own


@pytest.fixture(autouse=True)
def anew():
    adapter._trainings.clear()


@pytest.fixture
def asked(tmp_path):
    """Two steps of the bundled policy."""
    stream = domain.problems(random.Random("grpo"), held_out=False)
    rows = [{"prompt": [{"role": "user", "content": next(stream).question}]} for _ in range(8)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def make(**changes):
        fields = {
            "model": str(BUNDLED / "tiny-policy"),
            "data": str(tmp_path / "prompts.jsonl"),
            "output": tmp_path / "policy",
            "run_dir": tmp_path / "run",
            "reward": {"judge": "tiny"},
            "steps": 2,
            "prompts": 2,
            "num_generations": 4,
            "max_completion_length": 16,
            "learning_rate": 1e-4,
        }
        return GrpoRecipe(**(fields | changes))

    return make


def metrics(recipe):
    return [json.loads(line) for line in (recipe.run_dir / "metrics.jsonl").read_text().splitlines()]


def test_a_policy_learns_from_a_served_judge_and_the_control_does_not(asked, tmp_path):
    """What ``make proof-grpo`` shows of held-out problems, on four problems over and over."""
    stream = domain.problems(random.Random("b"), held_out=False, kinds=("count",))
    rows = [{"prompt": [{"role": "user", "content": next(stream).question}]} for _ in range(4)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = {"steps": 10, "prompts": 4, "num_generations": 8, "learning_rate": 2e-4, "schedule": "linear"}
    with listening(build_app(service_of(RewardRecipe(judge="tiny")))) as url:
        judged, control = (
            asked(
                **told,
                shuffled=shuffled,
                reward={"url": url},
                output=tmp_path / f"policy-{shuffled}",
                run_dir=tmp_path / f"run-{shuffled}",
            )
            for shuffled in (False, True)
        )
        assert grpo.train(judged) == judged.output
        grpo.train(control)
    first, *_, last = metrics(judged)
    assert {tuple(line) for line in metrics(judged) + metrics(control)} == {tuple(first)}
    assert first.keys() >= {"step", "reward", "judge/score_mean", "judge/zero_spread_groups", "judge/health/alarms"}
    assert [line["step"] for line in metrics(judged)] == list(range(1, 11))
    assert {line["judge/unscored"] for line in metrics(judged)} == {0}
    assert last["reward"] > first["reward"] + 0.15
    assert last["reward"] > metrics(control)[-1]["reward"] + 0.3


def test_completions_without_an_advantage_cost_nothing_and_change_nothing(asked, monkeypatch):
    sizes = []

    def lengths(recipe):
        def seen(self, model, inputs):
            sizes.append(len(inputs["advantages"]))
            return loss(self, model, inputs)

        monkeypatch.setattr("trl.GRPOTrainer._compute_loss", seen)
        grpo.train(recipe)
        return AutoModelForCausalLM.from_pretrained(recipe.output).state_dict()

    loss = grpo.GRPOTrainer._compute_loss
    told = {"steps": 1, "prompts": 8, "num_generations": 2, "warmup": 0}
    few = lengths(asked(**told))
    monkeypatch.setattr(grpo, "_telling", lambda inputs: inputs)
    alone = asked(output=asked().output.with_name("other"), run_dir=asked().run_dir.with_name("other-run"), **told)
    all_of_them = lengths(alone)
    assert 0 < sizes[0] < sizes[1] == 16
    start = AutoModelForCausalLM.from_pretrained(asked().model).state_dict()
    moved = max((few[name] - start[name]).abs().max() for name in start)
    apart = max((few[name] - all_of_them[name]).abs().max() for name in start)
    assert moved > 5e-5
    assert apart < moved / 10


def test_a_finished_run_stands_whole_and_is_not_run_again(asked, capsys):
    recipe = asked(steps=1)
    grpo.train(recipe)
    assert {path.name for path in recipe.output.iterdir()} >= {"model.safetensors", "tokenizer.json", "config.json"}
    assert not list(recipe.output.glob("*.bin"))
    assert json.loads((recipe.run_dir / "run.json").read_text())["steps"] == 1
    grpo.train(recipe)
    assert "done already" in capsys.readouterr().out
    with pytest.raises(OutputError, match="already there"):
        grpo.train(asked(run_dir=asked().run_dir.with_name("other")))


def test_the_control_gets_the_same_rewards_in_another_order(asked):
    with serving(FaultyServer()) as server:
        reward = {"url": server.url}
        texts = ["x" * n for n in range(1, 33)]
        plain = asyncio.run(grpo.rewards_of(asked(reward=reward), {})(["p"] * 32, texts))
        mixed = asyncio.run(grpo.rewards_of(asked(reward=reward, shuffled=True), {})(["p"] * 32, texts))
    assert mixed != plain
    assert sorted(mixed) == sorted(plain)


def test_a_batch_that_cannot_be_shared_out_is_refused(asked):
    with pytest.raises(RecipeError, match="cannot be shared out"):
        grpo.train(asked(prompts=3, micro_batch_size=8))


def test_a_judge_that_does_not_answer_is_one_line_and_exit_2(asked, tmp_path, capsys):
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(asked(reward={"judge": "no such judge"}).model_dump(mode="json")))
    assert grpo.main([str(path)]) == 2
    assert "no such judge" in capsys.readouterr().err.splitlines()[-1]


def test_rows_without_a_prompt_are_refused(asked, tmp_path):
    (tmp_path / "prompts.jsonl").write_text('{"question": "What?"}\n')
    with pytest.raises(RecipeError, match="no column 'prompt'; it has question"):
        grpo.train(asked())
