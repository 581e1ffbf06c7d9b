"""Teach a text model to judge: ``python -m training.judge_sft RECIPE.yaml``.

Loss on the assistant's turn, from ``<think>`` through the end-of-turn token, and on nothing else. A killed run goes on
from its newest whole checkpoint when the same command is given again.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from flexreward.errors import RecipeError
from training.data import Lesson, answer_first, read_lessons, refuse_overlap
from training.recipe import SftRecipe
from training.run import Run, put_in_place, refuse_standing, weights_digest

# TRL tells the hub which trainer runs; a training here tells nobody.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import torch
from accelerate import PartialState
from datasets import Dataset
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PrinterCallback
from trl import SFTConfig, SFTTrainer

from training.checkpoints import attention_of, dtype_of, whole_model
from training.examples import Framer
from training.program import run
from training.trainable import add_lora, count, train_language_model
from training.watch import Watch, say


def train(recipe: SftRecipe) -> Path:
    """Run a recipe, or go on with it; returns the folder of the trained judge.

    Raises:
        UserError: one line that says what to mend; nothing that was done is lost.
    """
    inputs = {"data": recipe.data} | ({"eval_data": recipe.eval_data} if recipe.eval_data else {})
    main = PartialState().is_main_process
    with PartialState().main_process_first():
        run = Run(recipe.run_dir, recipe, seed=recipe.seed, inputs=inputs)
        if main:
            for half in run.clear_half_written():
                say(f"{half}: half written, removed")
    if run.weights and run.weights == weights_digest(recipe.output):
        say(f"{recipe.output}: done already (see {recipe.run_dir})")
        return recipe.output
    refuse_standing(recipe.output, replace=recipe.replace)

    tokenizer = AutoTokenizer.from_pretrained(recipe.model)
    framer = Framer(tokenizer, name=recipe.model)
    train_rows, eval_rows = _rows(recipe, framer)
    arguments = _arguments(recipe)  # before the model: ZeRO-3 splits weights while they load
    model = _model(recipe)
    checkpoint = run.checkpoint()
    if main:
        step = run.start()
        say(f"{count(model)}", f"{len(train_rows):,} rows, from step {step}")
    trainer = _Trainer(
        model=model,
        args=arguments,
        train_dataset=train_rows,
        eval_dataset=eval_rows,
        processing_class=tokenizer,
        callbacks=[Watch(run)] if main else [],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    trained = recipe.run_dir / "trained"
    trainer.save_model(str(trained))
    if main:
        run.plot()
        staged = recipe.output.with_name(f".{recipe.output.name}.part")
        _save(recipe, trained, staged, framer.end_of_turn)
        run.finish(steps=trainer.state.global_step, weights=weights_digest(staged))
        put_in_place(staged, recipe.output, replace=recipe.replace)
        if recipe.method == "full":
            shutil.rmtree(trained)
        say(f"{recipe.output}: done")
    return recipe.output


def _rows(recipe: SftRecipe, framer: Framer) -> tuple[Dataset, Dataset | None]:
    lessons = list(read_lessons(recipe.data))
    held_out = list(read_lessons(recipe.eval_data)) if recipe.eval_data else []
    refuse_overlap(lessons, held_out)

    def dataset(items: list[Lesson], source: str) -> Dataset:
        items = [answer_first(item) for item in items] if recipe.reasoning == "last" else items
        kept, num_dropped = framer.examples(items, max_length=recipe.max_length, too_long=recipe.too_long)
        say(f"{source}: {len(kept):,} rows, {num_dropped:,} left out above {recipe.max_length:,} tokens")
        return Dataset.from_dict({"input_ids": [e.input_ids for e in kept], "labels": [e.labels for e in kept]})

    return dataset(lessons, recipe.data), dataset(held_out, str(recipe.eval_data)) if held_out else None


def _arguments(recipe: SftRecipe) -> SFTConfig:
    held = recipe.micro_batch_size * PartialState().num_processes
    if recipe.batch_size % held:
        raise RecipeError(
            f"batch_size {recipe.batch_size} is no multiple of micro_batch_size {recipe.micro_batch_size} "
            f"x {PartialState().num_processes} processes"
        )
    gpu = torch.cuda.is_available()
    return SFTConfig(
        output_dir=str(recipe.run_dir),
        dataset_kwargs={"skip_prepare_dataset": True},  # ids and labels are ours
        max_length=None,
        learning_rate=recipe.learning_rate,
        num_train_epochs=recipe.epochs,
        lr_scheduler_type=recipe.schedule,
        warmup_steps=recipe.warmup,
        adam_beta1=recipe.betas[0],
        adam_beta2=recipe.betas[1],
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        per_device_train_batch_size=recipe.micro_batch_size,
        per_device_eval_batch_size=recipe.micro_batch_size,
        gradient_accumulation_steps=recipe.batch_size // held,
        train_sampling_strategy="group_by_length" if recipe.group_by_length else "random",
        seed=recipe.seed,
        use_cpu=not gpu,
        bf16=gpu and torch.cuda.is_bf16_supported() if recipe.arithmetic == "auto" else recipe.arithmetic == "bfloat16",
        gradient_checkpointing=recipe.gradient_checkpointing,
        deepspeed=str(recipe.deepspeed) if recipe.deepspeed else None,
        logging_steps=recipe.log_every,
        eval_strategy="steps" if recipe.eval_data else "no",
        eval_steps=recipe.eval_every,
        save_strategy="steps",
        save_steps=recipe.save_every,
        save_total_limit=recipe.keep_checkpoints,
        dataloader_pin_memory=gpu,
        report_to="none",
        disable_tqdm=True,
    )


def _model(recipe: SftRecipe) -> PreTrainedModel | PeftModel:
    model = AutoModelForCausalLM.from_pretrained(
        recipe.model,
        dtype=dtype_of(recipe.dtype, recipe.method),
        attn_implementation=attention_of(recipe.attention),
    )
    if recipe.method == "lora":
        torch.manual_seed(recipe.seed)  # adapters start at random
        return add_lora(model, recipe.lora)
    train_language_model(model)
    return model


def _save(recipe: SftRecipe, trained: Path, staged: Path, end_of_turn: int) -> None:
    """The judge as any engine loads it: one plain checkpoint, which ends its turns."""
    model = whole_model(
        recipe.model,
        trained,
        method=recipe.method,
        save_dtype=recipe.save_dtype,
        model_class=AutoModelForCausalLM,
    )
    ends = model.generation_config.eos_token_id
    ends = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
    model.generation_config.eos_token_id = [end_of_turn, *(end for end in ends if end != end_of_turn)]
    shutil.rmtree(staged, ignore_errors=True)
    model.save_pretrained(staged)
    AutoTokenizer.from_pretrained(recipe.model).save_pretrained(staged)


class _Trainer(SFTTrainer):
    """TRL's, less the model card that it leaves in the run folder."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        pass


def main(arguments: list[str] | None = None) -> int:
    """The program (see ``training.program.run``)."""
    return run("training.judge_sft", __doc__, train, SftRecipe, arguments)


if __name__ == "__main__":
    sys.exit(main())
