"""Preference pairs of a policy: completions and verdicts streamed through one engine, against passes that wait.

One model is policy and judge, on one warm vLLM engine with its prefix cache on: each prompt is completed at two
temperatures, and the two completions are compared in both orders as soon as they are there. The baselines do the same
work, the same prompts and seeds, and differ in when:

- ``four_passes``: the same engine; all completions at 0.8, all at 1.2, all comparisons in one order, all in the other.
- ``transformers_in_batches_of_4``: ``model.generate`` with the same weights, four passes in padded batches of four.
- ``saturated``: what the engine writes a second when it has all prompts of policy and judge at once.

The model is made here, of Qwen2's architecture with random weights and the bundled judge's tokenizer (see
``flexreward.bench.vllm``): nearly every text goes on to its limit, so that all have the same tokens to write. Nothing
is kept between rounds, and prompts are new in each, so that no round finds another's in the prefix cache.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from flexreward.bench import Bar, Interval
from flexreward.bench.engine import Baseline, baseline
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

NUM_PROMPTS = 96
NUM_IN_BATCHES = 24
"""Prompts of the slow baseline."""
IN_FLIGHT = 64
ROUNDS = 5
TEMPERATURES = (0.8, 1.2)
POLICY_TOKENS, JUDGE_TOKENS = 64, 96
GOAL_PASSES, GOAL_BATCHES, GOAL_SATURATED = 1.15, 4.0, 0.9
PAIR = load_template("pair")
DRAWN, JUDGED = Sampling(max_tokens=POLICY_TOKENS), Sampling(max_tokens=JUDGE_TOKENS)
WORDS = [
    "amber",
    "brick",
    "cedar",
    "delta",
    "ember",
    "fjord",
    "grove",
    "heron",
    "ivory",
    "jetty",
    "knoll",
    "lemon",
    "maple",
    "north",
    "ocean",
    "pearl",
    "quartz",
]


def bars() -> dict[str, Bar]:
    """All three, with a model that is made for them."""
    from flexreward.bench.vllm import random_model

    with tempfile.TemporaryDirectory() as folder:
        return measure(random_model(Path(folder) / "model"))


def measure(
    model: str | Path, *, num_prompts: int = NUM_PROMPTS, num_in_batches: int = NUM_IN_BATCHES, rounds: int = ROUNDS
) -> dict[str, Bar]:
    """The three bars, with any text model that vLLM runs."""
    return asyncio.run(_measure(model, num_prompts, num_in_batches, rounds))


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
    """Questions of some fifty words, no two alike."""
    rng = random.Random(seed)
    texts = (" ".join(rng.choices(WORDS, k=48)) for _ in range(number))
    return [Sample(id=str(i), prompt=f"Go on: {text}", completions=()) for i, text in enumerate(texts)]


async def streamed(flow: Flow, asked: Sequence[Sample]) -> list[Judgment]:
    """Each pair judged as soon as it is there."""

    async def requests() -> AsyncIterator[JudgeRequest]:
        async for drawn in flow.policy.complete_all(asked, max_in_flight=IN_FLIGHT):
            yield drawn.sample.request()

    return [judgment async for judgment in flow.judge.judge_all(requests(), max_in_flight=IN_FLIGHT)]


async def in_passes(engine: Engine, model: str | Path, asked: Sequence[Sample]) -> list[Judgment]:
    """Four passes, each of which waits for the one before it."""
    drawn: list[list[Sample]] = []
    for temperature in TEMPERATURES:
        policy = flow_on(engine, model, temperatures=[temperature]).policy
        drawn.append([one.sample async for one in policy.complete_all(asked, max_in_flight=len(asked))])
    pairs = [
        replace(first, completions=first.completions + second.completions) for first, second in zip(*drawn, strict=True)
    ]
    judge = Judge(engine, PAIR, sampling=JUDGED, both_orders=False)
    found: list[Judgment] = []
    for turned in (False, True):
        requests = [pair.only((1, 0) if turned else (0, 1), id=pair.id) for pair in pairs]
        found += [one async for one in judge.judge_all(requests, max_in_flight=len(requests))]
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
    for turned in (False, True):
        shown = [PAIR.render(pair.only((1, 0) if turned else (0, 1), id="")) for pair in pairs]
        _four_by_four(own, shown, JUDGED).replies(4)
    return perf_counter() - began


def _four_by_four(own: TransformersEngine, asks: Sequence[Prompt], sampling: Sampling) -> Baseline:
    return replace(baseline(own, asks, sampling), temperature=sampling.temperature)


async def _measure(model: str | Path, num_prompts: int, num_in_batches: int, rounds: int) -> dict[str, Bar]:
    engine, own = VLLMEngine(model), TransformersEngine(model)
    over_passes, over_batches, over_saturated = list[float](), list[float](), list[float]()
    passes_rates, batches_rates, saturated_rates = list[float](), list[float](), list[float]()
    for turn in range(rounds + 1):
        ours, theirs = (prompts(num_prompts, seed=2 * turn + side) for side in range(2))
        flow = flow_on(engine, model)
        start = perf_counter()
        judged = await streamed(flow, ours)
        streamed_s = perf_counter() - start
        start = perf_counter()
        other = await in_passes(engine, model, theirs)
        passes_s = perf_counter() - start
        third, fourth = (prompts(num_prompts, seed=1000 + 2 * turn + side) for side in range(2))
        drawn = [one.sample async for one in flow.policy.complete_all(third)]
        shown = [PAIR.render(sample.only(order, id="")) for sample in drawn for order in ((0, 1), (1, 0))]
        work = [(prompt, JUDGED) for prompt in shown]
        for temperature in TEMPERATURES:
            draws = (replace(DRAWN, temperature=temperature, seed=seed) for seed in range(num_prompts))
            work += list(zip(map(prompt_of, fourth), draws, strict=True))
        start = perf_counter()
        tokens = await at_once(engine, work)
        saturated = tokens / (perf_counter() - start)
        if turn == 0:  # warms everything
            in_batches(own, third[:4], drawn[:4])
            continue
        written = sum(one.completion_tokens for one in judged) + num_prompts * len(TEMPERATURES) * POLICY_TOKENS
        batches_s = in_batches(own, third[:num_in_batches], drawn[:num_in_batches])
        over_passes.append(passes_s / streamed_s)
        passes_rates.append(num_prompts / passes_s)
        over_batches.append((batches_s / num_in_batches) / (streamed_s / num_prompts))
        batches_rates.append(num_in_batches / batches_s)
        over_saturated.append(written / streamed_s / saturated)
        saturated_rates.append(saturated)
        _check_alike(judged, other)
    await engine.close()
    await own.close()
    return {
        "streamed_over_four_passes": _bar(over_passes, passes_rates, GOAL_PASSES, num_prompts),
        "streamed_over_transformers_in_batches_of_4": _bar(over_batches, batches_rates, GOAL_BATCHES, num_prompts),
        "tokens_over_the_saturated_engine": _bar(over_saturated, saturated_rates, GOAL_SATURATED, num_prompts),
    }


def _check_alike(judged: Sequence[Judgment], other: Sequence[Judgment]) -> None:
    """Both sides wrote about as much: random texts end by themselves now and then."""
    ours, theirs = (sum(one.completion_tokens for one in side) for side in (judged, other))
    assert abs(ours - theirs) < 0.05 * theirs, f"the two did different work: {ours} and {theirs} tokens"


def _bar(ratios: Sequence[float], theirs: Sequence[float], goal: float, n: int) -> Bar:
    """The median of the rounds, from the least to the greatest."""
    return Bar(
        value=statistics.median(ratios),
        goal=goal,
        baseline=statistics.median(theirs),
        n=n,
        interval=Interval(min(ratios), max(ratios)),
    )
