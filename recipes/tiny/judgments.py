"""The judge's lessons in the wire formats: ``python -m recipes.tiny.judgments --out FILE``.

Writes JSONL rows of ``system``, ``user`` and ``reply`` for ``training.judge_sft``: worked judgments of training
problems under the ``pair`` and ``score`` prompts, as a teacher that never errs would write them.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from flexreward.templates import load_template
from flexreward.types import JudgeRequest
from recipes.tiny import domain

TOP = {"pair": 9, "score": 5}
"""The mark of a right completion on each template's scale."""

HARD = ("sort", "reverse", "count", "filter")
"""Shown twice as often as the rest: digits that stand twice are easily lost."""


def judgment(problem: domain.Problem, seen: list[domain.Completion], *, template: str) -> str:
    """The reply of a judge that works the problem, then holds each completion against the result."""
    numbers = [None] if len(seen) == 1 else range(1, len(seen) + 1)
    remarks = [domain.remark(i, c.says, problem.answer) for i, c in zip(numbers, seen, strict=True)]
    thought = "\n".join([domain.result(problem), *remarks])
    marks = [domain.mark(c.says, problem.answer, top=TOP[template]) for c in seen]
    return f"<think>\n{thought}</think> " + " ".join(f"<answer>{mark}</answer>" for mark in marks)


def rows(number: int, *, seed: int) -> list[dict[str, str]]:
    """Half of them pairwise, half pointwise; every tenth pair shows the same text twice."""
    rng = random.Random(f"{seed}-judgments")
    stream = domain.problems(rng, held_out=False, kinds=(*domain.KINDS, *HARD))
    made = []
    for i in range(number):
        name = ("pair", "score")[i % 2]
        problem = next(stream)
        seen = [domain.completion(problem, rng) for _ in range(2 - i % 2)]
        if len(seen) == 2 and rng.random() < 0.1:
            seen[1] = seen[0]
        request = JudgeRequest(prompt=problem.question, completions=tuple(c.text for c in seen))
        prompt = load_template(name).render(request)
        made.append({"system": prompt.system, "user": prompt.user, "reply": judgment(problem, seen, template=name)})
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--number", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("w", encoding="utf-8") as file:
        for row in rows(args.number, seed=args.seed):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    print(f"{args.number} judgments in {args.out}")


if __name__ == "__main__":
    main()
