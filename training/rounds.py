"""Train a policy in rounds on its own completions: ``python -m training.rounds RECIPE.yaml``.

Each round samples and judges by ``flexreward pairs``, trains by ``training.dpo``, and hands its policy to the next.
Both take up what they have begun, so that the same command goes on after a kill wherever it came.

RUN/round-1/pairs/       what was sampled, judged and kept
RUN/round-1/run/         the training's own run folder
RUN/round-1/policy/      the round's policy
RUN/round-1/round.json   what came out, once the round is done
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from flexreward.client import RewardClient
from flexreward.config import parse_as
from flexreward.engines.orphans import owned
from flexreward.errors import OutputError, RecipeError
from flexreward.policy.recipe import PolicyRecipe
from training.program import program
from training.proof import write_whole
from training.recipe import DpoRecipe, Reload, RoundsRecipe, parse
from training.run import Run, put_in_place, refuse_standing, weights_digest

ADMIN_KEY = "FLEXREWARD_ADMIN_KEY"
"""Environment variable with the key of a server whose judge is reloaded."""
GIVEN = ("model", "data", "output", "run_dir", "replace")
"""Fields of a round's training that the rounds themselves set."""


def train(recipe: RoundsRecipe) -> Path:
    """Run all rounds, or those that are left; returns the folder of the last policy.

    Raises:
        UserError: one line that says what to mend; nothing that was done is lost.
    """
    _refuse_unfit(recipe)
    noted = Run(recipe.run_dir, recipe, seed=recipe.seed, inputs={"prompts": recipe.prompts})
    if noted.weights and noted.weights == weights_digest(recipe.output) and _done(recipe, recipe.rounds):
        print(f"{recipe.output}: done already (see {recipe.run_dir})", flush=True)
        return recipe.output
    refuse_standing(recipe.output, replace=recipe.replace or noted.weights is not None)
    noted.start()
    model = recipe.model
    for number in range(1, recipe.rounds + 1):
        if (found := _done(recipe, number)) is None:
            if recipe.reload and number > 1:
                _reload(recipe.reload, Path(model))
            found = _round(recipe, number, model)
        print(_line(number, found), flush=True)
        model = str(_folder(recipe, number) / "policy")
    if recipe.reload:
        _reload(recipe.reload, Path(model))
    staged = recipe.output.with_name(f".{recipe.output.name}.part")
    shutil.rmtree(staged, ignore_errors=True)
    shutil.copytree(model, staged)
    noted.finish(steps=recipe.rounds, weights=weights_digest(staged))
    put_in_place(staged, recipe.output, replace=True)
    print(f"{recipe.output}: done", flush=True)
    return recipe.output


def _refuse_unfit(recipe: RoundsRecipe) -> None:
    """Say before the first round what would end a later one."""
    if named := [field for field in ("model", "seed") if field in recipe.sampling]:
        raise RecipeError(f"sampling.{named[0]}: each round sets it; leave it out")
    if named := [field for field in GIVEN if field in recipe.dpo]:
        raise RecipeError(f"dpo.{named[0]}: each round sets it; leave it out")
    if recipe.launch and shutil.which(recipe.launch[0]) is None:
        raise RecipeError(f"launch: {recipe.launch[0]} is not found; give its path, or activate where it is installed")
    _sampling(recipe, 1, recipe.model)
    _training(recipe, 1, recipe.model)
    if recipe.reload:
        _seen_by_server(recipe.reload, recipe.run_dir)


def _folder(recipe: RoundsRecipe, number: int) -> Path:
    return recipe.run_dir / f"round-{number}"


def _done(recipe: RoundsRecipe, number: int) -> dict[str, Any] | None:
    """What came out of a round, if it is done and its policy still what it was."""
    noted = _folder(recipe, number) / "round.json"
    if not noted.exists():
        return None
    found: dict[str, Any] = json.loads(noted.read_text(encoding="utf-8"))
    return found if found["weights"] == weights_digest(_folder(recipe, number) / "policy") else None


