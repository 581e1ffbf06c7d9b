"""Preference pairs of a policy: completions and verdicts streamed through one engine, against passes that wait.

The bundled judge is policy and judge on one warm vLLM engine with its prefix cache on: each prompt is completed at two
temperatures, and the two completions are compared in both orders as soon as they are there. Texts end by themselves, so
that their lengths differ as they do in earnest. The baselines write the same tokens, from the same prompts and seeds,
and differ in when:

- ``four_passes``: the same engine; all completions at 0.8, all at 1.2, all comparisons in one order, all in the other.
- ``transformers_in_batches_of_4``: ``model.generate`` with the same weights, four passes in padded batches of four.
- ``saturated``: what the engine writes a second when it has all prompts of policy and judge at once.

Nothing is kept between rounds, and the prefix cache is emptied before each side begins. The batches of four run before
vLLM has a process that waits for work beside them.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from flexreward.bench import Bar, Interval
from flexreward.bench.engine import Baseline, baseline, requests
from flexreward.config import resolve_judge
from flexreward.engines.base import Engine, Prompt, Sampling
from flexreward.engines.transformers import TransformersEngine
from flexreward.engines.vllm import VLLMEngine
from flexreward.files.samples import Sample
from flexreward.inflight import map_in_order
from flexreward.judge import Judge
from flexreward.policy.asking import prompt_of
from flexreward.policy.policy import Policy
from flexreward.policy.recipe import PolicyRecipe
from flexreward.templates import load_template
from flexreward.types import JudgeRequest, Judgment

NUM_PROMPTS = 192
NUM_IN_BATCHES = 32
"""Prompts of the slow baseline."""
IN_FLIGHT = 96
ROUNDS = 5
TEMPERATURES = (0.8, 1.2)
POLICY_TOKENS, JUDGE_TOKENS = 128, 192
GOAL_PASSES, GOAL_BATCHES, GOAL_SATURATED = 1.15, 4.0, 0.9
PAIR = load_template("pair")
ORDERS = ((0, 1), (1, 0))
DRAWN, JUDGED = Sampling(max_tokens=POLICY_TOKENS), Sampling(max_tokens=JUDGE_TOKENS)


def bars() -> dict[str, Bar]:
    """All three, with the bundled judge."""
    return measure(resolve_judge("tiny").model)


def measure(
    model: str | Path, *, num_prompts: int = NUM_PROMPTS, num_in_batches: int = NUM_IN_BATCHES, rounds: int = ROUNDS
) -> dict[str, Bar]:
    """The three bars, with any text model that vLLM runs; a round more warms, and is left out."""
    asked = [prompts(num_prompts, seed=turn) for turn in range(rounds + 1)]
    rates = asyncio.run(_batch_rates(model, [some[:num_in_batches] for some in asked]))
    return asyncio.run(_measure(model, asked, rates))


class Flow(NamedTuple):
    """A policy and its judge on one engine."""

    engine: Engine
    policy: Policy
    judge: Judge


def flow_on(engine: Engine, model: str | Path, *, temperatures: Sequence[float] = TEMPERATURES) -> Flow:
    recipe = PolicyRecipe(model=str(model), temperatures=list(temperatures), max_tokens=POLICY_TOKENS)
    judge = Judge(engine, PAIR, sampling=JUDGED)
    return Flow(engine, Policy(recipe, engine=engine), judge)


def prompts(number: int, *, seed: int) -> list[Sample]:
    """Questions in the domain of the bundled judge."""
    return [Sample(id=f"{seed}-{one.id}", prompt=one.prompt, completions=()) for one in requests(number, seed=seed)]


async def streamed(flow: Flow, asked: Sequence[Sample]) -> list[Judgment]:
    """Each pair judged as soon as it is there."""

    async def requests() -> AsyncIterator[JudgeRequest]:
        async for drawn in flow.policy.complete_all(asked, max_in_flight=IN_FLIGHT):
            yield drawn.sample.request()

    return [judgment async for judgment in flow.judge.judge_all(requests(), max_in_flight=IN_FLIGHT)]


async def in_passes(engine: Engine, model: str | Path, asked: Sequence[Sample]) -> list[Judgment]:
    """Four passes, each of which waits for the one before it: the judgments of both orders."""
    drawn: list[list[Sample]] = []
    for temperature in TEMPERATURES:
        policy = flow_on(engine, model, temperatures=[temperature]).policy
        drawn.append([one.sample async for one in policy.complete_all(asked, max_in_flight=len(asked))])
    pairs = [
        replace(first, completions=first.completions + second.completions) for first, second in zip(*drawn, strict=True)
    ]
    judge = Judge(engine, PAIR, sampling=JUDGED, both_orders=False)
    found: list[Judgment] = []
    for order in ORDERS:
        found += [
            one async for one in judge.judge_all([pair.only(order, id="") for pair in pairs], max_in_flight=len(pairs))
        ]
    return found


async def at_once(engine: Engine, work: Sequence[tuple[Prompt, Sampling]]) -> int:
    """Everything handed over at once; the tokens written."""

    async def one(item: tuple[Prompt, Sampling]) -> int:
        return sum([reply.completion_tokens async for reply in engine.generate(*item)])

    return sum([count async for count in map_in_order(one, work, max_in_flight=len(work))])


def in_batches(own: TransformersEngine, asked: Sequence[Sample], pairs: Sequence[Sample]) -> float:
    """Seconds of four passes of ``model.generate``, four rows each."""
    asks = [prompt_of(sample) for sample in asked]
    began = perf_counter()
    for temperature in TEMPERATURES:
        _four_by_four(own, asks, replace(DRAWN, temperature=temperature)).replies(4)
    for order in ORDERS:
        shown = [PAIR.render(pair.only(order, id="")) for pair in pairs]
        _four_by_four(own, shown, JUDGED).replies(4)
    return perf_counter() - began


def _four_by_four(own: TransformersEngine, asks: Sequence[Prompt], sampling: Sampling) -> Baseline:
    return replace(baseline(own, asks, sampling), temperature=sampling.temperature)


async def _batch_rates(model: str | Path, asked: Sequence[Sequence[Sample]]) -> list[float]:
    """Prompts a second in batches of four, a round each."""
    own = TransformersEngine(model)
    rates = []
    for some in asked:
        drawn = [one.sample async for one in flow_on(own, model).policy.complete_all(some)]
        rates.append(len(some) / in_batches(own, some, drawn))
    await own.close()
    return rates[1:]


async def _measure(model: str | Path, asked: Sequence[Sequence[Sample]], batches: Sequence[float]) -> dict[str, Bar]:
    engine = VLLMEngine(model)
    flow = flow_on(engine, model)
    streamed_rates, passes_rates = list[float](), list[float]()
    token_rates, saturated_rates = list[float](), list[float]()
    for some in asked:
        _forget(engine)
        start = perf_counter()
        ours = await streamed(flow, some)
        streamed_s = perf_counter() - start
        _forget(engine)
        start = perf_counter()
        theirs = await in_passes(engine, model, some)
        passes_s = perf_counter() - start
        _check_alike(ours, theirs)
        drawn = [one async for one in flow.policy.complete_all(some)]
        work = [(PAIR.render(one.sample.only(order, id="")), JUDGED) for one in drawn for order in ORDERS]
        for temperature in TEMPERATURES:
            draws = (replace(DRAWN, temperature=temperature, seed=seed) for seed in range(len(some)))
            work += list(zip(map(prompt_of, some), draws, strict=True))
        _forget(engine)
        start = perf_counter()
        saturated_rates.append(await at_once(engine, work) / (perf_counter() - start))
        streamed_rates.append(len(some) / streamed_s)
        passes_rates.append(len(some) / passes_s)
        written = sum(one.completion_tokens for one in ours) + sum(one.completion_tokens for one in drawn)
        token_rates.append(written / streamed_s)
    await engine.close()
    n = len(asked[0])
    return {
        "streamed_over_four_passes": _bar(streamed_rates[1:], passes_rates[1:], GOAL_PASSES, n),
        "streamed_over_transformers_in_batches_of_4": _bar(streamed_rates[1:], batches, GOAL_BATCHES, n),
        "tokens_over_the_saturated_engine": _bar(token_rates[1:], saturated_rates[1:], GOAL_SATURATED, n),
    }


def _forget(engine: VLLMEngine) -> None:
    """Empty the prefix cache, so that the same prompts may come again."""
    engine._loop.submit(engine._llm.reset_prefix_cache()).result()


def _check_alike(ours: Sequence[Judgment], theirs: Sequence[Judgment]) -> None:
    """Both sides wrote the same, but for how sums of floats are rounded in other batches."""
    counts = [sum(one.completion_tokens for one in side) for side in (ours, theirs)]
    assert abs(counts[0] - counts[1]) < 0.02 * counts[1], f"the two did different work: {counts} tokens"


def _bar(ours: Sequence[float], theirs: Sequence[float], goal: float, n: int) -> Bar:
    """The median of the rounds' ratios, from the least to the greatest; the baseline's own rate."""
    ratios = [our / their for our, their in zip(ours, theirs, strict=True)]
    return Bar(
        value=statistics.median(ratios),
        goal=goal,
        baseline=statistics.median(theirs),
        n=n,
        interval=Interval(min(ratios), max(ratios)),
    )
