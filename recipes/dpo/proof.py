"""``make proof-dpo``: the bundled policy trained on pairs that the bundled judge chose, three seeds, beside controls.

The policy draws completions of prompts; the judge, behind ``flexreward serve``, compares them in both orders; what it
says alike in both becomes pairs. Each seed trains on prompts of its own. The judge is never told what is right: that
comes from the domain, which knows the answers, when a policy is measured.

    judged      pairs that survive the order flip
    random      as many pairs of the same prompts, the winner drawn by a coin
    truth       as many pairs of a right and a wrong completion: a judge that is never wrong
    single      a judge that follows the place (recipes.dpo.biased), asked in one order, every winner believed
    consistent  the same judge in both orders, as many pairs, those that survive the flip
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml
from matplotlib.figure import Figure

from flexreward.config import BUNDLED
from flexreward.engines import load_engine
from flexreward.engines.base import Sampling
from flexreward.pairs.best_of_n import estimate
from recipes.dpo import prompts
from recipes.dpo.arms import ARMS, SHARE, agreement, write_arms
from recipes.serve.started import served
from recipes.tiny import domain, measure
from training.proof import Parts, record
from training.recipe import DpoRecipe, load
from training.run import weights_digest

RECIPE = Path("recipes/dpo/tiny_2cores.yaml")
PROOFS = Path("recipes/dpo/proofs")
ROOT = Path("runs/dpo/proof")
SEEDS = (0, 1, 2)
PROMPTS = 2048
"""Of each seed."""
COMPLETIONS = 2
"""At each of the two temperatures."""
HELD_OUT, SAMPLES = 500, 16
SEED = 21
"""Of the problems; not one that was looked at while the recipe was made."""


def main(seeds: Sequence[int] = SEEDS, number: int = PROMPTS, held_out: int = HELD_OUT) -> None:
    recipe = load(RECIPE, DpoRecipe)
    weights = [weights_digest(BUNDLED / name) for name in ("tiny-policy", "tiny-judge")]
    basis = f"{weights} {recipe.model_dump_json()} {number} {COMPLETIONS} {held_out} {SHARE} {SEED}"
    parts = Parts("dpo", basis=basis)
    folder = ROOT / f"{number}"
    with ExitStack() as stack:
        server = cache(lambda: stack.enter_context(served(ROOT)))
        chosen = parts.get("pairs", partial(pairs, folder, len(seeds) * number, server))
        best = parts.get("best", partial(best_of_n, folder, held_out, server))
    sizes = parts.get("sizes", lambda: {f"seed{seed}": write_arms(folder, seed, number) for seed in seeds})
    jobs = [(arm, seed) for seed in seeds for arm in ARMS]

    def after_training(job: tuple[str, int]) -> dict[str, Any]:
        return dict(parts.get(f"{job[0]}-{job[1]}", partial(trained, recipe, folder, *job, held_out)))

    with ThreadPoolExecutor(2) as pool:  # a core each
        after = dict(zip(jobs, pool.map(after_training, jobs), strict=True))
    before = parts.get("before", partial(measured, str(BUNDLED / "tiny-policy"), held_out))
    figures: dict[str, Any] = {
        "before": shares(before),
        "pairs": chosen,
        "sizes": sizes,
        "best": best,
        "after": {arm: {f"seed{seed}": shares(after[arm, seed]) for seed in seeds} for arm in ARMS},
        "train_seconds": sum(one["seconds"] for one in after.values()) / len(after),
    }
    for how in ("greedy", "sampled"):
        gains = {arm: [100 * (after[arm, seed][how] - before[how]) for seed in seeds] for arm in ARMS}
        figures[f"gain_{how}"] = {arm: fmean(gains[arm]) for arm in ARMS}
        figures[f"least_{how}"] = {arm: min(gains[arm]) for arm in ARMS}
        figures[f"most_{how}"] = {arm: max(gains[arm]) for arm in ARMS}
        figures[f"flip_{how}"] = difference(
            [(after["consistent", s][f"each_{how}"], after["single", s][f"each_{how}"]) for s in seeds]
        )
    record("dpo", figures, PROOFS, seconds=parts.seconds)
    draw(figures, PROOFS / "dpo.svg")


def pairs(folder: Path, number: int, server: Callable[[], str]) -> dict[str, Any]:
    """Completions drawn and judged, by the command that a user would run; what became of the pairs."""
    rows = prompts.rows(number, seed=SEED, held_out=False, answers="answer")
    prompts.write(folder / "prompts.jsonl", [{"id": f"q{i}", **row} for i, row in enumerate(rows)])
    options = ["--policy", "tiny", "--completions", str(COMPLETIONS), "--judge", server(), "--keep", "uncut"]
    began = time.monotonic()
    run("flexreward", "pairs", str(folder / "prompts.jsonl"), *options, "--no-store", "--out", str(folder / "pairs"))
    summary = json.loads((folder / "pairs" / "summary.json").read_bytes())
    return {
        "prompts": number,
        "seconds": time.monotonic() - began,
        "kept": summary["pairs"]["kept"],
        "judged": summary["pairs"]["judged"],
        "flip_rate": summary["flip_rate"],
        "agrees": agreement(folder),
    }


def best_of_n(folder: Path, held_out: int, server: Callable[[], str]) -> dict[str, Any]:
    """The curve of best-of-N over the held-out problems, each completion scored alone by the served judge."""
    problems = measure.held_out(held_out, seed=SEED, kinds=prompts.KINDS)
    engine = load_engine("transformers", model=str(BUNDLED / "tiny-policy"), threads=1)
    sampling = Sampling(temperature=1.0, max_tokens=24, n=SAMPLES)
    drawn = asyncio.run(measure.completions(engine, problems, sampling))
    path = folder / "best_samples.jsonl"
    rows: list[dict[str, Any]] = [
        {"prompt": p.question, "completions": texts, "right": [domain.answer_in(text) == p.answer for text in texts]}
        for p, texts in zip(problems, drawn, strict=True)
    ]
    prompts.write(path, rows)
    options = ["--judge", server(), "--truth", "right", "--no-store", "--out", str(folder / "best")]
    run("flexreward", "best-of-n", str(path), *options)
    curve = json.loads((folder / "best" / "curve.json").read_bytes())
    found = {f"n{n}": curve["best_of_n"][n]["mean"] for n in curve["best_of_n"]}
    low, high = found["n1"], curve["oracle"][str(SAMPLES)]["mean"]
    return {**found, "oracle": high, "share_of_the_way": (found[f"n{SAMPLES}"] - low) / (high - low)}


def trained(recipe: DpoRecipe, folder: Path, arm: str, seed: int, held_out: int) -> dict[str, Any]:
    """One training in a process of its own, and what its policy can do."""
    own = folder / f"{arm}-{seed}"
    places = {"data": str(folder / f"{arm}-{seed}.jsonl"), "output": str(own / "policy"), "run_dir": str(own / "run")}
    changes = places | {"seed": seed, "eval_share": 0.0, "check": None, "replace": True}
    own.mkdir(parents=True, exist_ok=True)
    changed = recipe.model_dump(mode="json") | changes
    (own / "recipe.yaml").write_text(yaml.safe_dump(changed, sort_keys=False))
    began = time.monotonic()
    run("training.dpo", str(own / "recipe.yaml"), log=own / "log.txt")
    seconds = time.monotonic() - began
    found = measured(str(own / "policy"), held_out) | {"seconds": seconds}
    print(f"{arm}, seed {seed}: {shares(found)}, trained in {seconds:.0f} s", flush=True)
    return found


def measured(policy: str, held_out: int) -> dict[str, Any]:
    """How often a policy is right on problems that no training has seen, and on which."""
    engine = load_engine("transformers", model=policy, threads=1)
    problems = measure.held_out(held_out, seed=SEED, kinds=prompts.KINDS)

    async def draw() -> list[list[list[str]]]:
        greedy = Sampling(max_tokens=24)
        drawn = Sampling(max_tokens=24, n=8, temperature=1.0)
        return [await measure.completions(engine, problems, one) for one in (greedy, drawn)]

    found: dict[str, Any] = {}
    for how, texts in zip(("greedy", "sampled"), asyncio.run(draw()), strict=True):
        each = [fmean(domain.answer_in(t) == p.answer for t in ts) for p, ts in zip(problems, texts, strict=True)]
        found |= {how: fmean(each), f"each_{how}": each}
    return found


def shares(figures: dict[str, Any]) -> dict[str, float]:
    return {how: figures[how] for how in ("greedy", "sampled")}


def difference(pairs: Sequence[tuple[list[float], list[float]]]) -> dict[str, float]:
    """Points by which the first of two policies is ahead on the same problems, over all seeds, with a 95 % interval."""
    ahead = [fmean(one[i] - other[i] for one, other in pairs) for i in range(len(pairs[0][0]))]
    mean, low, high = (100 * value for value in estimate(ahead))
    return {"mean": mean, "low": low, "high": high}


def run(module: str, *arguments: str, log: Path | None = None) -> None:
    command = [sys.executable, "-m", module, *arguments]
    with ExitStack() as stack:
        out = stack.enter_context(log.open("w")) if log else None
        subprocess.run(command, check=True, stdout=out, stderr=subprocess.STDOUT if out else None)


def draw(figures: dict[str, Any], path: Path) -> None:
    """What each arm gained, sampled and greedy, a dot a seed."""
    axes = (figure := Figure(figsize=(7, 3.2), layout="constrained")).subplots()
    for place, how in enumerate(("sampled", "greedy")):
        for at, arm in enumerate(ARMS):
            values = [100 * (one[how] - figures["before"][how]) for one in figures["after"][arm].values()]
            x = at + 0.4 * place - 0.2
            color, label = ("tab:blue", "tab:gray")[place], how if at == 0 else None
            axes.bar(x, fmean(values), width=0.36, color=color, label=label)
            axes.plot([x] * len(values), values, "k.", markersize=4)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xticks(range(len(ARMS)), labels=ARMS)
    axes.set_ylabel("points gained on held-out problems")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
