"""Broken bodies over the wire at a real server: each is to be answered 200 or 4xx with one line, and never 5xx.

A body is what a client would send, with something in it replaced, left out, doubled or wrapped, and now and then bytes
that are no JSON.
"""

from __future__ import annotations

import json
import os
import random
import secrets
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any

import httpx

from flexreward.bench import Bar, Interval
from flexreward.bench.server import free_port

NUM_BODIES = 10_000
THREADS = 8
KEYS = ("FLEXREWARD_FUZZ_KEY", "FLEXREWARD_FUZZ_ADMIN_KEY")
LEAVES = (
    None,
    True,
    -1,
    0,
    1.5,
    1e308,
    10**30,
    "",
    "x",
    "\ud800",
    "<|im_end|>",
    "file:///etc/passwd",
    [],
    {},
    [[]],
    "1" * 400,
)
BODIES: dict[str, dict[str, Any]] = {
    "/v1/judge": {"requests": [{"id": "a", "prompt": "p", "completions": ["ends with 1", "ends with 2"]}]},
    "/v1/rewards": {"prompts": ["p"], "completions": ["ends with 1"], "columns": {"rubric": ["r"]}, "group_size": 1},
    "/v1/rerank": {"prompt": "p", "completions": ["ends with 1", "ends with 2"], "images": []},
    "/v1/sleep": {"judge": "main", "lease_s": 9, "wait_s": 1},
    "/v1/reload": {"model": "m", "digest": "0" * 64},
    "/v1/chat/completions": {
        "model": "main",
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "u"}]}],
        "max_tokens": 9,
        "stop": ["x"],
        "stream": True,
    },
}


def mutated(rng: random.Random, value: Any) -> Any:
    """The value with something in it replaced, left out, doubled or wrapped."""
    if rng.random() < 0.3:
        return rng.choice(LEAVES)
    if isinstance(value, dict) and value:
        name = rng.choice(list(value))
        change = rng.randrange(4)
        if change == 0:
            return {key: one for key, one in value.items() if key != name}
        if change == 1:
            return value | {rng.choice(("judge", "template", "deadline_s", "images", "ids", "x")): rng.choice(LEAVES)}
        return value | {name: mutated(rng, value[name])}
    if isinstance(value, list) and value:
        return [mutated(rng, one) for one in value] * rng.randrange(1, 3)
    return [value] if rng.random() < 0.5 else {"role": "user", "content": value}


def raw(rng: random.Random, body: dict[str, Any]) -> bytes:
    """A body as bytes: JSON of some shape, or something that is none."""
    data = json.dumps(mutated(rng, body)).encode()
    if rng.random() < 0.15:
        at = rng.randrange(len(data) + 1)
        return data[:at] + rng.randbytes(rng.randrange(3)) + data[at:]
    return data


def fault(answer: httpx.Response) -> str:
    """What is wrong with an answer to any body; empty where nothing is."""
    if answer.status_code == 200:
        return ""
    if not 400 <= answer.status_code < 500:
        return f"status {answer.status_code}"
    try:
        found = answer.json()
    except ValueError:
        return "no JSON"
    told = list(found) == ["error"] and isinstance(found["error"], str) and "\n" not in found["error"]
    return "" if told else "no line"


def sent(url: str, key: str, bodies: list[tuple[str, bytes]], client: httpx.Client) -> list[httpx.Response]:
    """The answers, in order, ``THREADS`` at a time."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def one(body: tuple[str, bytes]) -> httpx.Response:
        return client.post(f"{url}{body[0]}", content=body[1], headers=headers, timeout=60)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(one, bodies))


def bars(*, num_bodies: int = NUM_BODIES) -> dict[str, Bar]:
    """The share that was answered as it should be, and bodies a second.

    Raises:
        RecipeError: Ray is not installed.
    """
    from flexreward.serving.recipe import parse_serve_recipe
    from flexreward.serving.start import running

    for name in KEYS:
        os.environ[name] = secrets.token_urlsafe()
    fields = {"judge": "scripted:longer", "port": free_port(), "store": "none", "openai": True, "ingress_replicas": 2}
    keys = {"reward_keys": {"env": KEYS[0]}, "admin_keys": {"env": KEYS[1]}}
    rng = random.Random(0)
    bodies = [(path, raw(rng, BODIES[path])) for path in rng.choices(list(BODIES), k=num_bodies)]
    with (
        running(parse_serve_recipe(fields | keys, "fuzz"), say=lambda line: None) as url,
        httpx.Client(trust_env=False) as client,
    ):
        start = perf_counter()
        answers = sent(url, os.environ[KEYS[0]], bodies, client)
        rate = num_bodies / (perf_counter() - start)
    faults = Counter(filter(None, map(fault, answers)))
    print(f"answered {dict(Counter(answer.status_code for answer in answers))}, faults {dict(faults)}", flush=True)
    share = 1 - faults.total() / num_bodies
    return {
        "answered": Bar(value=share, goal=1.0, baseline=1.0, n=num_bodies, interval=Interval(share, share)),
        "bodies_a_second": Bar(value=rate, goal=None, baseline=rate, n=num_bodies, interval=Interval(rate, rate)),
    }
