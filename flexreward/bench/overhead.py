"""What judging costs beside the engine: added microseconds a request, and memory above the start.

One run in a process of its own, so that nothing else is in its memory: the engine is a script that answers at once,
first alone, then behind a judge (pointwise, one vote, nothing kept). Requests are made as they are taken and judgments
dropped as they come, the way a long job runs. The time is the processor's: nothing here waits, so on a free core it is
the wall's too, and on a busy one it does not measure the neighbours.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from time import process_time

from flexreward.bench import Bar, Interval, interval
from flexreward.engines.base import Sampling
from flexreward.engines.scripted import ScriptedEngine
from flexreward.judge import Judge
from flexreward.templates import Template, load_template
from flexreward.types import JudgeRequest

NUM_REQUESTS = 100_000
GOAL_US = 150.0
GOAL_MB = 300.0
SLICES = 10
"""Parts of the run that are timed each for itself, for the interval."""

REPLY = f"<think>{'The steps hold. ' * 8}</think><answer>4</answer>"
PROMPT = "Sort these numbers from small to large and say which stands in the middle: 7, 3, 9, 1, 5. "
COMPLETION = "In order they are 1, 3, 5, 7 and 9, so that the number in the middle is 5. "


def bars(num_requests: int = NUM_REQUESTS) -> dict[str, Bar]:
    """Both bars, measured in a child process."""
    command = [sys.executable, "-m", "flexreward.bench.overhead", str(num_requests)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = json.loads(output.splitlines()[-1])
    return {name: Bar(**(fields | {"interval": Interval(*fields["interval"])})) for name, fields in found.items()}


async def measure(num_requests: int) -> dict[str, Bar]:
    """Both bars, measured here and now."""
    template = load_template("score")
    gc.collect()
    start_mb = _memory_mb()
    alone = await _engine_alone(template, num_requests)
    judged = await _behind_a_judge(template, num_requests)
    added = [us - statistics.fmean(alone) for us in judged]
    above_mb = _peak_memory_mb() - start_mb
    return {
        "added_us": Bar(
            value=statistics.fmean(added),
            goal=GOAL_US,
            baseline=statistics.fmean(alone),
            n=num_requests,
            interval=interval(added),
        ),
        "memory_above_start_mb": Bar(
            value=above_mb, goal=GOAL_MB, baseline=start_mb, n=num_requests, interval=Interval(above_mb, above_mb)
        ),
    }


def requests(num_requests: int) -> Iterator[JudgeRequest]:
    """Requests of some hundred characters, no two alike."""
    for i in range(num_requests):
        yield JudgeRequest(id=str(i), prompt=f"{i}. {PROMPT * 3}", completions=(f"{COMPLETION * 3}({i})",))


async def _engine_alone(template: Template, num_requests: int) -> list[float]:
    """Microseconds a request, by slices: rendering and reading are the judge's work, and left out."""
    engine, sampling = ScriptedEngine(lambda _: REPLY), Sampling()
    prompt = template.render(next(requests(1)))
    clock = _Clock(num_requests)
    for _ in requests(num_requests):
        async for _ in engine.generate(prompt, sampling):
            pass
        clock.tick()
    return clock.slices_us


async def _behind_a_judge(template: Template, num_requests: int) -> list[float]:
    """Microseconds a request, by slices, from the request made to the judgment dropped."""
    judge = Judge(ScriptedEngine(lambda _: REPLY), template)
    clock = _Clock(num_requests)
    async for _ in judge.judge_all(requests(num_requests)):
        clock.tick()
    return clock.slices_us


class _Clock:
    """Counts requests and notes the processor time of each slice of them."""

    def __init__(self, num_requests: int) -> None:
        self.slices_us: list[float] = []
        self._size = max(1, num_requests // SLICES)
        self._count = 0
        self._start = process_time()

    def tick(self) -> None:
        self._count += 1
        if self._count % self._size == 0:
            now = process_time()
            self.slices_us.append((now - self._start) / self._size * 1e6)
            self._start = now


def _memory_mb() -> float:
    """Resident memory now; its peak where the system does not tell."""
    return _status_mb("VmRSS") or _peak_memory_mb()


def _peak_memory_mb() -> float:
    """Peak of resident memory of this program alone: ``ru_maxrss`` would count what its parent held when it forked."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return _status_mb("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _status_mb(field: str) -> float | None:
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(field + ":")), None)


if __name__ == "__main__":
    found = asyncio.run(measure(int(sys.argv[1])))
    print(json.dumps({name: asdict(bar) for name, bar in found.items()}))
