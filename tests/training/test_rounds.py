import functools
import itertools
import json
import random
import sys

import pytest
import yaml

from flexreward.config import BUNDLED
from flexreward.errors import OutputError, RecipeError
from flexreward.files.appended import AppendedFile
from recipes.tiny import domain
from tests.flexreward.test_pairs import write
from tests.training.runs import killed
from training.recipe import RoundsRecipe
from training.run import Run, weights_digest

pytest.importorskip("trl", reason="needs pip install 'flexreward[train]'")
from flexreward.cli import run as flexreward
from training import dpo, rounds

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # TRL's own


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Rounds of the bundled policy on eight prompts, chosen by length."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    stream = domain.problems(random.Random("rounds"), held_out=False, kinds=("count",))
    write(tmp_path / "prompts.jsonl", *({"prompt": next(stream).question} for _ in range(8)))

    def make(**changes):
        fields = {
            "model": str(BUNDLED / "tiny-policy"),
            "prompts": str(tmp_path / "prompts.jsonl"),
            "run_dir": tmp_path / "run",
            "output": tmp_path / "policy",
            "rounds": 1,
            "judge": "scripted:longer",
            "sampling": {"temperatures": [1.5], "completions": 4, "max_tokens": 12},
            "dpo": {"batch_size": 4, "micro_batch_size": 4, "learning_rate": 1e-4, "eval_share": 0.2},
        }
        return RoundsRecipe(**(fields | changes))

    return make


@pytest.fixture
def steps(monkeypatch):
    """The steps that were made, in this process: nothing is imported anew."""
    made = []

    def step(number, name, command):
        made.append((number, name, command))
        if name == "pairs":
            assert flexreward(list(command[3:])) == 0
        else:
            assert dpo.main([command[-1]]) == 0

    monkeypatch.setattr(rounds, "_step", step)
    return made


def noted(recipe, number):
    return json.loads((recipe.run_dir / f"round-{number}" / "round.json").read_text())


def test_each_round_begins_with_the_policy_of_the_one_before_and_a_done_one_is_not_run_again(asked, steps):
    assert rounds.train(asked()) == asked().output
    first = weights_digest(asked().output)
    assert [step[:2] for step in steps] == [(1, "pairs"), (1, "training")]
    recipe = asked(rounds=2)
    rounds.train(recipe)
    assert [step[:2] for step in steps[2:]] == [(2, "pairs"), (2, "training")]
    assert noted(recipe, 1)["weights"] == first
    assert noted(recipe, 2)["model"] == str(recipe.run_dir / "round-1" / "policy")
    assert noted(recipe, 2)["weights"] == weights_digest(recipe.output) != first
    assert noted(recipe, 2)["pairs"]["kept"] > 0
    told = json.loads((recipe.output / "provenance.json").read_text())
    assert told["base"] == first
    seeds = [yaml.safe_load((recipe.run_dir / f"round-{n}" / "sampling.yaml").read_text())["seed"] for n in (1, 2)]
    assert seeds == [43, 44]
    rounds.train(recipe)
    assert len(steps) == 4


def test_killed_wherever_it_is_and_run_again_a_round_ends_in_the_same_files(
    asked, steps, monkeypatch, tmp_path, capsys
):
    whole, broken = (asked(run_dir=tmp_path / name, output=tmp_path / f"{name}-policy") for name in "ab")
    rounds.train(whole)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    again, folder = functools.partial(rounds.train, broken), broken.run_dir / "round-1"

    def at_row(name: str, number: int):
        rows = itertools.count()
        return lambda file, row: file.path.name == name and next(rows) == number

    killed(again, AppendedFile, "append", when=at_row("sampled.jsonl", 3))
    assert len((folder / "pairs" / "sampled.jsonl").read_text().splitlines()) == 3
    killed(again, AppendedFile, "append", when=at_row("pair_outcomes.jsonl", 10))
    assert 10 <= len((folder / "pairs" / "pair_outcomes.jsonl").read_text().splitlines()) < 29
    killed(again, Run, "log", when=lambda run, row: row["step"] == 1)
    killed(again, rounds, "write_whole", when=lambda path, text: path.name == "round.json")
    killed(again, rounds, "put_in_place")
    capsys.readouterr()
    rounds.train(broken)
    assert "judged" not in capsys.readouterr().out
    for name in ("sampled.jsonl", "pair_outcomes.jsonl", "train.jsonl"):
        assert (folder / "pairs" / name).read_bytes() == (whole.run_dir / "round-1" / "pairs" / name).read_bytes()
    assert noted(broken, 1) == noted(whole, 1)
    assert weights_digest(broken.output) == weights_digest(whole.output)


def test_shards_are_taken_in_turn_and_a_round_begins_with_a_server_that_judges_by_the_last_policy(
    asked, steps, monkeypatch, tmp_path
):
    told, whole = [], rounds._step

    class Client:
        def __init__(self, url, *, key):
            assert (url, key) == ("http://localhost:8000", "secret")

        async def reload(self, model, *, judge):
            told.append(f"{judge} is {model}")
            return "d" * 64

    def step(number, name, command):
        told.append(" ".join([name, *command[-2:]]) if name == "pairs" else name)
        if told.count("pairs --shard 2/2") == 1 and name == "training":
            raise KeyboardInterrupt
        whole(number, name, command)

    monkeypatch.setattr(rounds, "_step", step)
    monkeypatch.setattr(rounds, "RewardClient", Client)
    monkeypatch.setenv(rounds.ADMIN_KEY, "secret")
    reload = {"url": "http://localhost:8000", "judge": "own", "reload_from": str(tmp_path)}
    recipe = asked(shards=2, rounds=2, reload=reload)
    with pytest.raises(KeyboardInterrupt):
        rounds.train(recipe)
    second = ["own is run/round-1/policy", "pairs --shard 2/2", "training"]
    assert told == ["pairs --shard 1/2", "training", *second]
    rounds.train(recipe)
    assert told[5:] == [*second, "own is run/round-2/policy"]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"dpo": {"bet": 1}}, "dpo: unknown field 'bet', expected beta"),
        ({"dpo": {"data": "x"}}, r"dpo\.data: each round sets it; leave it out"),
        ({"sampling": {"completion": 3}}, "sampling: unknown field 'completion', did you mean 'completions'"),
        ({"sampling": {"model": "x"}}, r"sampling\.model: each round sets it; leave it out"),
        ({"reload": {"url": "http://x", "reload_from": "/nowhere"}}, "reload_from: /nowhere does not hold run_dir"),
        ({"launch": ["acelerate", "launch"]}, "launch: acelerate is not found"),
    ],
)
def test_what_would_end_a_later_round_is_said_before_the_first(asked, changes, complaint):
    with pytest.raises(RecipeError, match=complaint):
        rounds.train(asked(**changes))
    assert not asked().run_dir.exists()


def test_a_step_that_fails_ends_the_rounds_in_one_line():
    with pytest.raises(OutputError, match="round 3: training ended with 2; mend what it says above, and run the same"):
        rounds._step(3, "training", [sys.executable, "-c", "raise SystemExit(2)"])


def test_a_judge_that_leaves_no_pair_is_said_so(asked, steps):
    with pytest.raises(OutputError, match="round-1/pairs: no pair is left to train on"):
        rounds.train(asked(judge="scripted:first"))
