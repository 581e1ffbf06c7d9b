"""What HTTP and Ray Serve cost: the served judge against the same engine in this process, an echo, and more copies.

One server on loopback with four judges, started once; everything is asked in turns, so that what else the machine does
falls on all alike.

- ``served_over_in_process``: rewards a second of the bundled judge or another, greedy, its replies cut at one length;
  calls of ``CALL`` items side by side over HTTP, against the same requests in one ``judge_all`` here. Every request is
  new, so that nothing is found again. ``added_cpu_ms``: what a request costs more, over all processes of the server.
- ``one_in_flight_*_ms``: one reward at a time from a script that answers at once, less an echo that goes through an
  ingress and a handle of the same Ray Serve: what is ours of it. Baselines are the echo's own.
- ``four_copies_over_one``: a script that takes 250 ms, eight at work in each copy.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import statistics
from collections.abc import Iterator, Sequence
from time import perf_counter, process_time
from typing import Any

import httpx

from flexreward.bench import Bar, Interval, interval
from flexreward.config import open_judge, parse_recipe, resolve_judge
from flexreward.types import JudgeRequest

NUM_REQUESTS = 192
CALL = 24
"""Items in one call."""
NUM_CALLS = 300
"""One at a time."""
ROUNDS = 3
MAX_TOKENS = 48
DELAY_S = 0.25
IN_FLIGHT = 8
COPIES = 4
THROUGHPUT_GOAL, SCALING_GOAL, P50_GOAL_MS, P99_GOAL_MS = 0.90, 3.6, 4.0, 15.0

_numbers = itertools.count()


def bars(
    *, judge: str = "tiny", num_requests: int = NUM_REQUESTS, num_calls: int = NUM_CALLS, rounds: int = ROUNDS
) -> dict[str, Bar]:
    """All bars, from one server.

    Args:
        judge: Whose engine is measured, by any of a judge's names.

    Raises:
        RecipeError: Ray is not installed, or there is no such judge.
    """
    measured = shortened(judge)
    from flexreward.serving.recipe import parse_serve_recipe
    from flexreward.serving.start import running

    with running(parse_serve_recipe(recipe_fields(measured), "bench server"), say=lambda line: None) as url:
        _serve_echo()
        return {
            **throughput(url, measured, num_requests, rounds),
            **latency(url, num_calls),
            **scaling(url, rounds),
        }


def recipe_fields(measured: dict[str, Any]) -> dict[str, Any]:
    """Of the server's recipe."""
    instant = {"model": "scripted:longer", "engine": "scripted"}
    slow = {"judge": instant | {"options": {"delay_s": DELAY_S}}, "max_in_flight": IN_FLIGHT, "cpus": 0.1}
    return {
        "port": free_port(),
        "store": "none",
        "judges": {
            "measured": {"judge": measured},
            "instant": {"judge": instant},
            "one": slow,
            "four": slow | {"replicas": COPIES},
        },
    }


def throughput(url: str, measured: dict[str, Any], num_requests: int, rounds: int) -> dict[str, Bar]:
    """At saturation, over the same engine here."""
    judge = open_judge(parse_recipe(measured, "bench server"), template="score")
    ratios, ours, cpu = [], [], []
    for turn in range(rounds + 1):
        before, start = process_time(), perf_counter()
        _judge_here(judge, _items(num_requests))
        here_s, here_cpu_s = perf_counter() - start, process_time() - before
        before, start = _cpu_s(), perf_counter()
        asyncio.run(ask_rewards(url, "measured", _items(num_requests), CALL))
        there_s, there_cpu_s = perf_counter() - start, _cpu_s() - before
        if turn:  # the first warms both
            ratios.append(here_s / there_s)
            ours.append(num_requests / here_s)
            cpu.append(1000 * (there_cpu_s - here_cpu_s) / num_requests)
    asyncio.run(judge.engine.close())
    return {
        "served_over_in_process": Bar(
            value=statistics.median(ratios),
            goal=THROUGHPUT_GOAL,
            baseline=statistics.median(ours),
            n=num_requests,
            interval=Interval(min(ratios), max(ratios)),
        ),
        "served_added_cpu_ms": Bar(
            value=statistics.median(cpu),
            goal=None,
            baseline=0.0,
            n=num_requests,
            interval=Interval(min(cpu), max(cpu)),
        ),
    }


