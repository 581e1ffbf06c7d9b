"""vLLM's processes end with the one that started them, however that ends: also when nobody could say goodbye.

vLLM calls ``watch`` in each of its processes as it begins (a plug-in of the group ``vllm.general_plugins``, which
pyproject.toml names). Only processes that an engine of ours started know an owner; all others are left alone.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

OWNER = "FLEXREWARD_VLLM_OWNER"
"""Process id and starting time of the owner: an id alone may have passed on to another process."""
NAMES, GROUP = ("flexreward", "flexreward-models"), "vllm.general_plugins"


def installed() -> bool:
    """Whether vLLM will find ``watch``. Not so where flexreward runs from a folder that was never installed."""
    return {point.name for point in entry_points(group=GROUP)} >= set(NAMES)


@contextlib.contextmanager
def owned() -> Iterator[None]:
    """What is started inside belongs to this process, and what that starts in turn."""
    before = {name: os.environ.get(name) for name in (OWNER, "VLLM_PLUGINS")}
    os.environ[OWNER] = f"{os.getpid()} {_started(os.getpid())}"
    if (allowed := before["VLLM_PLUGINS"]) is not None:
        os.environ["VLLM_PLUGINS"] = ",".join(filter(None, (*allowed.split(","), *NAMES)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def watch() -> None:
    """End this process as soon as its owner has ended; nothing where there is none. Returns at once."""
    owner = os.environ.get(OWNER, "")
    if not owner or owner == f"{os.getpid()} {_started(os.getpid())}":
        return
    pid, _, started = owner.partition(" ")
    try:
        watched = os.pidfd_open(int(pid))
    except ProcessLookupError:
        _end()
    if _started(int(pid)) != started:
        _end()

    def wait() -> None:
        select.select([watched], [], [])
        _end()

    threading.Thread(target=wait, name="flexreward-owner", daemon=True).start()


def _started(pid: int) -> str:
    """When a process began, in ticks since boot; empty when it is gone."""
    try:
        # The name in brackets may hold anything; what follows the last one does not.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
