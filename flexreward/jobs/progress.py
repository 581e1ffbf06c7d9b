"""How far a long job is: a bar on a terminal, a plain line every ten seconds elsewhere. Always on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TextIO

from flexreward.types import Judgment, Unscored

LINE_EVERY_S = 10.0


@dataclass(slots=True)
class Pace:
    """Counts of a job under way. The rate leaves out what an earlier run had done."""

    total: int | None
    began: float
    num_before: int = 0
    num_done: int = 0
    num_unscored: int = 0
    num_cached: int = 0

    def line(self, now: float) -> str:
        """``400 of 999 (40 %), 12.1/s, 0:49 left, 3 unscored``."""
        done = self.num_before + self.num_done
        elapsed = max(now - self.began, 1e-9)
        rate = self.num_done / elapsed
        parts = [f"{done}" if self.total is None else f"{done} of {self.total} ({100 * done // max(self.total, 1)} %)"]
        parts.append(f"{rate:.1f}/s" if rate < 100 else f"{rate:.0f}/s")
        if self.total is not None and rate > 0:
            parts.append(f"{clock((self.total - done) / rate)} left")
        parts.append(f"{self.num_unscored} unscored")
        if self.num_cached:
            parts.append(f"{self.num_cached} from the store")
        return ", ".join(parts)


class Meter(Protocol):
    """What a job tells of its progress."""

    pace: Pace

    def resumed(self, num_done: int) -> None:
        """So many rows were there already."""
        ...

    def add(self, judgment: Judgment) -> None:
        """One more is done."""
        ...


class _Meter:
    def __init__(self, total: int | None, show: Callable[[Pace], None]) -> None:
        self.pace = Pace(total, time.monotonic())
        self._show = show

    def resumed(self, num_done: int) -> None:
        self.pace.num_before = num_done
        self.pace.began = time.monotonic()
        self._show(self.pace)

    def add(self, judgment: Judgment) -> None:
        self.pace.num_done += 1
        self.pace.num_unscored += isinstance(judgment.outcome, Unscored)
        self.pace.num_cached += judgment.cached
        self._show(self.pace)


@contextmanager
def meter(total: int | None, label: str, stream: TextIO | None = None) -> Iterator[Meter]:
    """A meter that shows itself on ``stream`` (stderr) while the block runs."""
    stream = stream or sys.stderr
    with _bar(total, label, stream) if stream.isatty() else _lines(total, label, stream) as running:
        yield running


@contextmanager
def _lines(total: int | None, label: str, stream: TextIO) -> Iterator[Meter]:
    last = time.monotonic()

    def show(pace: Pace) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= LINE_EVERY_S:
            last = now
            print(f"{label}: {pace.line(now)}", file=stream, flush=True)

    running = _Meter(total, show)
    try:
        yield running
    finally:
        print(f"{label}: {running.pace.line(time.monotonic())}", file=stream, flush=True)


@contextmanager
def _bar(total: int | None, label: str, stream: TextIO) -> Iterator[Meter]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[line]}"))
    with Progress(*columns, console=Console(file=stream)) as progress:
        task = progress.add_task(label, total=total, line="")

        def show(pace: Pace) -> None:
            done = pace.num_before + pace.num_done
            progress.update(task, completed=done, line=pace.line(time.monotonic()))

        yield _Meter(total, show)


def clock(seconds: float) -> str:
    """``0:49``, ``1:02:03`` or ``3 days 4:05:06``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    text = f"{hours}:{minutes:02}:{rest:02}" if hours or days else f"{minutes}:{rest:02}"
    return f"{days} days {text}" if days else text
