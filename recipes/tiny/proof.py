"""``make proof-tiny``: the bundled judge and policy on held-out problems, kind by kind, and the engine's bench."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from flexreward import bench
from flexreward.config import BUNDLED, open_engine, resolve_judge
from flexreward.engines import load_engine
from flexreward.engines.base import Engine
from recipes.tiny import domain, measure
from training.proof import Parts, record

NUMBER = 800
"""Held-out problems."""
SEED = 2
"""Not the tests' seed, nor one that was looked at while the judge was made."""


def main() -> None:
    judge = open_engine(resolve_judge("tiny"))
    policy = load_engine("transformers", model=str(BUNDLED / "tiny-policy"), threads=1)
    problems = measure.held_out(NUMBER, seed=SEED)
    few = problems[: NUMBER // 4]
    parts = Parts("tiny", basis=f"{judge.identity} {policy.identity} {NUMBER} {SEED}")

    def part(name: str, engine: Engine, run: Callable[[Engine], Awaitable[measure.Figures]]) -> measure.Figures:
        figures: measure.Figures = parts.get(name, lambda: asyncio.run(run(engine)))
        print(name, {key: round(value, 4) for key, value in figures.items()}, flush=True)
        return figures

    figures = {
        "pairwise": part("pairwise", judge, lambda e: measure.pairwise(e, problems, seed=SEED)),
        "any_slip": part("any_slip", judge, lambda e: measure.pairwise(e, few, seed=SEED, miss=domain.slip)),
        "pointwise": part("pointwise", judge, lambda e: measure.pointwise(e, problems, seed=SEED)),
        "canaries": part("canaries", judge, lambda e: measure.canaries(e, problems)),
        "corrupted": part("corrupted", judge, lambda e: measure.corrupted_thoughts(e, few, seed=SEED)),
        "listwise": part("listwise", judge, lambda e: measure.listwise(e, few, seed=SEED)),
        "policy": part("policy", policy, lambda e: measure.policy(e, problems, samples=8, temperature=1.0)),
    }
    figures["bench"] = parts.get("bench", lambda: {name: bar.value for name, bar in bench.measure("engine").items()})
    print("bench", figures["bench"], flush=True)
    record("tiny", figures, Path("recipes/tiny/proofs"), seconds=parts.seconds)


if __name__ == "__main__":
    main()
