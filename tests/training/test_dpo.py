import functools
import json
import random
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import Trainer

from flexreward.config import BUNDLED
from flexreward.errors import OutputError, RecipeError
from recipes.tiny import domain
from tests.flexreward.test_pairs import command, write
from tests.training.runs import apart, killed, losses, metrics, shared, starts, untimed, weights
from training.recipe import DpoRecipe
from training.run import WHOLE, Run, weights_digest

pytest.importorskip("trl", reason="needs pip install 'flexreward[train]'")
dpo = pytest.importorskip("training.dpo")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # TRL's own

POLICY = BUNDLED / "tiny-policy"
RECIPES = Path(__file__).parents[2] / "recipes"


def pairs(number: int, *, seed: str = "dpo"):
    """A right answer against a wrong one, a prompt each."""
    rng = random.Random(seed)
    stream = domain.problems(rng, held_out=False, kinds=("count",))
    for problem in (next(stream) for _ in range(number)):
        chosen, rejected = (f"The answer is {says}." for says in (problem.answer, domain.slip(problem.answer, rng)))
        yield {"prompt": problem.question, "chosen": chosen, "rejected": rejected, "judge": "f" * 64}


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """``make(folder, **changes)``: six steps of the bundled policy on pairs that all tests share."""
    data = write(tmp_path_factory.mktemp("data") / "pairs.jsonl", *pairs(30))

    def made(folder, **changes):
        fields = {
            "model": str(POLICY),
            "data": str(data),
            "eval_share": 0.2,
            "output": folder / "policy",
            "run_dir": folder / "run",
            "batch_size": 8,
            "micro_batch_size": 4,
            "epochs": 2,
            "learning_rate": 1e-4,
            "gradient_checkpointing": False,
            "save_every": 2,
        }
        return DpoRecipe(**(fields | changes))

    return made


@pytest.fixture
def asked(tmp_path, make):
    return lambda name="a", **changes: make(tmp_path / name, **changes)


@pytest.fixture(scope="module")
def done(tmp_path_factory, make):
    """A training of three steps that nothing disturbed."""
    recipe = make(tmp_path_factory.mktemp("done"), epochs=1)
    dpo.train(recipe)
    return recipe


def test_a_policy_learns_to_tell_held_out_pairs_apart_and_says_what_it_was_trained_on(asked, tmp_path):
    rows = [{"prompt": row["prompt"], "reference": row["chosen"]} for row in pairs(4, seed="check")]
    write(tmp_path / "check.jsonl", *rows)
    told = {"prompts": str(tmp_path / "check.jsonl"), "samples": 2, "max_tokens": 16}
    recipe = asked(epochs=4, learning_rate=2e-4, check=told)
    assert dpo.train(recipe) == recipe.output
    first, *_, last = metrics(recipe)
    assert (first["step"], last["step"]) == (0, 12)
    assert (first["eval_rewards/margins"], first["eval_rewards/accuracies"]) == (0, 0)
    assert last["eval_rewards/margins"] > 0
    assert last["eval_rewards/accuracies"] > 0.5
    assert losses(recipe)[-1] < losses(recipe)[0]
    told = json.loads((recipe.output / "provenance.json").read_text())
    assert told["judges"] == {"f" * 64: 30}
    assert told["base"] == weights_digest(POLICY)
    assert len(told["inputs"]["data"]["sha256"]) == 64
    assert told["recipe"]["beta"] == 0.1
    assert told["evaluation"]["pairs"]["after"]["margin"] == last["eval_rewards/margins"]
    before, after = (told["evaluation"]["check"][when] for when in ("before", "after"))
    assert before.keys() == after.keys() == {"greedy", "sampled", "prompts"}
    assert before != after
    assert yaml.safe_load((recipe.run_dir / "recipe.yaml").read_text())["loss"] == "sigmoid"
    kept = {"model.safetensors", "tokenizer.json", "config.json", "chat_template.jinja", "provenance.json"}
    assert {path.name for path in recipe.output.iterdir()} >= kept
    assert not list(recipe.output.glob("*.bin"))


def test_killed_wherever_it_is_and_run_again_it_ends_in_the_same_policy(asked):
    whole, broken = asked("a"), asked("b")
    dpo.train(whole)
    again = functools.partial(dpo.train, broken)
    killed(again, Run, "log", when=lambda run, row: row["step"] == 1)
    killed(again, Run, "log", when=lambda run, row: row["step"] == 5)
    killed(again, Trainer, "_save_rng_state", when=lambda trainer, folder: folder.endswith("checkpoint-6"))
    half = broken.run_dir / "checkpoint-6"
    assert (half.exists(), (half / WHOLE).exists()) == (True, False)
    killed(again, dpo, "whole_model")
    killed(again, dpo, "put_in_place")
    assert not broken.output.exists()
    dpo.train(broken)
    assert starts(broken) == [0, 0, 4, 4, 6, 6]
    assert untimed(broken) == untimed(whole)
    assert apart(whole, broken) == 0
    assert {path.name for path in broken.output.iterdir()} == {path.name for path in whole.output.iterdir()}
    assert {path.name for path in broken.output.parent.iterdir()} == {"policy", "run"}


