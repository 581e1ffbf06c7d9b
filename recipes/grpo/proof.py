"""``make proof-grpo``: the bundled policy against the served bundled judge, three seeds, each beside a control.

What the policy can do is told by the domain, which knows the answers; the judge is never asked for it. The control is
trained alike, on the same rewards in a random order. Rises are in points of a hundred.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from statistics import fmean
from typing import Any

import httpx
import yaml
from matplotlib.figure import Figure

from flexreward.config import BUNDLED
from flexreward.engines import load_engine
from recipes.grpo import prompts
from recipes.serve.started import served
from recipes.tiny import domain, measure
from training.proof import Parts, record
from training.recipe import GrpoRecipe, load
from training.run import weights_digest

RECIPE = Path("recipes/grpo/tiny_2cores.yaml")
PROOFS = Path("recipes/grpo/proofs")
ROOT = Path("runs/grpo/proof")
SEEDS = (0, 1, 2)
NUMBER, SAMPLES = 800, 8
"""Held-out problems of the recipe's kinds, and completions of each."""
OTHERS = 40
"""Held-out problems of each other kind, to see what becomes of those."""
BLOCK = 5
"""Batches to a point of the drawing."""
SEED = 12
"""Of the problems; not the tests' seed, nor one that was looked at while the recipe was made."""


def main(seeds: tuple[int, ...] = SEEDS, number: int = NUMBER) -> None:
    recipe = load(RECIPE, GrpoRecipe)
    start = weights_digest(Path(recipe.model))
    judge = weights_digest(BUNDLED / "tiny-judge")
    data = f"{prompts.KINDS} {prompts.NUMBER}"
    parts = Parts("grpo", basis=f"{start} {judge} {recipe.model_dump_json()} {data} {number} {OTHERS} {SEED}")
    before = parts.get("before", lambda: measured(Path(recipe.model), number))
    with ExitStack() as stack:
        server = cache(lambda: stack.enter_context(served(ROOT)))
        runs = {seed: parts.get(f"runs-{seed}", partial(trained, recipe, seed, server)) for seed in seeds}
    names = [name for seed in seeds for name in (f"judged{seed}", f"control{seed}")]
    after = {name: parts.get(f"after-{name}", partial(measured, ROOT / name / "policy", number)) for name in names}
    figures: dict[str, Any] = {
        "before": before,
        "after": after,
        "seconds": {name: seconds for run in runs.values() for name, seconds in run["seconds"].items()},
        "seconds_together": sum(run["seconds_together"] for run in runs.values()),
        "judgments": {f"seed{seed}": run["judgments"] for seed, run in runs.items()},
        "steps_with_alarm": sum(run["steps_with_alarm"] for run in runs.values()),
        "unscored": sum(run["unscored"] for run in runs.values()) / len(runs),
    }
    for how in ("greedy", "sampled"):
        rises = [after[f"judged{seed}"][how] - before[how] for seed in seeds]
        over = [after[f"judged{seed}"][how] - after[f"control{seed}"][how] for seed in seeds]
        figures[f"least_rise_{how}"] = 100 * min(rises)
        figures[f"least_over_control_{how}"] = 100 * min(over)
    record("grpo", figures, PROOFS, seconds=parts.seconds)
    draw({name: curve for run in runs.values() for name, curve in run["rewards"].items()}, PROOFS / "grpo.svg")


def trained(recipe: GrpoRecipe, seed: int, server: Callable[[], str]) -> dict[str, Any]:
    """A training and its control beside each other, one a core: their times, and how the judge did.

    ``steps_with_alarm`` are those of the training alone, which gets true rewards.
    """
    began = time.monotonic()
    url = server()
    names = [f"judged{seed}", f"control{seed}"]
    before = judgments(url)
    with ThreadPoolExecutor(len(names)) as pool:
        seconds = list(pool.map(lambda name: train(recipe, name, seed=seed, url=url), names))
    metrics = {name: lines(ROOT / name) for name in names}
    unscored = [line["judge/unscored"] for name in names for line in metrics[name]]
    return {
        "seconds": dict(zip(names, seconds, strict=True)),
        "seconds_together": time.monotonic() - began,
        "judgments": judgments(url) - before,
        "steps_with_alarm": sum(line["judge/health/alarms"] > 0 for line in metrics[names[0]]),
        "unscored": sum(unscored) / len(unscored),
        "rewards": {name: [(line["step"], line["reward"]) for line in metrics[name]] for name in names},
    }


def train(recipe: GrpoRecipe, name: str, *, seed: int, url: str) -> float:
    """One training, anew and in a process of its own; returns the seconds that it took."""
    folder = ROOT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    data = folder / "prompts.jsonl"
    data.write_text(prompts.lines(prompts.NUMBER, seed=recipe.seed), encoding="utf-8")
    changes = {"seed": seed, "shuffled": name.startswith("control"), "reward": {"url": url}}
    places = {"data": str(data), "output": folder / "policy", "run_dir": folder / "run"}
    own = folder / "recipe.yaml"
    own.write_text(yaml.safe_dump(recipe.model_copy(update=changes | places).model_dump(mode="json"), sort_keys=False))
    began = time.monotonic()
    with (folder / "log.txt").open("w") as log:
        command = [sys.executable, "-m", "training.grpo", str(own)]
        subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT)
    seconds = time.monotonic() - began
    print(f"{folder}: trained in {seconds:.0f} s", flush=True)
    return seconds


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]


def judgments(url: str) -> int:
    """That the server has bought so far: those found in its store are left out."""
    counts = {"flexreward_judgments_total": 0.0, "flexreward_kept_total": 0.0}
    for line in httpx.get(f"{url}/metrics", trust_env=False).text.splitlines():
        name = line.split("{")[0]
        if name in counts:
            counts[name] += float(line.rsplit(" ", 1)[1])
    return int(counts["flexreward_judgments_total"] - counts["flexreward_kept_total"])


def draw(curves: dict[str, list[tuple[int, float]]], path: Path) -> None:
    """Mean rewards over the steps, in blocks of ``BLOCK`` batches."""
    axes = (figure := Figure(figsize=(7, 3.5), layout="constrained")).subplots()
    for name, curve in curves.items():
        blocks = [curve[at : at + BLOCK] for at in range(0, len(curve), BLOCK)]
        steps, means = zip(*(map(fmean, zip(*block, strict=True)) for block in blocks), strict=True)
        control = name.startswith("control")
        axes.plot(steps, means, color="tab:gray" if control else "tab:blue", linestyle=":" if control else "-")
    axes.set(xlabel="step", ylabel="the judge's reward", ylim=(0, 1))
    axes.legend(axes.lines[:2], ["trained on the judge's rewards", "control: rewards shuffled"], loc="lower left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def measured(policy: Path, number: int) -> measure.Figures:
    """How often a policy is right on problems that no training has seen; ``others`` are of the kinds not trained on."""
    engine = load_engine("transformers", model=str(policy), threads=1)

    def right(problems: list[domain.Problem], samples: int) -> measure.Figures:
        return asyncio.run(measure.policy(engine, problems, samples=samples, temperature=1.0))

    rest = [kind for kind in domain.KINDS if kind not in prompts.KINDS]
    others = right(measure.held_out(OTHERS * len(rest), seed=SEED, kinds=rest), 1)
    figures = right(measure.held_out(number, seed=SEED, kinds=prompts.KINDS), SAMPLES)
    return figures | {f"others_{how}": others[how] for how in ("greedy", "sampled")}


if __name__ == "__main__":
    main()
