"""vLLM's processes end with ours, however ours end."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flexreward.engines import orphans, vllm_models

PROGRAM = """
import sys, time
from flexreward.engines.vllm import VLLMEngine

if __name__ == "__main__":
    engine = VLLMEngine(sys.argv[1], max_context=512)
    print("ready", flush=True)
    time.sleep(600)
"""
PLAIN = """
import os, subprocess, sys, time
from flexreward.engines import orphans

with orphans.owned():
    marked = [subprocess.Popen(["sleep", "600"]).pid]
    shell = subprocess.Popen(["sh", "-c", "sleep 600 & echo $!; exec sleep 600"], stdout=subprocess.PIPE, text=True)
    marked += [shell.pid, int(shell.stdout.readline())]
with orphans.owned():
    pass
others = [subprocess.Popen(["sleep", "600"]).pid]
print(marked, others, flush=True)
"""
FOREVER = "time.sleep(600)"


def owner_of_plain_processes(rest=FOREVER):
    """A program with processes of no vLLM: (it, those it started as an owner, those it did not)."""
    command = [sys.executable, "-c", PLAIN + rest]
    owner = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    marked, others = map(json.loads, owner.stdout.readline().replace("] [", "]\n[").splitlines())
    owner.stdout.close()
    assert gone(marked + others, within_s=0) == marked + others
    owner.stdin.close()
    return owner, marked, others


def test_what_an_owner_starts_ends_when_the_owner_is_killed_and_nothing_else_does():
    owner, marked, others = owner_of_plain_processes()
    owner.kill()
    owner.wait()
    assert gone(marked, within_s=20) == []
    assert gone(others, within_s=0) == others
    os.kill(others[0], signal.SIGKILL)


def test_what_an_owner_starts_ends_when_the_owner_ends_by_itself():
    owner, marked, others = owner_of_plain_processes("sys.stdin.read(); os._exit(3)")
    assert owner.wait(timeout=30) == 3
    assert gone(marked, within_s=20) == []
    os.kill(others[0], signal.SIGKILL)


def test_a_killed_process_group_leaves_nothing_either():
    """As a terminal does, or a job's manager: whoever waits for the owner's end is in no group of the owner's."""
    command = [sys.executable, "-c", PLAIN.replace('"600"])', '"600"], start_new_session=True)') + FOREVER]
    owner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, process_group=0)
    marked, others = map(json.loads, owner.stdout.readline().replace("] [", "]\n[").splitlines())
    owner.stdout.close()
    os.killpg(owner.pid, signal.SIGKILL)
    owner.wait()
    assert gone(marked, within_s=20) == []
    os.kill(others[0], signal.SIGKILL)


def test_nobody_waits_any_more_once_an_owner_has_ended():
    owner, _, others = owner_of_plain_processes()
    (waiting,) = who_waits_for(owner.pid)
    assert os.getsid(waiting) != os.getsid(0)
    assert waiting not in below(owner.pid)
    owner.kill()
    owner.wait()
    assert gone([waiting], within_s=10) == []
    os.kill(others[0], signal.SIGKILL)


def test_an_owner_is_waited_for_once_however_many_engines_it_starts():
    owner, _, others = owner_of_plain_processes()
    assert len(who_waits_for(owner.pid)) == 1
    owner.kill()
    owner.wait()
    os.kill(others[0], signal.SIGKILL)


def test_the_environment_is_as_before_once_vllm_has_started(monkeypatch):
    monkeypatch.setattr(orphans, "_watch", lambda owner: None)
    monkeypatch.setattr(orphans, "_watched", set())
    monkeypatch.setenv(orphans.KEPT, "mine")
    with orphans.owned():
        assert os.environ[orphans.OWNER].startswith(f"{os.getpid()} ")
        assert os.environ[orphans.KEPT] == "1"
    assert os.environ[orphans.KEPT] == "mine"
    assert orphans.OWNER not in os.environ


def test_vllm_is_told_of_our_models_beside_the_plug_ins_that_a_user_allows(monkeypatch):
    monkeypatch.setenv("VLLM_PLUGINS", "another")
    with vllm_models.allowed():
        assert os.environ["VLLM_PLUGINS"] == "another,flexreward-models"
    assert os.environ["VLLM_PLUGINS"] == "another"
    monkeypatch.delenv("VLLM_PLUGINS")
    with vllm_models.allowed():
        assert "VLLM_PLUGINS" not in os.environ  # all are loaded
    assert vllm_models.installed()


@pytest.mark.vllm
@pytest.mark.parametrize("when", ["starting", "ready"])
def test_nothing_of_vllm_is_left_when_its_owner_is_killed(when, qwen, tmp_path):
    pytest.importorskip("vllm", reason="vLLM is not installed here", exc_type=ModuleNotFoundError)
    program = tmp_path / "owner.py"
    program.write_text(PROGRAM)
    log = (tmp_path / "log").open("w")
    owner = subprocess.Popen([sys.executable, program, qwen], stdout=subprocess.PIPE, stderr=log, text=True)
    if when == "ready":
        assert "ready\n" in owner.stdout, (tmp_path / "log").read_text()[-2000:]
    else:
        until = time.monotonic() + 120
        while not any("spawn_main" in command_of(child) for child in below(owner.pid)):
            assert time.monotonic() < until
            time.sleep(0.01)
    children = below(owner.pid)
    assert len(children) >= (3 if when == "ready" else 1)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert gone(children, within_s=10) == []
    owner.stdout.close()
    log.close()


def below(pid: int) -> list[int]:
    """Children, their children, and so on."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, path.read_text().split()):
            found += [child, *below(child)]
    return found


def who_waits_for(owner: int) -> list[int]:
    mark = f"{orphans.__file__}\0{owner} "
    return [pid for path in Path("/proc").glob("[0-9]*") if mark in command_of(pid := int(path.name))]


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
