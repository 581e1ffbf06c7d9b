"""Where a number came from: commit, packages, machine. No torch, so that reading it costs nothing."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("flexreward", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "deepspeed", "flash-attn")


def _run(*command: str) -> str | None:
    """What a command prints, or ``None`` where it is absent or fails."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def commit() -> dict[str, str | bool | None]:
    """The git revision of this checkout; ``None`` where it is no checkout. ``dirty``: tracked files differ from it."""
    changed = _run("git", "status", "--porcelain", "--untracked-files=no")
    return {"commit": _run("git", "rev-parse", "HEAD"), "dirty": None if changed is None else bool(changed)}


def versions() -> dict[str, str]:
    """The installed versions of what decides a training's result."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, str | int | float | None]:
    """Processor, cores this process may use, memory in GiB, and the GPUs by name."""
    gpus = _run("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": _memory_gib(),
        "gpu": ", ".join(gpus.splitlines()) if gpus else None,
    }


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None
