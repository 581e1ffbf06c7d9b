"""A vote of eight with the lossless stop against eight seeded passes, in judgments a second, on an engine that runs.

Both sides are asked for the same: eight replies of the bundled judge to each pair, at temperature 1. The judge has them
from one prefill, begins with the five that no vote can do without, and ends where the rest can change nothing. The
baseline is what a competent user writes without it: eight passes over all prompts, each with a seed of its own, every
reply written. Nobody reads the baseline's replies; the judge renders, encodes, reads and counts as well.

The pairs are of different answers, a right one and a near miss: the bundled judge agrees with itself on most, as a good
judge does on what is easy. ``agreement`` and ``votes_read`` say how far, and a judge of less agreement saves less.

Each round checks that every verdict is that of the full vote, by a judge without the stop on the same engine.

- ``vllm``: eight calls of ``LLM.generate`` over all prompts, prefix cache on, same arguments. The judge gets larger
  heads, which vLLM needs on a CPU (see ``padded``).
- ``transformers``: no prefix cache there; the passes are eight judges of one vote with other seeds, one engine.
"""

from __future__ import annotations

import asyncio
import importlib.util
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from flexreward.bench import Bar, Interval
from flexreward.bench.engine import requests
from flexreward.bench.padded import padded
from flexreward.config import open_engine, resolve_judge
from flexreward.engines.base import Engine, Sampling
from flexreward.judge import Judge
from flexreward.stops import label
from flexreward.templates import load_template
from flexreward.types import JudgeRequest, Judgment, Verdict

VOTES = 8
GOAL = 2.2
NUM_REQUESTS = 64
ROUNDS = 3
SAMPLING = Sampling(temperature=1.0, max_tokens=160)
PAIR = load_template("pair")


class Round(NamedTuple):
    judge_s: float
    passes_s: float
    full_s: float
    """The same vote without the stop."""
    num_same: int
    votes_read: float
    agreement: float
    """Share of a full vote's replies that prefer whom most of them prefer, the mean."""


def bars() -> dict[str, Bar]:
    """The bars of the embedded engine, and of vLLM where it is installed."""
    found = on_transformers()
    if importlib.util.find_spec("vllm"):
        found |= on_vllm()
    return found


def on_transformers(num_requests: int = NUM_REQUESTS // 4, rounds: int = 5) -> dict[str, Bar]:
    """The bundled judge as it is."""
    engine = open_engine(resolve_judge("tiny"))
    asked = pairs(num_requests)

    def passes(seed: int) -> None:
        for number in range(VOTES):
            sampling = Sampling(temperature=1.0, max_tokens=SAMPLING.max_tokens, seed=seed * VOTES + number + 1)
            _timed(Judge(engine, PAIR, sampling=sampling, both_orders=False), asked)

    try:
        return _bars("transformers", _rounds(engine, passes, asked, rounds), num_requests, goal=None)
    finally:
        asyncio.run(engine.close())


def on_vllm(num_requests: int = NUM_REQUESTS, rounds: int = ROUNDS) -> dict[str, Bar]:
    """The bundled judge in larger heads; then a quarter of the requests, so that a pass alone fills no batch."""
    from flexreward.bench.vllm import offline
    from flexreward.engines.vllm import VLLMEngine

    with tempfile.TemporaryDirectory() as folder:
        engine = VLLMEngine(padded(resolve_judge("tiny").model, Path(folder) / "tiny-judge"), max_context=1024)
        llm = offline(engine)
    params = llm.get_default_sampling_params()
    params.temperature, params.max_tokens = SAMPLING.temperature, SAMPLING.max_tokens
    params.stop_token_ids = sorted(engine.ends)

    def measured(name: str, num: int, goal: float | None) -> dict[str, Bar]:
        asked = pairs(num)
        prompts = [
            {"prompt_token_ids": list(engine.reader.encoder.encode(PAIR.render(request)).ids)} for request in asked
        ]

        def passes(seed: int) -> None:
            for number in range(VOTES):
                seeded = params.clone()
                seeded.seed = seed * VOTES + number + 1
                llm.generate(prompts, seeded, use_tqdm=False)

        return _bars(name, _rounds(engine, passes, asked, rounds), num, goal=goal)

    try:
        few = max(num_requests // 4, 1)
        return measured("vllm", num_requests, GOAL) | measured(f"vllm_of_{few}", few, None)
    finally:
        asyncio.run(engine.close())
        llm.llm_engine.engine_core.shutdown()


def pairs(number: int) -> list[JudgeRequest]:
    """Pairs of different answers."""
    made = (request for request in requests(4 * number) if request.completions[0] != request.completions[1])
    return [request for request, _ in zip(made, range(number), strict=False)]


def _rounds(engine: Engine, passes: Callable[[int], None], asked: Sequence[JudgeRequest], rounds: int) -> list[Round]:
    """One more is done, and the first, which warms, is left out."""
    found = []
    for seed in range(rounds + 1):
        sampling = Sampling(temperature=1.0, max_tokens=SAMPLING.max_tokens, seed=seed)
        stopping, full = (
            Judge(engine, PAIR, sampling=sampling, votes=VOTES, aggregate="majority", stop=stop, both_orders=False)
            for stop in (0.0, None)
        )
        stopped, judge_s = _timed(stopping, asked)
        start = perf_counter()
        passes(seed)
        passes_s = perf_counter() - start
        whole, full_s = _timed(full, asked)
        votes = [judgment.orders[0].votes for judgment in whole]
        found.append(
            Round(
                judge_s,
                passes_s,
                full_s,
                sum(some.outcome == label(all_of_them) for some, all_of_them in zip(stopped, votes, strict=True)),
                statistics.fmean(len(judgment.orders[0].votes) for judgment in stopped),
                statistics.fmean(_agreement(judgment) for judgment in whole),
            )
        )
    return found[1:]


def _timed(judge: Judge, asked: Sequence[JudgeRequest]) -> tuple[list[Judgment], float]:
    """All judgments and the seconds they took, as many in flight as there are."""

    async def judged() -> list[Judgment]:
        return [judgment async for judgment in judge.judge_all(asked, max_in_flight=len(asked))]

    start = perf_counter()
    judgments = asyncio.run(judged())
    return judgments, perf_counter() - start


def _agreement(judgment: Judgment) -> float:
    votes = judgment.orders[0].votes
    said = Counter(vote.outcome.preferred if isinstance(vote.outcome, Verdict) else "unread" for vote in votes)
    return max(said.values()) / len(votes)


def _bars(engine: str, rounds: Sequence[Round], n: int, *, goal: float | None) -> dict[str, Bar]:
    """Medians of the rounds, from the least to the greatest. Baselines are the passes', in judgments a second."""
    per_s = n / statistics.median(one.passes_s for one in rounds)

    def bar(values: Sequence[float], goal: float | None, baseline: float) -> Bar:
        spread = Interval(min(values), max(values))
        return Bar(value=statistics.median(values), goal=goal, baseline=baseline, n=n, interval=spread)

    return {
        f"{engine}_8_votes_over_8_passes": bar([one.passes_s / one.judge_s for one in rounds], goal, per_s),
        f"{engine}_8_votes_without_a_stop_over_8_passes": bar([r.passes_s / r.full_s for r in rounds], None, per_s),
        f"{engine}_verdicts_equal_to_the_full_vote": bar([one.num_same / n for one in rounds], 1.0, 1.0),
        f"{engine}_share_of_votes_read": bar([one.votes_read / VOTES for one in rounds], None, 1.0),
        f"{engine}_agreement": bar([one.agreement for one in rounds], None, 1.0),
    }
