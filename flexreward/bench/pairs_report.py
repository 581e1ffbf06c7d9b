"""Pairs filtered anew and shown: ``flexreward pairs`` with another rule over a million judged pairs, report included.

The folder is as a run leaves it: prompts with two completions, one a temperature, each pair judged in both orders with
replies of some hundred words. The command runs in a process of its own, as a user starts it; the time is the wall's,
the memory the most that was resident. The baseline is the floor: both files read line by line and nothing else.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from flexreward.bench import Bar, Interval
from flexreward.bench.verdicts import WORDS
from flexreward.config import open_judge, resolve_judge
from flexreward.files.outcomes import encode, header_of, request_digest
from flexreward.files.samples import Sample

NUM_PAIRS = 1_000_000
GOAL_S, GOAL_MB = 60.0, 2_000.0
JUDGE = "scripted:longer"
PROMPT_CHARS, COMPLETION_CHARS, REASONING_CHARS = (80, 400), (120, 700), (500, 1_100)
TEMPERATURES = (0.8, 1.2)
UNREADABLE, FLIPPED = 0.01, 0.12
"""Shares of the pairs."""


def bars(num_pairs: int = NUM_PAIRS) -> dict[str, Bar]:
    """Seconds and megabytes of the whole command; and the processor's seconds, which stay on a busy machine."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_pairs_folder(folder, num_pairs)
        floor = read(folder)
        found = filtered(folder)
    return {
        "pairs_report_s": _bar(found.seconds, floor.seconds, GOAL_S, num_pairs),
        "pairs_report_cpu_s": _bar(found.cpu_s, floor.cpu_s, None, num_pairs),
        "pairs_report_mb": _bar(found.peak_mb, floor.peak_mb, GOAL_MB, num_pairs),
    }


class Taken(NamedTuple):
    """What one run took."""

    seconds: float
    cpu_s: float
    peak_mb: float


def filtered(folder: Path, *options: str) -> Taken:
    """The command over what ``write_pairs_folder`` wrote."""
    command = ["-m", "flexreward", "pairs", str(folder / "samples.jsonl"), "--out", str(folder)]
    return _taken([*command, "--judge", JUDGE, "--no-store", "--keep", "margin=2", "--json", *options], folder)


def read(folder: Path) -> Taken:
    """The floor: every line of both files as JSON, and nothing else."""
    names = [str(folder / name) for name in ("samples.jsonl", "pair_outcomes.jsonl")]
    return _taken(["-c", READ, *names], folder)


READ = """
import json, sys
for name in sys.argv[1:]:
    with open(name, "rb") as file:
        for line in file:
            json.loads(line)
"""


STARTED = """
import os, subprocess, sys, time
began = time.monotonic()
child = subprocess.Popen(sys.argv[2:], stdout=open(sys.argv[1], "wb"))
_, status, used = os.wait4(child.pid, 0)
print(time.monotonic() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""A process as small as can be: what one has in memory when it starts a child counts as the child's."""


def _taken(arguments: list[str], folder: Path) -> Taken:
    """What a process took that ran Python with ``arguments``; what it printed stands in ``folder``."""
    command = [sys.executable, "-S", "-c", STARTED, str(folder / "printed"), sys.executable, *arguments]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return Taken(*map(float, told.split()))


def write_pairs_folder(folder: Path, num_pairs: int, *, seed: int = 0) -> Path:
    """``samples.jsonl``, and ``pair_outcomes.jsonl`` as the scripted judge would have left it for other replies."""
    rng = random.Random(seed)
    text = " ".join(rng.choices(WORDS.split(), k=200_000))
    judge = open_judge(resolve_judge(JUDGE), template="pair")
    with (folder / "samples.jsonl").open("wb") as samples, (folder / "pair_outcomes.jsonl").open("wb") as outcomes:
        outcomes.write(encode(header_of(judge)))
        for number in range(num_pairs):
            sample, outcome = _row(number, text, judge.fingerprint, rng)
            samples.write(encode(sample))
            outcomes.write(encode(outcome))
    return folder


def _row(number: int, text: str, judge: str, rng: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    prompt, texts = f"{number}. {_part(text, PROMPT_CHARS, rng)}?", [_part(text, COMPLETION_CHARS, rng) for _ in "ab"]
    right = [rng.random() < 0.6, rng.random() < 0.4]
    sample = {
        "id": f"q{number:07d}",
        "prompt": prompt,
        "completions": texts,
        "origins": [
            {"finish_reason": "stop", "temperature": temperature, "seed": number} for temperature in TEMPERATURES
        ],
        "right": right,
    }
    name = f"{sample['id']}#0-1"
    request = Sample(id=name, prompt=prompt, completions=tuple(texts)).only((0, 1), id=name)
    marks = [
        min(10, max(1, 4 + 3 * good + (len(one) > 400) + rng.randint(-3, 2)))
        for good, one in zip(right, texts, strict=True)
    ]
    follows_place = rng.random() < FLIPPED
    orders = []
    for order in ([0, 1], [1, 0]):
        scores: list[float] | None = [float(marks[i]) for i in range(2)]
        if follows_place:
            scores = [8.0 if order[0] == i else 4.0 for i in range(2)]
        slots = [scores[i] for i in order] if scores else []
        reply = f"<think>{_part(text, REASONING_CHARS, rng)}</think>" + "".join(
            f"<answer>{s:g}</answer>" for s in slots
        )
        reason = None
        if rng.random() < UNREADABLE / 2:
            reply, scores, reason = reply[:200], None, "no_end"
        vote = {"scores": scores, "reason": reason, "reply": reply, "finish_reason": "stop"}
        orders.append({"order": order, "scores": scores, "reason": reason, "votes": [vote]})
    read = [order["scores"] for order in orders if order["scores"]]
    scores = [sum(both) / 2 for both in zip(*read, strict=True)] if len(read) == 2 else None
    outcome = {
        "id": name,
        "request": request_digest(request),
        "template": "pair",
        "status": "scored" if scores else "unscored",
        "reason": None if scores else "quorum",
        "detail": "",
        "scores": scores,
        "preferred": None if scores is None or scores[0] == scores[1] else int(scores[1] > scores[0]),
        "tie": scores is not None and scores[0] == scores[1],
        "confidence": None,
        "orders": orders,
        "judge": judge,
        "tokens": {"prompt": 600, "completion": 400},
    }
    return sample, outcome


def _part(text: str, chars: tuple[int, int], rng: random.Random) -> str:
    size = rng.randint(*chars)
    start = rng.randrange(len(text) - size)
    return text[start : start + size]


def _bar(value: float, baseline: float, goal: float | None, num_pairs: int) -> Bar:
    """Of one run: what it measures is long enough to be one."""
    return Bar(value=value, goal=goal, baseline=baseline, n=num_pairs, interval=Interval(value, value))
