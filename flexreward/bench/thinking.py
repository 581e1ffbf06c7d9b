"""Thoughts with a limit: replies that can be read, and verdicts that stay, against replies that are cut.

The bundled judge, greedy, on pairs of its own domain in both orders. ``max_tokens: N`` cuts a reply after N tokens;
``think: N`` cuts the thought there and forces the answer after it. ``readable``: the share of replies that hold a
verdict. ``same_winner``: the share of pairs with the winner, or the tie, of the judge that may think as long as it
likes; a pair without a score has neither. The baseline of a bar is the same share by ``max_tokens``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import product

from flexreward.bench import Bar, interval
from flexreward.bench.engine import requests
from flexreward.config import open_engine, open_judge, resolve_judge
from flexreward.engines.base import Engine
from flexreward.types import JudgeRequest, Judgment, Verdict

NUM_REQUESTS = 60
BUDGETS = (1, 8, 16, 32, 64, 128)
WAITS = range(5)
WAITS_BUDGETS = (64, 128)
"""Within the first no thought ends, so that no wait is reached; within the second all do."""


def bars() -> dict[str, Bar]:
    """All bars, with the bundled judge; nothing is timed."""
    return thinking_bars(NUM_REQUESTS)


def thinking_bars(num_requests: int, budgets: Sequence[int] = BUDGETS, waits: Sequence[int] = WAITS) -> dict[str, Bar]:
    """Two bars a budget, and one for each number of waits at each of theirs."""
    return asyncio.run(_bars(requests(num_requests), budgets, waits))


async def _bars(asked: Sequence[JudgeRequest], budgets: Sequence[int], waits: Sequence[int]) -> dict[str, Bar]:
    engine = open_engine(resolve_judge("tiny"))
    try:
        made: dict[str, Bar] = {}
        free = await judged(engine, asked)
        for budget in budgets:
            cut = await judged(engine, asked, max_tokens=budget)
            forced = await judged(engine, asked, think=budget)
            made[f"readable_think_{budget}"] = _bar(readable(forced), readable(cut), goal=1.0, n=2 * len(asked))
            made[f"same_winner_think_{budget}"] = _bar(same(forced, free), same(cut, free), goal=None, n=len(asked))
        for budget, number in product(WAITS_BUDGETS, waits):
            cut = await judged(engine, asked, waits=number, max_tokens=budget)
            forced = await judged(engine, asked, waits=number, think=budget)
            name = f"readable_think_{budget}_waits_{number}"
            made[name] = _bar(readable(forced), readable(cut), goal=1.0, n=2 * len(asked))
        return made
    finally:
        await engine.close()


async def judged(engine: Engine, asked: Sequence[JudgeRequest], **limits: int) -> list[Judgment]:
    """By the bundled judge with fields of its recipe changed."""
    recipe = resolve_judge("tiny").model_copy(update=limits)
    judge = open_judge(recipe, template="pair", engine=engine)
    return [judgment async for judgment in judge.judge_all(asked)]


def readable(judgments: Sequence[Judgment]) -> list[float]:
    """Share of the replies to each request that hold a verdict."""
    shares = []
    for judgment in judgments:
        votes = [vote for order in judgment.orders for vote in order.votes]
        shares.append(sum(isinstance(vote.outcome, Verdict) for vote in votes) / len(votes))
    return shares


def same(judgments: Sequence[Judgment], others: Sequence[Judgment]) -> list[float]:
    """1 for each request that both score and give to the same completion or to none, else 0."""
    pairs = [(one.outcome, other.outcome) for one, other in zip(judgments, others, strict=True)]
    return [
        float(isinstance(one, Verdict) and isinstance(other, Verdict) and one.preferred == other.preferred)
        for one, other in pairs
    ]


def _bar(ours: Sequence[float], theirs: Sequence[float], *, goal: float | None, n: int) -> Bar:
    """The interval is a bootstrap over requests."""
    value, baseline = (sum(shares) / len(shares) for shares in (ours, theirs))
    return Bar(value=value, goal=goal, baseline=baseline, n=n, interval=interval(ours))
