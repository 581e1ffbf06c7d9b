"""``make proof-grpo``: the bundled policy against the served bundled judge, three seeds, each beside a control.

What the policy can do is told by the domain, which knows the answers; the judge is never asked for it. The control is
trained alike, on the same rewards in a random order.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from flexreward.config import BUNDLED
from flexreward.engines import load_engine
from recipes.grpo import prompts
from recipes.tiny import measure
from training.proof import Parts, record
from training.recipe import GrpoRecipe, load
from training.run import weights_digest

RECIPE = Path("recipes/grpo/tiny_2cores.yaml")
SERVER = Path("recipes/serve/tiny.yaml")
ROOT = Path("runs/grpo")
SEEDS = (0, 1, 2)
NUMBER, SAMPLES = 400, 8
"""Held-out problems of the recipe's kinds, and completions of each."""
SEED = 11
"""Of the problems; not the tests' seed, nor one that was looked at while the recipe was made."""
AT_ONCE = 2
"""Trainings, one a core."""


def main(seeds: tuple[int, ...] = SEEDS, number: int = NUMBER) -> None:
    recipe = load(RECIPE, GrpoRecipe)
    start = weights_digest(Path(recipe.model))
    judge = weights_digest(BUNDLED / "tiny-judge")
    parts = Parts("grpo", basis=f"{start} {judge} {recipe.model_dump_json()} {prompts.KINDS} {number} {SEED}")
    before = parts.get("before", lambda: measured(Path(recipe.model), number))
    names = [(seed, shuffled) for seed in seeds for shuffled in (False, True)]
    runs = parts.get("runs", lambda: trained(recipe, names))
    after = {
        f"{'control' if shuffled else 'judged'}{seed}": parts.get(
            f"after-{seed}-{shuffled}", measuring(folder_of(seed, shuffled), number)
        )
        for seed, shuffled in names
    }
    figures: dict[str, Any] = {"before": before, "after": after, **runs}
    for how in ("greedy", "sampled"):
        rises = [after[f"judged{seed}"][how] - before[how] for seed in seeds]
        over = [after[f"judged{seed}"][how] - after[f"control{seed}"][how] for seed in seeds]
        figures[f"least_rise_{how}"] = min(rises)
        figures[f"least_over_control_{how}"] = min(over)
    record("grpo", figures, Path("recipes/grpo/proofs"), seconds=parts.seconds)


def folder_of(seed: int, shuffled: bool) -> Path:
    return ROOT / f"{'control' if shuffled else 'judged'}-{seed}"


def trained(recipe: GrpoRecipe, names: list[tuple[int, bool]]) -> dict[str, float]:
    """Every training, against one server; and how often reward health raised an alarm in those on true rewards."""
    with served() as url, ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda name: train(recipe, *name, url=url), names))
    clean = [folder_of(seed, shuffled) for seed, shuffled in names if not shuffled]
    alarms = [line["judge/health/alarms"] for folder in clean for line in lines(folder)]
    unscored = [line["judge/unscored"] for name in names for line in lines(folder_of(*name))]
    return {"steps_with_alarm": sum(map(bool, alarms)), "unscored": sum(unscored) / len(unscored)}


def train(recipe: GrpoRecipe, seed: int, shuffled: bool, *, url: str) -> None:
    """One training, in a process of its own."""
    folder = folder_of(seed, shuffled)
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "prompts.jsonl"
    data.write_text(prompts.lines(recipe.steps * recipe.prompts, seed=seed), encoding="utf-8")
    changes = {"seed": seed, "shuffled": shuffled, "reward": {"url": url}, "replace": True}
    places = {"data": str(data), "output": folder / "policy", "run_dir": folder / "run"}
    own = folder / "recipe.yaml"
    own.write_text(yaml.safe_dump(recipe.model_copy(update=changes | places).model_dump(mode="json"), sort_keys=False))
    with (folder / "log.txt").open("w") as log:
        command = [sys.executable, "-m", "training.grpo", str(own)]
        subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT)
    print(f"{folder}: trained", flush=True)


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]


@contextmanager
def served() -> Iterator[str]:
    """The bundled judge behind HTTP."""
    command = [sys.executable, "-c", "from flexreward.cli import main; main()", "serve", str(SERVER)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        said = server.stdout.readline()
        try:
            if " at http" not in said:
                raise SystemExit(f"{SERVER}: the server did not start; see above")
            yield said.split(" at ")[-1].strip()
        finally:
            server.terminate()


def measuring(folder: Path, number: int) -> Callable[[], measure.Figures]:
    return lambda: measured(folder / "policy", number)


def measured(policy: Path, number: int) -> measure.Figures:
    """How often a policy is right on problems that no training has seen."""
    engine = load_engine("transformers", model=str(policy), threads=1)
    problems = [one for one in measure.held_out(number * 4, seed=SEED) if one.kind in prompts.KINDS][:number]
    figures: measure.Figures = asyncio.run(measure.policy(engine, problems, samples=SAMPLES, temperature=1.0))
    return figures


if __name__ == "__main__":
    main()
