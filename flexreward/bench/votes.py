"""Votes that stop early: tokens saved, and whether every verdict is that of the full vote.

Judges that agree with themselves to a stated degree: the share of replies that prefer whom most of them prefer. Their
replies are scripted, of 40 to 200 tokens, as long as reasoning judges vary, whatever they say. What a stop saves turns
on the engine, so both ends are told:

- ``side_by_side``: all replies are written at the same pace, and end in the order of their lengths. The vote ends with
  the one that decides it, and the others lose what they had not yet written. A GPU with room for all of them.
- ``one_by_one``: a reply begins when the one before it has ended. What the vote did not need was never begun.
"""

from __future__ import annotations

import asyncio
import random
import statistics
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

from flexreward.bench import Bar, Interval, interval
from flexreward.engines.base import Prompt, Sampling
from flexreward.engines.scripted import ScriptedEngine
from flexreward.judge import Judge
from flexreward.stops import label
from flexreward.templates import load_template
from flexreward.types import JudgeRequest, Reply, Vote

PAIR = load_template("pair")
VOTES = (3, 5, 7, 9, 15)
AGREEMENTS = (0.6, 0.8, 0.95)
NUM_REQUESTS = 400
SHORTEST, LONGEST = 40, 200
SAYS = ("<think>.</think><answer>9</answer><answer>2</answer>", "<think>.</think><answer>3</answer><answer>8</answer>")


class Saved(NamedTuple):
    """Over some requests to one judge."""

    side_by_side: list[float]
    """Share of the full vote's tokens that was not written, by request."""
    one_by_one: list[float]
    tokens: float
    """Of a full vote, the mean."""
    num_same: int
    """Requests whose stopped vote has the outcome of the full one, and its winner."""


def bars() -> dict[str, Bar]:
    """What the lossless stop saves, by number of votes and agreement; no engine is timed."""
    return saved_bars()


def saved_bars(num_requests: int = NUM_REQUESTS) -> dict[str, Bar]:
    """Shares of tokens saved, the tokens of the full vote beside them, and the share of equal verdicts, all of them."""
    found = {(k, a): asyncio.run(saved(k, a, num_requests)) for k, a in product(VOTES, AGREEMENTS)}
    made: dict[str, Bar] = {}
    for (k, agreement), one in found.items():
        for name in ("side_by_side", "one_by_one"):
            shares = getattr(one, name)
            made[f"tokens_saved_{name}_of_{k}_votes_at_{agreement:g}"] = Bar(
                value=statistics.fmean(shares),
                goal=None,
                baseline=one.tokens,
                n=num_requests,
                interval=interval(shares),
            )
    same = sum(one.num_same for one in found.values()) / (num_requests * len(found))
    made["verdicts_equal_to_the_full_vote"] = Bar(
        value=same, goal=1.0, baseline=1.0, n=num_requests * len(found), interval=Interval(same, same)
    )
    return made


async def saved(votes: int, agreement: float, num_requests: int) -> Saved:
    """Each request judged with the stop and without, by the same replies."""

    def in_order_of_length(prompt: Prompt) -> list[Reply]:
        return sorted(replies(prompt, votes, agreement), key=lambda reply: (reply.completion_tokens, reply.index))

    def in_order(prompt: Prompt) -> list[Reply]:
        return replies(prompt, votes, agreement)

    by_length, by_index = ScriptedEngine(in_order_of_length), ScriptedEngine(in_order)
    requests = [JudgeRequest(id=str(i), prompt=f"{i}?", completions=("a", "b")) for i in range(num_requests)]
    result = Saved([], [], 0.0, 0)
    tokens: list[int] = []
    num_same = 0
    for request in requests:
        full = await _judge(by_index, votes, stop=None).judge(request)
        side_by_side = await _judge(by_length, votes, stop=0.0).judge(request)
        one_by_one = await _judge(by_index, votes, stop=0.0).judge(request)
        whole = full.completion_tokens
        tokens.append(whole)
        result.side_by_side.append(1 - _written(full.orders[0].votes, side_by_side.orders[0].votes) / whole)
        result.one_by_one.append(1 - one_by_one.completion_tokens / whole)
        expected = label(full.orders[0].votes)
        winners = {getattr(one.outcome, "preferred", "unscored") for one in (full, side_by_side, one_by_one)}
        num_same += side_by_side.outcome == one_by_one.outcome == expected and len(winners) == 1
    return result._replace(tokens=statistics.fmean(tokens), num_same=num_same)


def replies(prompt: Prompt, votes: int, agreement: float) -> list[Reply]:
    """What the judge says of this prompt, in the order of ``index``: the same replies whenever it is asked."""
    rng = random.Random(f"{votes} {agreement} {prompt.user}")
    likes = rng.randrange(2)
    return [
        Reply(
            text=SAYS[likes if rng.random() < agreement else 1 - likes],
            index=index,
            completion_tokens=rng.randint(SHORTEST, LONGEST),
        )
        for index in range(votes)
    ]


def _written(full: Sequence[Vote], read: Sequence[Vote]) -> int:
    """Tokens when all replies are written at one pace and the last that was read ends the vote."""
    last = max(vote.reply.completion_tokens for vote in read)
    return sum(min(vote.reply.completion_tokens, last) for vote in full)


def _judge(engine: ScriptedEngine, votes: int, *, stop: float | None) -> Judge:
    sampling = Sampling(temperature=1.0)
    return Judge(engine, PAIR, sampling=sampling, votes=votes, aggregate="majority", stop=stop, both_orders=False)