def latency(url: str, num_calls: int) -> dict[str, Bar]:
    """Of one reward at a time, less that of an echo asked in turn with it."""
    rewards, echoes = [], []
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
        for number in range(num_calls + 20):
            prompt, completion = _item()
            body = {"prompts": [prompt], "completions": [completion], "judge": "instant"}
            took = [_timed(client, route, body) for route in ("/v1/rewards", "/echo/")]
            if number >= 20:  # the first warm both
                rewards.append(1000 * took[0])
                echoes.append(1000 * took[1])
    made = {}
    for name, at, goal in (("p50", 50, P50_GOAL_MS), ("p99", 99, P99_GOAL_MS)):
        ours, echo = _percentile(rewards, at), _percentile(echoes, at)
        spread = interval([one - other for one, other in zip(rewards, echoes, strict=True)])
        made[f"one_in_flight_{name}_added_ms"] = Bar(
            value=ours - echo, goal=goal, baseline=echo, n=num_calls, interval=spread
        )
    return made


def scaling(url: str, rounds: int) -> dict[str, Bar]:
    """Rewards a second of four copies over one."""
    ratios, ones = [], []
    per_copy = IN_FLIGHT * 8
    for _ in range(rounds):
        rates = {}
        for name, count in (("one", per_copy), ("four", per_copy * COPIES)):
            start = perf_counter()
            asyncio.run(ask_rewards(url, name, _items(count), count))
            rates[name] = count / (perf_counter() - start)
        ratios.append(rates["four"] / rates["one"])
        ones.append(rates["one"])
    return {
        "four_copies_over_one": Bar(
            value=statistics.median(ratios),
            goal=SCALING_GOAL,
            baseline=statistics.median(ones),
            n=per_copy * COPIES,
            interval=Interval(min(ratios), max(ratios)),
        )
    }


def shortened(judge: str) -> dict[str, Any]:
    """Fields of a judge's recipe whose replies are all of one length."""
    told = resolve_judge(judge).model_dump(exclude_defaults=True)
    return told | {"max_tokens": MAX_TOKENS, "temperature": 0.0, "votes": 1}


def _item() -> tuple[str, str]:
    """A prompt and a completion that nobody has asked about."""
    number = next(_numbers)
    return f"What is {number} + {number % 7}?", f"The answer is {number + number % 7}."


def _items(count: int) -> list[tuple[str, str]]:
    return [_item() for _ in range(count)]


def _judge_here(judge: Any, items: Sequence[tuple[str, str]]) -> None:
    requests = [JudgeRequest(prompt=prompt, completions=(completion,)) for prompt, completion in items]

    async def judged() -> None:
        async for judgment in judge.judge_all(requests, max_in_flight=64):
            assert judgment.orders[0].votes, judgment.outcome

    asyncio.run(judged())


async def ask_rewards(url: str, judge: str, items: Sequence[tuple[str, str]], size: int) -> None:
    """All rewards, in calls of ``size`` items side by side."""
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=600) as client:

        async def call(part: Sequence[tuple[str, str]]) -> None:
            prompts, completions = zip(*part, strict=True)
            body = {"prompts": prompts, "completions": completions, "judge": judge}
            answer = await client.post("/v1/rewards", json=body)
            answer.raise_for_status()
            lost = [reason for reason in answer.json()["reasons"] if reason in ("engine", "deadline", "refused")]
            assert not lost, lost

        await asyncio.gather(*(call(items[i : i + size]) for i in range(0, len(items), size)))


def _timed(client: httpx.Client, route: str, body: object) -> float:
    start = perf_counter()
    client.post(route, json=body).raise_for_status()
    return perf_counter() - start


def _percentile(values: Sequence[float], at: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[at - 1]


def _cpu_s() -> float:
    """Seconds of all cores spent by this process and all that it has started, directly or not."""
    tick = os.sysconf("SC_CLK_TCK")
    return sum(user + system for _, user, system in _tree()) / tick


def _tree() -> Iterator[tuple[int, int, int]]:
    """Process id and ticks of this process and its descendants."""
    found: dict[int, tuple[int, int, int]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat") as stat:
                fields = stat.read().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        found[int(name)] = int(fields[1]), int(fields[11]), int(fields[12])
    mine = os.getpid()
    for pid, (parent, user, system) in found.items():
        while parent in found and pid != mine and parent != mine:
            parent = found[parent][0]
        if mine in (pid, parent):
            yield pid, user, system


def free_port() -> int:
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return int(tried.getsockname()[1])


def _serve_echo() -> None:
    """An ingress with one handle behind it, beside ours on the same Ray Serve."""
    from ray import serve
    from ray.serve.schema import LoggingConfig

    from flexreward.bench.echo import echo

    quiet = LoggingConfig(enable_access_log=False, log_level="WARNING")
    serve.run(echo(), name="echo", route_prefix="/echo", logging_config=quiet)