@pytest.mark.parametrize("zero", ["", "dpo/zero2.json", "sft/zero3.json"])
def test_two_processes_train_what_one_does_and_one_of_them_speaks(asked, done, capfd, tmp_path, zero):
    split = None
    if zero:
        pytest.importorskip("deepspeed", reason="needs pip install deepspeed")
        fields = json.loads((RECIPES / zero).read_text())
        fields["zero_optimization"].pop("offload_optimizer", None)  # which is compiled, for minutes
        (split := tmp_path / "zero.json").write_text(json.dumps(fields))
    recipe = asked(epochs=1, deepspeed=split, precompute_ref_log_probs="zero3" not in zero)
    shared(functools.partial(dpo.train, recipe))
    lines = capfd.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith(str(recipe.output))] == [f"{recipe.output}: done"]
    assert sum(line.startswith("step 3/3  loss") for line in lines) == 1
    assert losses(recipe) == pytest.approx(losses(done), abs=1e-4)
    assert apart(recipe, done) < 2e-5
    assert starts(recipe) == [0]
    for checkpoint in recipe.run_dir.glob("checkpoint-*"):
        assert {"rng_state_0.pth", "rng_state_1.pth", WHOLE} <= {path.name for path in checkpoint.iterdir()}


def test_adapters_are_merged_and_the_policy_without_them_is_the_reference(asked):
    recipe = asked(epochs=1, method="lora", learning_rate=1e-3, lora={"rank": 4, "dropout": 0.1})
    dpo.train(recipe)
    base, trained = load_file(POLICY / "model.safetensors"), weights(recipe)
    assert base.keys() == trained.keys()
    moved = {name for name in base if not torch.equal(base[name], trained[name])}
    assert moved == {name for name in base if "proj.weight" in name}
    assert metrics(recipe)[0]["eval_rewards/margins"] == 0
    assert metrics(recipe)[-1]["eval_rewards/margins"] != 0


def test_the_reference_may_be_asked_once_before_the_training(asked, done):
    once = asked(epochs=1, precompute_ref_log_probs=True)
    dpo.train(once)
    assert losses(once) == pytest.approx(losses(done), abs=1e-3)


def test_losses_are_those_of_trl_alone_or_added_up(asked):
    ipo = asked("ipo", epochs=1, loss="ipo", eval_share=0)
    both = asked("both", epochs=1, loss=["sigmoid", "sft"], loss_weights=[1.0, 0.5])
    for recipe in (ipo, both):
        dpo.train(recipe)
    assert losses(ipo)[0] == pytest.approx(25, rel=0.01)  # (0 - 1 / (2 * 0.1)) ** 2
    assert losses(both)[0] > 0.7
    assert not any("eval_loss" in row for row in metrics(ipo))


def test_what_flexreward_pairs_wrote_is_trained_on_as_it_stands(asked, tmp_path):
    rows = [
        {"prompt": row["prompt"], "completions": [row["chosen"] + "!" * n, row["rejected"]]}
        for n, row in enumerate(pairs(8), 1)
    ]
    folder = tmp_path / "judged"
    source = write(tmp_path / "s.jsonl", *rows)
    assert command("pairs", source, "--out", folder, "--judge", "scripted:longer", "--no-store") == 0
    recipe = asked(data=str(folder), epochs=1)
    dpo.train(recipe)
    told = json.loads((recipe.output / "provenance.json").read_text())
    (judge,) = told["judges"]
    header = json.loads((folder / "pair_outcomes.jsonl").read_text().splitlines()[0])
    assert judge == header["judge"]["fingerprint"]
    assert told["inputs"]["data"]["source"] == str(folder / "train.jsonl")


def test_a_finished_run_is_not_run_again(done, capsys):
    before = (done.output / "model.safetensors").stat().st_mtime_ns
    dpo.train(done)
    assert (done.output / "model.safetensors").stat().st_mtime_ns == before
    assert "done already" in capsys.readouterr().out
    with pytest.raises(OutputError, match="already there"):
        dpo.train(done.model_copy(update={"run_dir": done.run_dir.with_name("other")}))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"micro_batch_size": 3}, "batch_size 8 is no multiple of micro_batch_size 3 x 1 processes"),
        ({"loss": ["sigmoid", "sft"], "loss_weights": [1.0]}, "loss_weights: 1 for 2 losses; give one for each"),
        ({"loss": "exo_pair"}, "loss exo_pair needs label_smoothing above 0"),
    ],
)
def test_a_recipe_that_cannot_be_trained_is_refused_before_a_model_is_loaded(asked, changes, complaint):
    with pytest.raises(RecipeError, match=complaint):
        dpo.train(asked(**changes))


def test_a_users_mistake_is_one_line_and_exit_2(asked, tmp_path, capsys):
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(asked(check={"prompts": "x"}).model_dump(mode="json") | {"losss": "ipo"}))
    assert dpo.main([str(path)]) == 2
    assert capsys.readouterr().err == f"{path}: unknown field 'losss', expected loss\n"
    fields = asked(check={"prompts": "x"}).model_dump(mode="json")
    fields["check"]["sample"] = 3
    path.write_text(yaml.safe_dump(fields))
    assert dpo.main([str(path)]) == 2
    assert capsys.readouterr().err == f"{path}: unknown field 'check.sample', expected samples\n"
