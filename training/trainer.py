"""What the trainings by TRL's trainers have in common."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PrinterCallback, Trainer

from flexreward.errors import RecipeError
from training.processes import this
from training.recipe import DpoRecipe, SftRecipe


def arguments_of(recipe: SftRecipe | DpoRecipe, *, held_out: bool) -> dict[str, Any]:
    """The trainer's arguments for whatever both kinds of recipe say.

    Args:
        held_out: Whether there are rows to look at.

    Raises:
        RecipeError: A batch cannot be shared out among the processes.
    """
    processes = this().num_processes
    held = recipe.micro_batch_size * processes
    if recipe.batch_size % held:
        raise RecipeError(
            f"batch_size {recipe.batch_size} is no multiple of micro_batch_size {recipe.micro_batch_size} "
            f"x {processes} processes"
        )
    gpu = torch.cuda.is_available()
    return {
        "output_dir": str(recipe.run_dir),
        "learning_rate": recipe.learning_rate,
        "num_train_epochs": recipe.epochs,
        "lr_scheduler_type": recipe.schedule,
        "warmup_steps": recipe.warmup,
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.max_grad_norm,
        "per_device_train_batch_size": recipe.micro_batch_size,
        "per_device_eval_batch_size": recipe.micro_batch_size,
        "gradient_accumulation_steps": recipe.batch_size // held,
        "seed": recipe.seed,
        "use_cpu": not gpu,
        "bf16": gpu and torch.cuda.is_bf16_supported()
        if recipe.arithmetic == "auto"
        else recipe.arithmetic == "bfloat16",
        "gradient_checkpointing": recipe.gradient_checkpointing,
        "deepspeed": str(recipe.deepspeed) if recipe.deepspeed else None,
        "logging_steps": recipe.log_every,
        "eval_strategy": "steps" if held_out else "no",
        "eval_steps": recipe.eval_every,
        "save_strategy": "steps",
        "save_steps": recipe.save_every,
        "save_total_limit": recipe.keep_checkpoints,
        "dataloader_pin_memory": gpu,
        "report_to": "none",
        "disable_tqdm": True,
    }


def quieten(trainer: Trainer) -> None:
    """Take away what TRL's trainer prints beside our own lines, and the model card that it leaves in the run folder."""
    trainer.remove_callback(PrinterCallback)
    trainer.create_model_card = lambda *args, **kwargs: None
