"""A run folder as a quickstart leaves it: small problems, known answers, a fair policy, a fallible judge."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from flexreward.pairs.best_of_n import Prompt, curve

NUM_COMPLETIONS = 16


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """Eight problems with sixteen completions each, and the comparisons among them."""
    return build_run(tmp_path / "run", num_problems=8)


@pytest.fixture
def build():
    """The builder itself, for runs of other sizes."""
    return build_run


def build_run(path: Path, *, num_problems: int, seed: int = 1, pairs_each: int = 3) -> Path:
    rng = random.Random(seed)
    samples = [_sample(f"p{i:03d}", rng) for i in range(num_problems)]
    outcomes = [
        _row(f"{sample['id']}#{k}", "score", [_order([0], [[completion]], rng, sample)])
        for sample in samples
        for k, completion in enumerate(sample["completions"])
    ]
    compared = [_comparison(sample, pair, rng) for sample in samples for pair in _pairs(sample, pairs_each, rng)]
    dropped = [{"id": row["id"], "reason": why} for row in compared if (why := _why_dropped(row))]
    write_lines(path / "samples.jsonl", samples)
    write_lines(path / "outcomes.jsonl", [_header("score", 5), *outcomes])
    write_lines(path / "pairs" / "pair_outcomes.jsonl", [_header("pair", 10), *compared])
    write_lines(path / "pairs" / "dropped.jsonl", dropped)
    (path / "summary.json").write_text(json.dumps(_summary(samples, outcomes, compared, dropped)))
    return path


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _sample(name: str, rng: random.Random) -> dict[str, Any]:
    a, b = rng.randint(12, 89), rng.randint(12, 89)
    digits = [str(rng.randint(0, 9)) for _ in range(4)]
    word = "".join(rng.choice("KLMNPRST") for _ in range(5))
    kind, prompt, work, answer = rng.choice(
        [
            (
                "add",
                f"What is {a} + {b}?",
                f"{a} plus {b}, ones first: {a % 10} + {b % 10} = {a % 10 + b % 10}.",
                str(a + b),
            ),
            ("sort", f"Put the digits {' '.join(digits)} in rising order.", "Smallest first.", "".join(sorted(digits))),
            ("reverse", f"Spell {word} from the end.", "Letter by letter, last one first.", word[::-1]),
        ]
    )
    rate = rng.choice([0.0, 0.2, 0.4, 0.6, 0.8])
    says = [answer if rng.random() < rate else _near_miss(answer, rng) for _ in range(NUM_COMPLETIONS)]
    return {
        "id": name,
        "kind": kind,
        "prompt": prompt,
        "answer": answer,
        "completions": [rng.choice(["The answer is {}.", "It is {}.", "{}"]).format(said) for said in says],
        "right": [said == answer for said in says],
        "work": work,
    }


def _near_miss(answer: str, rng: random.Random) -> str:
    at = rng.randrange(len(answer) - 1)
    swapped = answer[:at] + answer[at + 1] + answer[at] + answer[at + 2 :]
    return swapped if swapped != answer else answer[:-1] + ("7" if answer[-1] != "7" else "1")


def _pairs(sample: Mapping[str, Any], count: int, rng: random.Random) -> list[tuple[int, int]]:
    texts = sample["completions"]
    pairs = [(i, j) for i, j in itertools.combinations(range(len(texts)), 2) if texts[i] != texts[j]]
    return sorted(rng.sample(pairs, min(count, len(pairs))))


def _order(order: list[int], shown: list[list[str]], rng: random.Random, sample: Mapping[str, Any]) -> dict[str, Any]:
    texts, top = [text for [text] in shown], 5 if len(shown) == 1 else 9
    result = sample["answer"] if rng.random() < 0.93 else _near_miss(sample["answer"], rng)
    marks = [top if result in text else 2 for text in texts]
    if len(marks) == 2 and rng.random() < 0.12:
        marks = [top, 3]  # whatever stands first
    names = ["The assistant"] if len(texts) == 1 else ["Assistant 1", "Assistant 2"]
    remarks = [
        f"{name} says {text!r}: {'right' if mark == top else 'wrong'}."
        for name, text, mark in zip(names, texts, marks, strict=True)
    ]
    thought = "\n".join([f"{sample['work']} The result is {result}.", *remarks])
    reply = f"<think>\n{thought}</think> " + " ".join(f"<answer>{mark}</answer>" for mark in marks)
    scores, reason = [float(marks[order.index(i)]) for i in range(len(order))], None
    if rng.random() < 0.02:
        reply, scores, reason = reply[: len(reply) // 2], None, "no_end"
    vote = {"scores": scores, "reason": reason, "reply": reply, "finish_reason": "stop"}
    return {"order": order, "scores": scores, "reason": reason, "votes": [vote]}


def _comparison(sample: Mapping[str, Any], pair: tuple[int, int], rng: random.Random) -> dict[str, Any]:
    texts = [sample["completions"][i] for i in pair]
    orders = [_order(order, [[texts[i]] for i in order], rng, sample) for order in ([0, 1], [1, 0])]
    return _row(f"{sample['id']}#{pair[0]}-{pair[1]}", "pair", orders)


def _row(name: str, template: str, orders: list[dict[str, Any]]) -> dict[str, Any]:
    read = [order["scores"] for order in orders if order["scores"]]
    scored = len(read) == len(orders)
    scores = [sum(column) / len(read) for column in zip(*read, strict=True)] if scored else None
    return {
        "id": name,
        "template": template,
        "status": "scored" if scored else "unscored",
        "reason": None if scored else orders[0]["reason"] if len(orders) == 1 else "quorum",
        "scores": scores,
        "tie": scored and len(orders) > 1 and scores[0] == scores[1],
        "orders": orders,
        "judge": "8c1f" * 4,
        "tokens": {"prompt": 60, "completion": 40},
    }


def _why_dropped(row: Mapping[str, Any]) -> str | None:
    if row["status"] == "unscored":
        return "unscored"
    (a, b), (c, d) = (order["scores"] for order in row["orders"])
    winners = {(a > b) - (a < b), (c > d) - (c < d)}
    if len(winners) == 2:
        return "half_tied" if 0 in winners else "flipped"
    return "tied" if winners == {0} else None


def _header(template: str, high: int) -> dict[str, Any]:
    return {
        "flexreward": "0.1.0",
        "judge": {"fingerprint": "8c1f" * 4, "model": "tiny-judge", "engine": "transformers"},
        "template": {"id": template, "digest": "00", "scale": [1, high]},
    }


def _summary(samples: Any, outcomes: Any, compared: Any, dropped: Any) -> dict[str, Any]:
    scores = [row["scores"][0] if row["scores"] else None for row in outcomes]
    prompts = [
        Prompt(tuple(scores[i * NUM_COMPLETIONS : (i + 1) * NUM_COMPLETIONS]), tuple(map(float, sample["right"])))
        for i, sample in enumerate(samples)
    ]
    drawn = curve(prompts, [1, 2, 4, 8, 16])
    reasons = [row["reason"] for row in dropped]
    return {
        "best_of_n": {str(n): e.mean for n, e in drawn.judge.items()},
        "oracle": {str(n): e.mean for n, e in drawn.oracle.items()},
        "shuffled": {str(n): e.mean for n, e in drawn.shuffled.items()},
        "intervals": {str(n): [e.low, e.high] for n, e in drawn.judge.items()},
        "pairs": {
            "kept": len(compared) - len(dropped),
            "dropped": {reason: reasons.count(reason) for reason in sorted(set(reasons))},
            "tied": reasons.count("tied"),
        },
        "parse_rate": 0.981,
        "flip_rate": reasons.count("flipped") / max(1, len(compared)),
        "judgments_per_s": 41.7,
    }
