"""Votes that stop early: tokens saved, and whether every verdict is that of the full vote.

Judges that agree with themselves to a stated degree: the share of replies that prefer whom most of them prefer. Their
replies are scripted, of 40 to 200 tokens, as long as reasoning judges vary, whatever they say. What a stop saves turns
on the engine, so both ends are told:

- ``side_by_side``: all replies begin together and are written at the same pace. The vote ends with the last of those
  that count, and the others lose what they had not yet written. A remote server, which is asked for all at once.
- ``in_parts``: the same, in two parts: those that no vote can do without, then the rest, if it is needed. What the
  engines here do.
- ``one_by_one``: a reply begins when the one before it has ended. The most that there is to save.

The statistical stop is measured over simulated votes of such judges, those that are torn (0.5) among them:
``verdicts_kept`` is the share whose winner, or want of one, is that of the full vote (Clopper-Pearson's interval);
``replies_saved`` is what the error buys. Then an engine is timed: see ``flexreward.bench.passes``.
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
from flexreward.stops import at_once, ends_at, label
from flexreward.templates import load_template
from flexreward.types import JudgeRequest, Outcome, Reply, Verdict, Vote

PAIR = load_template("pair")
VOTES = (3, 5, 7, 9, 15)
AGREEMENTS = (0.6, 0.8, 0.95)
NUM_REQUESTS = 400
NUM_SIMULATED = 4_000
ERROR = 0.05
SHORTEST, LONGEST = 40, 200
SAYS = ("<think>.</think><answer>9</answer><answer>2</answer>", "<think>.</think><answer>3</answer><answer>8</answer>")


VERDICTS = tuple(Verdict(scores=scores, scale=PAIR.scale) for scores in ((9.0, 2.0), (3.0, 8.0)))


class Saved(NamedTuple):
    """Over some requests to one judge."""

    side_by_side: list[float]
    """Share of the full vote's tokens that was not written, by request."""
    in_parts: list[float]
    one_by_one: list[float]
    tokens: float
    """Of a full vote, the mean."""
    num_same: int
    """Requests whose stopped vote has the outcome of the full one, and its winner."""


def bars() -> dict[str, Bar]:
    """What the stops save and what the statistical one costs, by number of votes and agreement; then an engine's."""
    from flexreward.bench import passes

    return saved_bars() | statistical_bars() | passes.bars()


def saved_bars(num_requests: int = NUM_REQUESTS) -> dict[str, Bar]:
    """Shares of tokens saved, the tokens of the full vote beside them, and the share of equal verdicts, all of them."""
    found = {(k, a): asyncio.run(saved(k, a, num_requests)) for k, a in product(VOTES, AGREEMENTS)}
    made: dict[str, Bar] = {}
    for (k, agreement), one in found.items():
        for name in ("side_by_side", "in_parts", "one_by_one"):
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


def statistical_bars(num_votes: int = NUM_SIMULATED, error: float = ERROR) -> dict[str, Bar]:
    """How often a vote that ends at a stated error has the winner of the full vote."""
    from scipy.stats import binomtest

    made: dict[str, Bar] = {}
    for votes, agreement in product((9, 15), (0.5, *AGREEMENTS)):
        rng = random.Random(f"{votes} {agreement}")
        same, spared = 0, list[float]()
        for _ in range(num_votes):
            said = [VERDICTS[rng.random() >= agreement] for _ in range(votes)]
            count = ends_at(said, votes, error)
            assert count is not None
            same += _winner(said[:count]) == _winner(said)
            spared.append(1 - count / votes)
        low, high = binomtest(same, num_votes).proportion_ci()
        name = f"at_error_{error:g}_of_{votes}_votes_at_{agreement:g}"
        made[f"verdicts_kept_{name}"] = Bar(
            value=same / num_votes, goal=1 - error, baseline=1.0, n=num_votes, interval=Interval(low, high)
        )
        mean, margin = statistics.fmean(spared), 1.96 * statistics.pstdev(spared) / num_votes**0.5
        made[f"replies_saved_{name}"] = Bar(
            value=mean, goal=None, baseline=votes, n=num_votes, interval=Interval(mean - margin, mean + margin)
        )
    return made


def _winner(said: Sequence[Outcome]) -> int | None:
    """As ``label`` has it; of two winners alone, none is a tie."""
    outcome = label([Vote(outcome=one, reply=Reply(text="")) for one in said])
    return outcome.preferred if isinstance(outcome, Verdict) else None


async def saved(votes: int, agreement: float, num_requests: int) -> Saved:
    """Each request judged with the stop and without, by the same replies."""

    def in_order_of_length(prompt: Prompt) -> list[Reply]:
        return sorted(replies(prompt, votes, agreement), key=lambda reply: (reply.completion_tokens, reply.index))

    def in_order(prompt: Prompt) -> list[Reply]:
        return replies(prompt, votes, agreement)

    by_length, by_index = ScriptedEngine(in_order_of_length), ScriptedEngine(in_order)
    requests = [JudgeRequest(id=str(i), prompt=f"{i}?", completions=("a", "b")) for i in range(num_requests)]
    result = Saved([], [], [], 0.0, 0)
    tokens: list[int] = []
    num_same = 0
    for request in requests:
        full = await _judge(by_index, votes, stop=None).judge(request)
        side_by_side = await _judge(by_length, votes, stop=0.0).judge(request)
        one_by_one = await _judge(by_index, votes, stop=0.0).judge(request)
        whole = full.completion_tokens
        tokens.append(whole)
        all_of_them, counted = full.orders[0].votes, len(one_by_one.orders[0].votes)
        first = at_once(votes)
        result.side_by_side.append(1 - _written(all_of_them, counted) / whole)
        in_parts = _written(all_of_them[:first], first) + _written(all_of_them[first:], counted - first)
        result.in_parts.append(1 - in_parts / whole)
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


def _written(votes: Sequence[Vote], num_counted: int) -> int:
    """Tokens when these replies begin together, at one pace, and the last of the first few ends them all."""
    last = max((vote.reply.completion_tokens for vote in votes[:num_counted]), default=0)
    return sum(min(vote.reply.completion_tokens, last) for vote in votes)


def _judge(engine: ScriptedEngine, votes: int, *, stop: float | None) -> Judge:
    sampling = Sampling(temperature=1.0)
    return Judge(engine, PAIR, sampling=sampling, votes=votes, aggregate="majority", stop=stop, both_orders=False)
