"""vLLM's processes end with ours, however ours end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flexreward.engines import orphans

PROGRAM = """
import sys, time
from flexreward.engines.vllm import VLLMEngine

if __name__ == "__main__":
    engine = VLLMEngine(sys.argv[1], max_context=512)
    print("ready", flush=True)
    time.sleep(600)
"""
OWNED = """
import os, sys, time
from flexreward.engines import orphans

orphans.watch()
print("watching", flush=True)
time.sleep(600)
"""


def test_what_an_owner_starts_ends_when_the_owner_is_killed(tmp_path):
    """The watch alone, with plain processes in vLLM's stead: an owner, its child, and a grandchild."""
    between = tmp_path / "owner.py"
    between.write_text(
        "import subprocess, sys, time\nfrom flexreward.engines import orphans\n"
        "with orphans.owned():\n    subprocess.Popen([sys.executable, '-c', sys.argv[1]])\ntime.sleep(600)\n"
    )
    owner = subprocess.Popen([sys.executable, between, OWNED], stdout=subprocess.PIPE, text=True)
    assert owner.stdout.readline() == "watching\n"
    child = next(iter(below(owner.pid)))
    owner.kill()
    owner.wait()
    assert gone([child], within_s=5) == []
    owner.stdout.close()


def test_who_comes_after_its_owner_has_ended_ends_at_once():
    late = subprocess.run([sys.executable, "-c", OWNED], env=os.environ | {orphans.OWNER: "1 0"}, timeout=60)
    assert late.returncode == -signal.SIGKILL


def test_processes_without_an_owner_are_left_alone():
    code = "from flexreward.engines import orphans; orphans.watch(); print('alive')"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "alive\n"


def test_the_environment_is_as_before_once_vllm_has_started(monkeypatch):
    monkeypatch.setenv("VLLM_PLUGINS", "another")
    with orphans.owned():
        assert os.environ["VLLM_PLUGINS"] == "another,flexreward,flexreward-models"
        assert os.environ[orphans.OWNER].startswith(f"{os.getpid()} ")
    assert os.environ["VLLM_PLUGINS"] == "another"
    assert orphans.OWNER not in os.environ


@pytest.mark.vllm
@pytest.mark.parametrize("when", ["starting", "ready"])
def test_nothing_of_vllm_is_left_when_its_owner_is_killed(when, qwen, tmp_path):
    pytest.importorskip("vllm", reason="vLLM is not installed here", exc_type=ModuleNotFoundError)
    program = tmp_path / "owner.py"
    program.write_text(PROGRAM)
    log = (tmp_path / "log").open("w")
    owner = subprocess.Popen([sys.executable, program, qwen], stdout=subprocess.PIPE, stderr=log, text=True)
    if when == "ready":
        assert owner.stdout.readline() == "ready\n", (tmp_path / "log").read_text()[-2000:]
    else:
        until = time.monotonic() + 120
        while not any("spawn_main" in command for command in map(command_of, below(owner.pid))):
            assert time.monotonic() < until
            time.sleep(0.05)
    children = below(owner.pid)
    assert len(children) >= (2 if when == "ready" else 1)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert gone(children, within_s=120 if when == "starting" else 10) == []
    owner.stdout.close()
    log.close()


def below(pid: int) -> list[int]:
    """Children, their children, and so on."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, path.read_text().split()):
            found += [child, *below(child)]
    return found


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def gone(pids: list[int], *, within_s: float) -> list[int]:
    """Those that are still alive after a while."""
    until = time.monotonic() + within_s
    while (alive := [pid for pid in pids if lives(pid)]) and time.monotonic() < until:
        time.sleep(0.05)
    return alive


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
