"""The judge on vLLM against ``LLM.generate``, both warm, over the same rendered prompts and sampling.

The two have an engine each, started alike; rounds alternate, so that what else the machine does falls on both. The
baseline gets all its prompts as token ids in one call, vLLM's fastest way offline; the judge renders, encodes, reads
replies and counts votes as well. The model is made here, of Qwen2's architecture with random weights and the bundled
judge's tokenizer: replies go on to their limit, which is the most work that an engine can have with them. They hold no
scores, and the reading of that is timed too.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

from flexreward.bench import Bar, Interval
from flexreward.bench.engine import requests
from flexreward.config import resolve_judge
from flexreward.engines.base import Sampling
from flexreward.engines.vllm import VLLMEngine
from flexreward.judge import Judge
from flexreward.templates import load_template
from flexreward.types import Judgment

GOAL = 0.95
NUM_REQUESTS = 128
ROUNDS = 5
SAMPLING = Sampling(max_tokens=96)


def bars() -> dict[str, Bar]:
    """The bar, with a model that is made for it."""
    with tempfile.TemporaryDirectory() as folder:
        return measure(random_model(Path(folder) / "model"))


def measure(
    model: str | Path, *, num_requests: int = NUM_REQUESTS, rounds: int = ROUNDS, sampling: Sampling = SAMPLING
) -> dict[str, Bar]:
    """The judge's requests a second over those of ``LLM.generate``, with any model that vLLM runs."""
    engine = VLLMEngine(model)
    baseline = _offline(model, engine)
    template = load_template("pair")
    judge = Judge(engine, template, sampling=sampling, both_orders=False)
    asked = requests(num_requests)
    prompts = [{"prompt_token_ids": list(engine.encoder.encode(template.render(r)).ids)} for r in asked]
    params = baseline.get_default_sampling_params()
    params.temperature, params.max_tokens, params.stop_token_ids = 0.0, sampling.max_tokens, sorted(engine.ends)

    async def judged() -> list[Judgment]:
        return [judgment async for judgment in judge.judge_all(asked, max_in_flight=num_requests)]

    ratios, theirs = [], []
    for turn in range(rounds + 1):
        start = perf_counter()
        judgments = asyncio.run(judged())
        between = perf_counter()
        outputs = baseline.generate(prompts, params, use_tqdm=False)
        end = perf_counter()
        tokens = [len(output.outputs[0].token_ids) for output in outputs]
        assert [judgment.completion_tokens for judgment in judgments] == tokens, "the two did different work"
        if turn:  # the first warms both
            ratios.append((end - between) / (between - start))
            theirs.append(num_requests / (end - between))
    asyncio.run(engine.close())
    baseline.llm_engine.engine_core.shutdown()
    bar = Bar(
        value=statistics.median(ratios),
        goal=GOAL,
        baseline=statistics.median(theirs),
        n=num_requests,
        interval=Interval(min(ratios), max(ratios)),
    )
    return {"judge_on_vllm_over_llm_generate": bar}


def random_model(folder: Path) -> Path:
    """Qwen2 with four layers of width 256 in heads of 64, which vLLM's attention on a CPU takes."""
    import torch
    from transformers import AutoConfig, AutoTokenizer, Qwen2ForCausalLM

    tiny = resolve_judge("tiny").model
    config = AutoConfig.from_pretrained(tiny)
    config.update({"hidden_size": 256, "intermediate_size": 768, "num_attention_heads": 4, "num_key_value_heads": 4})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        Qwen2ForCausalLM(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny).save_pretrained(folder)
    return folder


def _offline(model: str | Path, engine: VLLMEngine) -> Any:
    """A warm ``LLM`` with the engine's own arguments."""
    from vllm import LLM

    from flexreward.engines import orphans

    with orphans.owned():
        return LLM(**engine.options)
