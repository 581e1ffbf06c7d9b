"""The embedded engine against what a competent user would write, with the bundled judge's own replies.

Each round judges the same requests three ways in one process: the judge with 32 requests in flight; ``model.generate``
on one prompt at a time (a part of the requests: it is slow); ``model.generate`` on left-padded batches of 32 in the
order in which they came. Same weights, dtype, attention and threads, greedy, in inference mode; the two baselines are
given their prompts as token ids, the judge renders, encodes and reads replies as well.
"""

from __future__ import annotations

import asyncio
import importlib.util
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from flexreward.bench import Bar, Interval, overhead
from flexreward.config import resolve_judge
from flexreward.engines.base import Prompt, Sampling
from flexreward.engines.transformers import TransformersEngine
from flexreward.judge import Judge
from flexreward.templates import load_template
from flexreward.types import JudgeRequest

IN_FLIGHT = 32
NUM_REQUESTS = 256
ROUNDS = 5
SAMPLING = Sampling(max_tokens=192)
GOAL_ONE = 4.0
GOAL_STATIC = 1.0


def bars() -> dict[str, Bar]:
    """The engine's bars, those of what the judge adds to any engine, and vLLM's where it is installed."""
    found = measure(resolve_judge("tiny").model) | overhead.bars()
    if importlib.util.find_spec("vllm"):
        from flexreward.bench import vllm

        found |= vllm.bars()
    return found


def measure(
    model: str | Path, *, num_requests: int = NUM_REQUESTS, rounds: int = ROUNDS, sampling: Sampling = SAMPLING
) -> dict[str, Bar]:
    """Both bars of the engine, with any judge."""
    return asyncio.run(_measure(model, num_requests, rounds, sampling))


def requests(number: int, *, seed: int = 0) -> list[JudgeRequest]:
    """Pairs in the domain of the bundled judge, so that it writes what it writes in earnest."""
    rng = random.Random(seed)
    made = []
    for i in range(number):
        a, b = rng.randint(10, 99), rng.randint(10, 99)
        questions = {
            f"What is {a} + {b}?": a + b,
            f"Which is larger, {a}{b % 10} or {b}{a % 10}?": max(int(f"{a}{b % 10}"), int(f"{b}{a % 10}")),
            f"Write {a}{b} backwards.": int(f"{a}{b}"[::-1]),
            f"Eva has {a} shells and gets {b} more. How many are there now?": a + b,
        }
        question, answer = list(questions.items())[i % len(questions)]
        says = [answer, answer + rng.choice((0, 1, -1, 10))]
        rng.shuffle(says)
        texts = tuple(f"The answer is {number}." for number in says)
        made.append(JudgeRequest(id=str(i), prompt=question, completions=texts))
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """``model.generate``, used well."""

    model: Any
    ids: Sequence[tuple[int, ...]]
    """Prompts as token ids."""
    decode: Callable[[Sequence[int]], str]
    max_tokens: int
    temperature: float = 0.0

    def replies(self, size: int) -> list[str]:
        """All replies, in padded batches of ``size`` in the order in which they came."""
        texts: list[str] = []
        with torch.inference_mode():
            for start in range(0, len(self.ids), size):
                texts += self._batch(self.ids[start : start + size])
        return texts

    def _batch(self, rows: Sequence[tuple[int, ...]]) -> list[str]:
        width = max(map(len, rows))
        device = self.model.device
        ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows], device=device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
        pad = self.model.config.get_text_config().pad_token_id
        drawn = {"do_sample": True, "temperature": self.temperature, "top_k": 0} if self.temperature else {}
        how = {"do_sample": False, "use_cache": True, **drawn}
        out = self.model.generate(ids, attention_mask=mask, max_new_tokens=self.max_tokens, pad_token_id=pad, **how)
        return [self.decode(row) for row in out[:, width:].tolist()]


async def _measure(model: str | Path, num_requests: int, rounds: int, sampling: Sampling) -> dict[str, Bar]:
    engine = TransformersEngine(model, batch_size=IN_FLIGHT)
    template = load_template("pair")
    judge = Judge(engine, template, sampling=sampling, both_orders=False)
    asked = requests(num_requests)
    prompts = [template.render(request) for request in asked]
    static = baseline(engine, prompts, sampling)
    one = baseline(engine, prompts[: max(1, num_requests // 8)], sampling)

    async def judged() -> None:
        async for _ in judge.judge_all(asked, max_in_flight=IN_FLIGHT):
            pass

    await judged()
    static.replies(IN_FLIGHT)
    times: dict[str, list[float]] = {"judge": [], "static": [], "one": []}
    for _ in range(rounds):
        start = perf_counter()
        await judged()
        times["judge"].append((perf_counter() - start) / num_requests)
        times["static"].append(_seconds(static, IN_FLIGHT))
        times["one"].append(_seconds(one, 1))
    await engine.close()
    return {
        "judge_over_one_generate_at_a_time": _bar(times["judge"], times["one"], GOAL_ONE, num_requests),
        "judge_over_static_batches_of_32": _bar(times["judge"], times["static"], GOAL_STATIC, num_requests),
    }


def baseline(engine: TransformersEngine, prompts: Sequence[Prompt], sampling: Sampling) -> Baseline:
    """``model.generate`` on the engine's own model."""
    model, encoder, ends = engine.model, engine.reader.encoder, engine.ends

    def decode(ids: Sequence[int]) -> str:
        length = next((i for i, token in enumerate(ids) if token in ends), len(ids))
        return encoder.decode(ids[:length])

    ids = [encoder.encode(prompt).ids for prompt in prompts]
    return Baseline(model=model, ids=ids, decode=decode, max_tokens=sampling.max_tokens)


def _seconds(work: Baseline, size: int) -> float:
    """Seconds a request."""
    start = perf_counter()
    work.replies(size)
    return (perf_counter() - start) / len(work.ids)


def _bar(ours: Sequence[float], theirs: Sequence[float], goal: float, n: int) -> Bar:
    """The median of the rounds' ratios, from the least to the greatest; the baseline in requests a second."""
    ratios = [their / our for our, their in zip(ours, theirs, strict=True)]
    return Bar(
        value=statistics.median(ratios),
        goal=goal,
        baseline=1 / statistics.median(theirs),
        n=n,
        interval=Interval(min(ratios), max(ratios)),
    )
