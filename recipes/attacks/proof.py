"""``make proof-attacks``: the bundled judge, and wrong completions that argue for themselves."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

from flexreward.config import open_engine, resolve_judge
from recipes.attacks import measure
from recipes.attacks.families import FAMILIES
from recipes.tiny.measure import Figures, held_out
from training.proof import Parts, record

NUMBER = 400
"""Held-out problems; a quarter of them meets each sentence of a family."""
SEED = 3
"""Not the tests' seeds, nor the one of ``make proof-tiny``."""


def main() -> None:
    judge = open_engine(resolve_judge("tiny"))
    problems = held_out(NUMBER, seed=SEED)
    sentences = hashlib.sha256(repr(FAMILIES).encode()).hexdigest()
    parts = Parts("attacks", basis=f"{judge.identity} {sentences} {NUMBER} {SEED}")

    def part(name: str, run: Callable[[], Coroutine[Any, Any, Figures]]) -> Figures:
        figures: Figures = parts.get(name, lambda: asyncio.run(run()))
        print(name, {key: round(value, 4) for key, value in figures.items()}, flush=True)
        return figures

    figures = {
        family: {
            "pair": part(f"{family}-pair", partial(measure.against_right, judge, problems, family, seed=SEED)),
            "score": part(f"{family}-score", partial(measure.alone, judge, problems, family, seed=SEED)),
        }
        for family in FAMILIES
    }
    on_right = partial(measure.against_right, judge, problems, "remark", seed=SEED, said_of="right")
    figures["remark"]["pair_on_right"] = part("remark-pair-on-right", on_right)
    record("attacks", figures, Path("recipes/attacks/proofs"), seconds=parts.seconds)


if __name__ == "__main__":
    main()
