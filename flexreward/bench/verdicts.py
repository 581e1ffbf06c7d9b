"""An eval folder as big as one likes, with replies as long as real ones: what the page of verdicts is measured on."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WORDS = """
the assistant first second answer question gives says because however detail correct wrong helpful relevant accurate
missing explains image shows clearly step therefore both user asks level better worse example score criteria
"""
GROUPS = ("general", "hallucination", "reasoning", "safety", "writing", "maths")
REASONING_CHARS, COMPLETION_CHARS, PROMPT_CHARS = (900, 3_600), (200, 1_600), (80, 500)
"""The shortest and longest: of reasoning judges and of the models that they judge, as published replies have them."""


def write_eval_folder(folder: Path, num_rows: int, *, seed: int = 0, complete: bool = True) -> Path:
    """Pairs judged in both orders by a fair judge that follows the place now and then.

    Returns:
        ``folder``, with ``outcomes.jsonl``, ``samples.jsonl`` and ``summary.json``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    with (folder / "outcomes.jsonl").open("w") as outcomes, (folder / "samples.jsonl").open("w") as samples:
        outcomes.write(json.dumps(HEADER) + "\n")
        for number in range(num_rows):
            sample, outcome = _row(number, rng)
            samples.write(json.dumps(sample) + "\n")
            outcomes.write(json.dumps(outcome) + "\n")
    expected = num_rows if complete else 2 * num_rows
    summary = SUMMARY | {"rows": num_rows, "expected_rows": expected, "complete": complete}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def _row(number: int, rng: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    human = rng.choice([[1, 0], [0, 1], [1, 0], [0, 1], [1, 1]])
    group = GROUPS[min(int(rng.expovariate(0.8)), len(GROUPS) - 1)]
    orders = [_order(list(order), human, rng) for order in ((0, 1), (1, 0))]
    read = [order["scores"] for order in orders if order["scores"]]
    scores = [sum(both) / 2 for both in zip(*read, strict=True)] if len(read) == 2 else None
    sample: dict[str, Any] = {
        "id": f"row-{number:06d}",
        "prompt": f"{number}. {_text(rng, PROMPT_CHARS)}?",
        "completions": [_text(rng, COMPLETION_CHARS) for _ in range(2)],
        "images": None,
        "videos": None,
        "audios": None,
        "human": human,
        "group": group,
    }
    outcome = {
        "id": sample["id"],
        "request": f"{number:016x}",
        "template": "pair",
        "status": "scored" if scores else "unscored",
        "reason": None if scores else "quorum",
        "detail": "",
        "scores": scores,
        "preferred": None,
        "tie": scores is not None and scores[0] == scores[1],
        "orders": orders,
        "judge": HEADER["judge"]["fingerprint"],
        "tokens": {"prompt": 900, "completion": 800},
        "human": human,
        "group": group,
        "systems": ["alpha-7b", "beta-13b"],
        "words": [len(text.split()) for text in sample["completions"]],
        "columns": {},
    }
    return sample, outcome


def _order(order: list[int], human: list[int], rng: random.Random) -> dict[str, Any]:
    marks = [min(10, max(1, 4 + 4 * human[i] + rng.randint(-3, 2))) for i in order]
    if rng.random() < 0.15:
        marks = [8, 4]  # whatever stands first
    scores: list[float] | None = [float(marks[order.index(i)]) for i in range(2)]
    reply = f"<think>\n{_text(rng, REASONING_CHARS)}</think> <answer>{marks[0]}</answer> <answer>{marks[1]}</answer>"
    reason = None
    if rng.random() < 0.02:
        reply, scores, reason = reply[: len(reply) // 2], None, "no_end"
    vote = {"scores": scores, "reason": reason, "reply": reply, "finish_reason": "stop"}
    return {"order": order, "scores": scores, "reason": reason, "votes": [vote]}


def _text(rng: random.Random, chars: tuple[int, int]) -> str:
    size, parts = rng.randint(*chars), []
    while size > 0:
        sentence = _SENTENCES[rng.randrange(len(_SENTENCES))]
        parts.append(sentence)
        size -= len(sentence) + 1
    return " ".join(parts)


def _sentences(seed: int, count: int) -> Iterator[str]:
    rng, words = random.Random(seed), WORDS.split()
    for _ in range(count):
        yield " ".join(rng.choices(words, k=rng.randint(6, 18))).capitalize() + "."


_SENTENCES = tuple(_sentences(1, 2_000))

HEADER: dict[str, Any] = {
    "flexreward": "0.1.0",
    "judge": {"fingerprint": "8c1f" * 4, "model": "made-up-judge", "engine": "scripted", "aggregate": "mean"},
    "template": {"id": "pair", "digest": "5d41402a", "scale": [1, 10]},
}
SUMMARY: dict[str, Any] = {
    "benchmark": "made-up",
    "title": "Made-up pairs",
    "headline": "accuracy",
    "higher_is_better": True,
    "task": "pair",
    "judge": HEADER["judge"],
    "template": HEADER["template"],
    "published": {"accuracy": 0.7213},
    "strict": {"accuracy": {"value": 0.7145, "low": 0.7081, "high": 0.7207, "n": 2}},
    "quirks": [],
    "unscored": {},
    "reply_reasons": {},
    "parse_rate": 0.98,
}
