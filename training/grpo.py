"""Reinforce a policy by a judge's rewards: ``python -m training.grpo RECIPE.yaml``.

TRL's GRPOTrainer with ``flexreward.adapters.trl.judge_reward``: the judge is a server, or runs in this process.
"""

from __future__ import annotations

import functools
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from flexreward.adapters.trl import judge_reward, options_of
from flexreward.errors import RecipeError
from flexreward.files.rows import read_rows
from training.processes import opened, say, this
from training.program import program
from training.recipe import GrpoRecipe
from training.run import put_in_place, weights_digest
from training.trainer import quieten
from training.watch import SHOWN_GRPO, Watch


def train(recipe: GrpoRecipe) -> Path:
    """Run a recipe; returns the folder of the trained policy.

    Raises:
        UserError: one line that says what to mend, a judge that does not answer included.
    """
    run, main = opened(recipe, {"data": recipe.data}), this().is_main_process
    if run is None:
        return recipe.output
    arguments = _arguments(recipe)
    tokenizer = AutoTokenizer.from_pretrained(recipe.model)
    rows = Dataset.from_list([dict(row.fields) for row in read_rows(recipe.data)])
    if "prompt" not in rows.column_names:
        raise RecipeError(f"{recipe.data}: no column 'prompt'; it has {', '.join(rows.column_names)}")
    if main:
        run.start()
        say(f"{recipe.data}: {len(rows):,} prompts")
    trainer = _Trainer(
        model=recipe.model,
        reward_funcs=rewards_of(recipe, options_of(arguments, tokenizer)),
        args=arguments,
        train_dataset=rows,
        processing_class=tokenizer,
        callbacks=[Watch(run, shown=SHOWN_GRPO, kept="judge/")] if main else [],
    )
    quieten(trainer)
    trainer.train()
    staged = recipe.output.with_name(f".{recipe.output.name}.part")
    with this().main_process_first():
        if main:
            shutil.rmtree(staged, ignore_errors=True)
    trainer.save_model(str(staged))
    if main:
        (staged / "training_args.bin").unlink(missing_ok=True)  # a pickle, and all of it stands in the run folder
        tokenizer.save_pretrained(staged)
        run.finish(steps=trainer.state.global_step, weights=weights_digest(staged))
        put_in_place(staged, recipe.output, replace=recipe.replace)
        say(f"{recipe.output}: done")
    return recipe.output


def rewards_of(recipe: GrpoRecipe, told: dict[str, Any]) -> Callable[..., Any]:
    """The judge's rewards, or for the control the same in a random order."""
    judged = functools.partial(judge_reward, **(told | recipe.reward))
    if not recipe.shuffled:
        return judged
    rng = random.Random(recipe.seed)

    async def shuffled(*args: Any, **more: Any) -> list[float | None]:
        rewards = await judged(*args, **more)
        rng.shuffle(rewards)
        return rewards

    shuffled.__name__ = judge_reward.__name__
    return shuffled


def _arguments(recipe: GrpoRecipe) -> GRPOConfig:
    processes = this().num_processes
    held = recipe.prompts * recipe.num_generations
    size = min(recipe.micro_batch_size, held // processes)
    if held % (size * processes) or size * processes % recipe.num_generations:
        raise RecipeError(
            f"prompts {recipe.prompts} x num_generations {recipe.num_generations} cannot be shared out as "
            f"micro_batch_size {size} x {processes} processes, each with whole groups"
        )
    gpu = torch.cuda.is_available()
    return GRPOConfig(
        output_dir=str(recipe.run_dir),
        per_device_train_batch_size=size,
        gradient_accumulation_steps=held // (size * processes),
        num_generations=recipe.num_generations,
        num_iterations=recipe.updates,
        max_completion_length=recipe.max_completion_length,
        temperature=recipe.temperature,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.schedule,
        warmup_steps=recipe.warmup,
        beta=recipe.beta,
        scale_rewards=recipe.scale_rewards,
        max_grad_norm=recipe.max_grad_norm,
        weight_decay=0.0,
        max_steps=recipe.steps,
        logging_steps=recipe.log_every,
        seed=recipe.seed,
        use_cpu=not gpu,
        bf16=gpu and torch.cuda.is_bf16_supported(),
        gradient_checkpointing=gpu,
        dataloader_pin_memory=gpu,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


class _Trainer(GRPOTrainer):
    """TRL's, less what teaches nothing."""

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """TRL's loss, and its gradient, from the completions that have an advantage alone; entropy is then theirs too.

        Where all completions of a prompt earn the same, none has one: towards the end those are most of a batch.
        """
        alone = self.loss_type == "dapo" and self.beta == 0 and not getattr(self, "aux_loss_enabled", False)
        return super().compute_loss(model, _telling(inputs) if alone else inputs, *args, **kwargs)


def _telling(inputs: dict[str, Any]) -> dict[str, Any]:
    """The rows whose advantage is not zero; one row where there are none, so that there is a loss."""
    kept = inputs["advantages"].ne(0)
    if not kept.any():
        kept[0] = True
    return {
        name: value[kept] if isinstance(value, torch.Tensor) and value.shape[:1] == kept.shape else value
        for name, value in inputs.items()
    }


main = program("training.grpo", __doc__, train, GrpoRecipe)


if __name__ == "__main__":
    sys.exit(main())
