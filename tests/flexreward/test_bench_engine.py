"""The bench of the embedded engine compares like with like."""

import asyncio

from flexreward.bench.engine import IN_FLIGHT, baseline, measure, requests
from flexreward.engines.base import Sampling
from flexreward.engines.transformers import TransformersEngine
from flexreward.templates import load_template

SHORT = Sampling(max_tokens=12)


async def test_the_baselines_write_what_the_engine_writes(make_checkpoint):
    engine = TransformersEngine(make_checkpoint(max_position_embeddings=2048))
    prompts = [load_template("pair").render(request) for request in requests(5)]

    async def written(prompt):
        reply = await anext(engine.generate(prompt, SHORT))
        return reply.text

    ours = await asyncio.gather(*map(written, prompts))
    assert baseline(engine, prompts, SHORT).replies(IN_FLIGHT) == ours
    assert baseline(engine, prompts, SHORT).replies(1) == ours
    await engine.close()


def test_both_bars_stand_beside_their_goals(make_checkpoint):
    found = measure(make_checkpoint(max_position_embeddings=2048), num_requests=3, rounds=2, sampling=SHORT)
    assert [bar.goal for bar in found.values()] == [4.0, 1.0]
    assert all(bar.n == 3 and bar.interval.low <= bar.value <= bar.interval.high for bar in found.values())


def test_no_two_requests_of_the_bench_are_alike_and_half_of_the_pairs_hold_a_wrong_answer():
    made = requests(64)
    assert len({(request.prompt, request.completions) for request in made}) == 64
    assert 16 < sum(request.completions[0] != request.completions[1] for request in made) <= 64
