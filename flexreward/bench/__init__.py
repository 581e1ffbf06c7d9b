"""Benches: one file each, and each ends in bars, a measured value beside its goal and what it is measured against.

    {"bars": {name: {"value", "goal", "baseline", "n", "interval"}}, "machine": {...}}

A value is a ratio of paired runs, and higher is better, unless its name ends in a unit (``_us``, ``_s``, ``_mb``) or in
``_idle``, a share of time.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import json
import os
import platform
import random
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

from flexreward.errors import RecipeError

BENCHES = {
    "engine": "flexreward.bench.engine:bars",
    "eval": "flexreward.bench.eval:bars",
    "expected": "flexreward.bench.expected:bars",
    "pairs": "flexreward.bench.pairs:bars",
    "pairs-report": "flexreward.bench.pairs_report:bars",
    "routing": "flexreward.bench.routing:bars",
    "server": "flexreward.bench.server:bars",
    "thinking": "flexreward.bench.thinking:bars",
    "votes": "flexreward.bench.votes:bars",
}
"""Each names a function that returns bars by name; it needs no arguments, and may take a ``judge``."""

UNITS = ("_us", "_ms", "_s", "_mb", "_idle")
PACKAGES = ("torch", "transformers", "vllm", "flash-attn", "ray")


class Interval(NamedTuple):
    """Where the value lies in 95 of 100 runs like this one."""

    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    value: float
    goal: float | None
    """``None`` where a figure is told and nothing is asked of it."""
    baseline: float
    """The same quantity of what it is compared with: for a ratio, what it is divided by."""
    n: int
    """Requests measured."""
    interval: Interval


def run_bench(name: str, *, judge: str | None = None, as_json: bool = False) -> None:
    """Measure, and print a line a bar; with ``as_json`` those go to stderr and one line of JSON to stdout."""
    bars = measure(name, judge=judge)
    for line in text_lines(bars):
        print(line, file=sys.stderr if as_json else sys.stdout)
    if as_json:
        print(json_line(bars))


def measure(name: str, *, judge: str | None = None) -> dict[str, Bar]:
    """The bars of one bench, in the order it gives them.

    Args:
        judge: In place of the bundled one, where the bench takes another.

    Raises:
        RecipeError: There is no bench of that name, or it takes no judge.
    """
    if name not in BENCHES:
        raise RecipeError(f"unknown bench {name!r}, expected one of {', '.join(BENCHES)}")
    module, _, function = BENCHES[name].partition(":")
    run = cast(Callable[..., dict[str, Bar]], getattr(importlib.import_module(module), function))
    if judge is None:
        return run()
    if "judge" not in inspect.signature(run).parameters:
        raise RecipeError(f"--judge: bench {name} measures the bundled judge alone; leave it out")
    return run(judge=judge)


def met(name: str, bar: Bar) -> bool:
    """Whether the value reaches its goal, on the side that is better."""
    if bar.goal is None:
        return True
    return bar.value <= bar.goal if name.endswith(UNITS) else bar.value >= bar.goal


def json_line(bars: Mapping[str, Bar]) -> str:
    """What ``bench --json`` ends in."""
    rounded = {name: {key: _rounded(value) for key, value in asdict(bar).items()} for name, bar in bars.items()}
    return json.dumps({"bars": rounded, "machine": machine()})


def text_lines(bars: Mapping[str, Bar]) -> list[str]:
    """One line a bar, for a person."""
    return [_text_line(name, bar) for name, bar in bars.items()]


def interval(values: Sequence[float]) -> Interval:
    """95 % bootstrap interval of the mean of repeated measurements; the same values give the same interval."""
    rng = random.Random(0)
    means = sorted(statistics.fmean(rng.choices(values, k=len(values))) for _ in range(2_000))
    return Interval(means[50], means[-51])


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "gpus": _gpu_names(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
    }


def _text_line(name: str, bar: Bar) -> str:
    goal = "" if bar.goal is None else f", goal {'at most' if name.endswith(UNITS) else 'at least'} {bar.goal:g}"
    verdict = "" if bar.goal is None else ": met" if met(name, bar) else ": MISSED"
    spread = f"{bar.interval.low:.4g} to {bar.interval.high:.4g}"
    return f"{name} {bar.value:.4g} ({spread}; baseline {bar.baseline:.4g}, n {bar.n}){goal}{verdict}"


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    return [_rounded(one) for one in value] if isinstance(value, tuple) else value


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _gpu_names() -> list[str]:
    torch = sys.modules.get("torch")  # a bench that uses one has loaded it
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
