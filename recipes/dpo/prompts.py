"""Prompts of the bundled domain, to sample and to ask at the end: ``python -m recipes.dpo.prompts --out runs/dpo``.

``prompts.jsonl`` holds prompts alone. ``held_out.jsonl`` holds others, with their answers, which no training sees.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recipes.tiny import domain

KINDS = ("count",)
"""Kinds at which the bundled policy is neither good nor hopeless, so that a judge has something to choose between."""
NUMBER = 1024
HELD_OUT = 500


def rows(number: int, *, seed: int, held_out: bool, answers: str = "") -> list[dict[str, str]]:
    """Different prompts; those that are held out with their answers.

    Args:
        answers: A column for the answers of the others too, which no training reads.
    """
    name = "reference" if held_out else answers
    stream = domain.problems(random.Random(f"{seed}-dpo-{held_out}"), held_out=held_out, kinds=KINDS)
    found: dict[str, dict[str, str]] = {}
    while len(found) < number:
        problem = next(stream)
        found[problem.question] = {"prompt": problem.question} | ({name: problem.answer} if name else {})
    return list(found.values())


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--number", type=int, default=NUMBER)
    parser.add_argument("--held-out", type=int, default=HELD_OUT)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    write(asked.out / "prompts.jsonl", rows(asked.number, seed=asked.seed, held_out=False))
    write(asked.out / "held_out.jsonl", rows(asked.held_out, seed=asked.seed, held_out=True))


if __name__ == "__main__":
    main()
