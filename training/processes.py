"""The processes that share a training: which of them writes and speaks, and how a run is opened by all of them."""

from __future__ import annotations

import torch
from accelerate import PartialState

from training.recipe import Training
from training.run import Run, refuse_standing, weights_digest


def this() -> PartialState:
    """This process among the others. Without a GPU they talk by gloo, which has to be said before anything else is."""
    return PartialState(cpu=not torch.cuda.is_available())


def join_deepspeed() -> None:
    """Tell DeepSpeed of the others, before a model is loaded. Where there is a GPU, transformers does; without one it
    does not, and ZeRO-3 would take each process for the only one.
    """
    if this().num_processes > 1 and not torch.cuda.is_available():
        import deepspeed

        deepspeed.init_distributed(dist_backend=this().backend)


def say(*lines: str) -> None:
    """Print, from one process of many."""
    if this().is_main_process:
        print(*lines, sep="\n", flush=True)


def opened(recipe: Training, inputs: dict[str, str]) -> Run | None:
    """A run that can begin or go on; ``None`` where it is done.

    Args:
        inputs: See ``training.run.Run``.

    Raises:
        OutputError: Its folders hold something else.
    """
    with this().main_process_first():
        run = Run(recipe.run_dir, recipe, seed=recipe.seed, inputs=inputs)
        if this().is_main_process:
            for half in run.clear_half_written():
                say(f"{half}: half written, removed")
    if run.weights and run.weights == weights_digest(recipe.output):
        say(f"{recipe.output}: done already (see {recipe.run_dir})")
        return None
    refuse_standing(recipe.output, replace=recipe.replace)
    return run
