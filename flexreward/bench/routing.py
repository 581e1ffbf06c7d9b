"""What it buys that a completion goes to the copy that has read its prompt: keyed routing over the less busy copy.

Two pairs of real vLLM copies behind one server on loopback, of the bundled judge, asked in turns; each new prompt
comes with ``CANDIDATES`` completions, each in a call of its own and in no order, as from clients that send one a call:
what comes in one call goes to one copy in any case. A prompt fills most of what the judge reads, and its replies are
cut short, as where a policy's long context is scored.

- ``keyed_over_any_rewards``: rewards a second.
- ``keyed_over_any_cached_tokens``: share of the prompts' tokens that vLLM found in its cache, by its own count.
"""

from __future__ import annotations

import asyncio
import random
import re
import statistics
from collections import Counter
from time import perf_counter, sleep
from typing import Any

import httpx

from flexreward.bench import Bar, Interval
from flexreward.bench.server import ask_rewards, free_port, shortened

CANDIDATES = 8
NUM_PROMPTS = 12
"""Of one round."""
NUM_WORDS = 700
ROUNDS = 2
MAX_TOKENS = 8
TOLD_S = 12.0
"""Until Ray's metrics say what vLLM has counted."""
COUNT = re.compile(r"^ray_vllm_prefix_cache_(hits|queries)\w*\{(.*?)\} (\S+)$", re.MULTILINE)


def bars(*, num_prompts: int = NUM_PROMPTS, rounds: int = ROUNDS) -> dict[str, Bar]:
    """Both bars, from one server.

    Raises:
        RecipeError: Ray or vLLM is not installed.
    """
    from flexreward.serving.recipe import parse_serve_recipe
    from flexreward.serving.start import running

    rng = random.Random(0)
    with running(parse_serve_recipe(recipe_fields(), "bench routing"), say=lambda line: None) as url:
        rates: dict[str, list[float]] = {"keyed": [], "any": []}
        shares: dict[str, list[float]] = {"keyed": [], "any": []}
        for turn in range(rounds + 1):
            for judge in rates:
                before = _counted(judge)
                items = _items(num_prompts, rng)
                start = perf_counter()
                asyncio.run(ask_rewards(url, judge, items, 1))
                took = perf_counter() - start
                sleep(TOLD_S)
                found = _counted(judge) - before
                if turn:  # the first warms both
                    rates[judge].append(len(items) / took)
                    shares[judge].append(found["hits"] / found["queries"])
    n = rounds * num_prompts * CANDIDATES
    return {
        "keyed_over_any_rewards": _bar(rates, n),
        "keyed_over_any_cached_tokens": _bar(shares, n),
    }


def recipe_fields() -> dict[str, Any]:
    """Of the server's recipe."""
    judge = shortened("tiny") | {"engine": "vllm", "max_tokens": MAX_TOKENS, "options": {}}
    served = {"judge": judge, "replicas": 2, "cpus": 0.25}
    ways = {routing: served | {"routing": routing} for routing in ("keyed", "any")}
    return {"port": free_port(), "store": "none", "judges": ways}


def _items(num_prompts: int, rng: random.Random) -> list[tuple[str, str]]:
    """Prompts that nobody has asked about, each with its completions."""
    prompts = [" ".join(str(rng.randrange(10)) for _ in range(NUM_WORDS)) for _ in range(num_prompts)]
    items = [(f"What is the sum of {prompt}?", f"It is {i}.") for prompt in prompts for i in range(CANDIDATES)]
    return rng.sample(items, len(items))


def _counted(judge: str) -> Counter[str]:
    """Tokens that the copies of a judge have looked for in vLLM's cache, and found."""
    import ray

    (node,) = ray.nodes()
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    told = httpx.get(address, timeout=30, trust_env=False).text
    found: Counter[str] = Counter()
    for what, labels, value in COUNT.findall(told):
        if f'model_name="{judge}"' in labels:
            found[what] += int(float(value))
    return found


def _bar(values: dict[str, list[float]], n: int) -> Bar:
    ratios = [keyed / other for keyed, other in zip(values["keyed"], values["any"], strict=True)]
    return Bar(
        value=statistics.median(ratios),
        goal=None,
        baseline=statistics.median(values["any"]),
        n=n,
        interval=Interval(min(ratios), max(ratios)),
    )
