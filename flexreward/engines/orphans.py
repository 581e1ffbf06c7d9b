"""vLLM's processes end with the one that started them, however that ends: also when nobody could say goodbye.

Whoever starts an engine becomes its owner, and its engines' processes bear the owner's mark in their environment, as
does all that these start in turn. A small process of its own waits for the owner's end, and then ends what bears the
mark. It needs nothing of vLLM, so it holds from the first moment of a start, and for helpers of every kind.

This file is run as that process, by its path and without flexreward: it imports the standard library alone.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

OWNER = "FLEXREWARD_VLLM_OWNER"
"""Process id and starting time of the owner: an id alone may have passed on to another process."""
KEPT = "SPT_NOENV"
"""Tells setproctitle, which vLLM names its processes with, to leave their environment readable."""
QUIET_S = 1.0
"""How long nothing may be found before the search ends: a process shows its mark a moment after it was started."""

_watched: set[str] = set()
"""Owners for whom a process waits: this one, once it has started an engine, and not the one it was forked from."""


@contextlib.contextmanager
def owned() -> Iterator[None]:
    """What is started inside ends with this process, and what that starts in turn; by whichever thread it is."""
    owner = f"{os.getpid()} {_started(os.getpid())}"
    if owner not in _watched:
        _watch(owner)
        _watched.add(owner)
    marks = {OWNER: owner, KEPT: "1"}
    before = {name: os.environ.get(name) for name in marks}
    os.environ.update(marks)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _watch(owner: str) -> None:
    """Start the process that waits. It is in a session of its own, so that Ctrl-C and a hang-up pass it by."""
    quiet = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]  # a pipe of ours may end with us
    command = [sys.executable, "-I", "-S", __file__, owner]
    environment = {name: value for name, value in os.environ.items() if name != OWNER}  # it must not end itself
    os.waitpid(os.posix_spawn(sys.executable, command, environment, file_actions=quiet, setsid=True), 0)


def _wait_and_end(owner: str) -> None:
    pid, _, started = owner.partition(" ")
    with contextlib.suppress(ProcessLookupError):
        watched = os.pidfd_open(int(pid))
        if _started(int(pid)) == started:
            select.select([watched], [], [])
    found_s = time.monotonic()
    while time.monotonic() - found_s < QUIET_S:
        for orphan in _marked(owner):
            with contextlib.suppress(ProcessLookupError):
                os.kill(orphan, signal.SIGKILL)
                found_s = time.monotonic()
        time.sleep(0.05)


def _marked(owner: str) -> Iterator[int]:
    mark = f"{OWNER}={owner}".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        # Those of other users cannot be read, and a process may have ended.
        with contextlib.suppress(OSError):
            if mark in path.read_bytes().split(b"\0"):
                yield int(path.parent.name)


def _started(pid: int) -> str:
    """When a process began, in ticks since boot; empty when it is gone."""
    try:
        # The name in brackets may hold anything; what follows the last one does not.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


if __name__ == "__main__" and os.fork() == 0:  # no child of the owner, which may wait for all of its own
    _wait_and_end(sys.argv[1])
