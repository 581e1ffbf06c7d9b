"""Prompts of the bundled domain: ``python -m recipes.grpo.prompts --out runs/grpo/prompts.jsonl``. No answers."""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from recipes.tiny import domain

KINDS = ("count",)
"""Kinds at which the bundled policy is neither good nor hopeless, so that its completions differ in what they earn."""
NUMBER = 1024
"""Prompts, each of which comes some thirty times: a judge with a store is paid once for what comes again."""


def lines(number: int, *, seed: int) -> str:
    """One row a line; none of them is held out."""
    problems = domain.problems(random.Random(f"{seed}-grpo"), held_out=False, kinds=KINDS)
    rows = ({"prompt": [{"role": "user", "content": next(problems).question}]} for _ in range(number))
    return "".join(json.dumps(row) + "\n" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--number", type=int, default=NUMBER)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(lines(asked.number, seed=asked.seed), encoding="utf-8")


if __name__ == "__main__":
    main()
