"""Teach a text model to judge: ``python -m training.judge_sft RECIPE.yaml``.

Loss on the assistant's turn, from ``<think>`` through the end-of-turn token, and on nothing else. A killed run goes on
from its newest whole checkpoint when the same command is given again.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import torch
from datasets import Dataset
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from trl import SFTConfig, SFTTrainer

from training.checkpoints import attention_of, dtype_of, whole_model
from training.data import Lesson, answer_first, read_lessons, refuse_overlap
from training.examples import Framer
from training.processes import join_deepspeed, opened, say, this
from training.program import program
from training.recipe import SftRecipe
from training.run import put_in_place, weights_digest
from training.trainable import add_lora, count, train_language_model
from training.trainer import arguments_of, quieten
from training.watch import Watch, Whole


def train(recipe: SftRecipe) -> Path:
    """Run a recipe, or go on with it; returns the folder of the trained judge.

    Raises:
        UserError: one line that says what to mend; nothing that was done is lost.
    """
    inputs = {"data": recipe.data} | ({"eval_data": recipe.eval_data} if recipe.eval_data else {})
    run, main = opened(recipe, inputs), this().is_main_process
    if run is None:
        return recipe.output

    tokenizer = AutoTokenizer.from_pretrained(recipe.model)
    framer = Framer(tokenizer, name=recipe.model)
    train_rows, eval_rows = _rows(recipe, framer)
    arguments = _arguments(recipe)  # before the model: ZeRO-3 splits weights while they load
    if recipe.deepspeed:
        join_deepspeed()
    model = _model(recipe)
    checkpoint = run.checkpoint()
    if main:
        step = run.start()
        say(f"{count(model)}", f"{len(train_rows):,} rows, from step {step}")
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=train_rows,
        eval_dataset=eval_rows,
        processing_class=tokenizer,
        callbacks=[*([Watch(run)] if main else []), Whole()],
    )
    quieten(trainer)
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
    return SFTConfig(
        **arguments_of(recipe, held_out=recipe.eval_data is not None),
        dataset_kwargs={"skip_prepare_dataset": True},  # ids and labels are ours
        max_length=None,
        adam_beta1=recipe.betas[0],
        adam_beta2=recipe.betas[1],
        train_sampling_strategy="group_by_length" if recipe.group_by_length else "random",
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


main = program("training.judge_sft", __doc__, train, SftRecipe)


if __name__ == "__main__":
    sys.exit(main())