def _round(recipe: RoundsRecipe, number: int, model: str) -> dict[str, Any]:
    folder = _folder(recipe, number)
    folder.mkdir(parents=True, exist_ok=True)
    policy, own = folder / "sampling.yaml", folder / "dpo.yaml"
    write_whole(policy, yaml.safe_dump(_sampling(recipe, number, model), sort_keys=False))
    training = _training(recipe, number, model)
    write_whole(own, yaml.safe_dump(training.model_dump(mode="json", exclude_unset=True), sort_keys=False))
    _step(number, "pairs", [sys.executable, "-m", "flexreward", *_pairs(recipe, number, policy)])
    summary = json.loads((folder / "pairs" / "summary.json").read_text(encoding="utf-8"))
    if not summary["pairs"]["kept"]:
        raise OutputError(
            f"{folder / 'pairs'}: no pair is left to train on; its README.md says why, and keep says what is kept"
        )
    _step(number, "training", [*(recipe.launch or [sys.executable]), "-m", "training.dpo", str(own)])
    evaluation = json.loads((training.run_dir / "evaluation.json").read_text(encoding="utf-8"))
    found = {
        "round": number,
        "model": model,
        "weights": weights_digest(folder / "policy"),
        "pairs": summary["pairs"],
        "flip_rate": summary["flip_rate"],
        "evaluation": evaluation,
    }
    write_whole(folder / "round.json", json.dumps(found, indent=2) + "\n")
    return found


def _sampling(recipe: RoundsRecipe, number: int, model: str) -> dict[str, Any]:
    """A round draws from seeds of its own: the same prompt gets other completions in every round."""
    fields = {"model": model, **recipe.sampling, "seed": recipe.seed + number}
    parse_as(PolicyRecipe, fields, "sampling")
    return fields


def _training(recipe: RoundsRecipe, number: int, model: str) -> DpoRecipe:
    folder = _folder(recipe, number)
    places = {"data": str(folder / "pairs"), "output": str(folder / "policy"), "run_dir": str(folder / "run")}
    return parse({"seed": recipe.seed, **recipe.dpo, "model": model, **places}, DpoRecipe, "dpo")


def _pairs(recipe: RoundsRecipe, number: int, policy: Path) -> list[str]:
    told = ["pairs", recipe.prompts, "--policy", str(policy), "--out", str(_folder(recipe, number) / "pairs")]
    told += ["--judge", recipe.judge, "--keep", recipe.keep, "--seed", str(recipe.seed)]
    told += ["--balance", recipe.balance] if recipe.balance else []
    told += ["--pairs-per-prompt", str(recipe.pairs_per_prompt)] if recipe.pairs_per_prompt else []
    if recipe.shards > 1:
        told += ["--shard", f"{(number - 1) % recipe.shards + 1}/{recipe.shards}"]
    return told


def _step(number: int, name: str, command: Sequence[str]) -> None:
    """A program of its own, whose memory is free when it ends.

    Raises:
        OutputError: It did not end well; it has said why.
    """
    print(f"round {number}: {name}", flush=True)
    with owned():  # it ends with this program, however that ends
        status = subprocess.run(command).returncode
    if status:
        raise OutputError(
            f"round {number}: {name} ended with {status}; mend what it says above, and run the same again"
        )


def _seen_by_server(reload: Reload, folder: Path) -> Path:
    """A folder's path as the server knows it."""
    try:
        return folder.resolve().relative_to(reload.reload_from.resolve())
    except ValueError as error:
        raise RecipeError(f"reload.reload_from: {reload.reload_from} does not hold run_dir {folder}") from error


def _reload(reload: Reload, policy: Path) -> None:
    """Before a round, not after the one before: wherever a kill or a restart of the server came, a round that is taken
    up is judged by what it began with.
    """
    client = RewardClient(reload.url, key=os.environ.get(ADMIN_KEY))
    digest = asyncio.run(client.reload(str(_seen_by_server(reload, policy)), judge=reload.judge))
    print(f"{reload.url}: judges by {policy} now ({digest[:12]})", flush=True)


def _line(number: int, found: dict[str, Any]) -> str:
    check = found["evaluation"].get("check")
    right = (
        f", right {100 * check['before']['greedy']:.1f} % -> {100 * check['after']['greedy']:.1f} %" if check else ""
    )
    return f"round {number}: {found['pairs']['kept']} of {found['pairs']['judged']} pairs kept{right}"


main = program("training.rounds", __doc__, train, RoundsRecipe)


if __name__ == "__main__":
    sys.exit(main())
