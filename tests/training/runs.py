"""What the tests of trainings look at in a run, and how they kill one or share it among processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from training.recipe import Training

Work = Callable[[], object]


def metrics(recipe: Training) -> list[dict[str, float]]:
    return [json.loads(line) for line in (recipe.run_dir / "metrics.jsonl").read_text().splitlines()]


def untimed(recipe: Training) -> list[dict[str, float]]:
    """The metrics without what no two runs have in common."""
    return [{name: value for name, value in row.items() if name != "seconds_a_step"} for row in metrics(recipe)]


def losses(recipe: Training) -> list[float]:
    return [row["loss"] for row in metrics(recipe) if "loss" in row]


def weights(recipe: Training) -> dict[str, torch.Tensor]:
    return load_file(recipe.output / "model.safetensors")


def apart(one: Training, other: Training) -> float:
    """The largest difference between the weights of two."""
    theirs = weights(other)
    return max(float((tensor - theirs[name]).abs().max()) for name, tensor in weights(one).items())


def starts(recipe: Training) -> list[int]:
    """The step that each start went on from."""
    return [start["from_step"] for start in json.loads((recipe.run_dir / "run.json").read_text())["starts"]]


def killed(work: Work, owner: Any, name: str, *, when: Callable[..., bool] = lambda *args, **more: True) -> None:
    """Do ``work`` in a process that SIGKILL ends where ``owner.name`` is called, with arguments that ``when`` accepts.

    The process is forked: it imports nothing anew.
    """
    with _forked() as child:
        if child is None:
            whole = getattr(owner, name)

            def dying(*args: Any, **more: Any) -> Any:
                if when(*args, **more):
                    os.kill(os.getpid(), signal.SIGKILL)
                return whole(*args, **more)

            setattr(owner, name, dying)
            work()
    assert _ended(child) == -signal.SIGKILL


def shared(work: Work, *, processes: int = 2) -> None:
    """Do ``work`` in so many processes, each told of the others as a launcher would tell it."""
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        port = tried.getsockname()[1]
    children = []
    for rank in range(processes):
        with _forked() as child:
            if child is None:
                from accelerate.state import AcceleratorState

                told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
                told |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
                os.environ.update({variable: str(value) for variable, value in told.items()})
                AcceleratorState._reset_state(reset_partial_state=True)
                work()
        children.append(child)
    assert [_ended(child) for child in children] == [0] * processes


@contextlib.contextmanager
def _forked() -> Iterator[int | None]:
    """The child's id; in the child ``None``, which ends with the block."""
    if torch.cuda.is_available():
        pytest.skip("a process that has used a GPU cannot be forked")
    if pid := os.fork():
        yield pid
        return
    status = 1
    try:
        yield None
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _ended(child: int | None) -> int:
    assert child is not None
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
