"""Train a policy on preference pairs: ``python -m training.dpo RECIPE.yaml``.

TRL's DPOTrainer on what ``flexreward pairs`` writes. A killed run goes on from its newest whole checkpoint when the
same command is given again.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import DPOConfig, DPOTrainer

from flexreward.errors import RecipeError
from training.check import Figures, check, questions, refuse_known
from training.checkpoints import attention_of, dtype_of, loader, processing, sees, whole_model
from training.preferences import (
    Pairs,
    Parted,
    on_disk,
    part,
    prompts_of,
    read_pairs,
    refuse_overlap,
    source_of,
    within,
)
from training.processes import join_deepspeed, opened, say, this
from training.program import program
from training.proof import write_whole
from training.recipe import DpoRecipe
from training.run import Run, put_in_place, weights_digest
from training.trainable import count, lora_config, train_language_model
from training.trainer import arguments_of, quieten
from training.watch import SHOWN_DPO, Watch, Whole

KEPT = ("rewards/", "logps/", "eval_rewards/", "eval_logps/")
"""Beginnings of the names of figures that are kept beside those that are shown."""
PROVENANCE = "provenance.json"
"""In the folder of the policy: what it was trained on, and what that changed."""


def train(recipe: DpoRecipe) -> Path:
    """Run a recipe, or go on with it; returns the folder of the trained policy.

    Raises:
        UserError: one line that says what to mend; nothing that was done is lost.
    """
    inputs = {"data": source_of(recipe.data)}
    inputs |= {"eval_data": source_of(recipe.eval_data)} if recipe.eval_data else {}
    inputs |= {"check": recipe.check.prompts} if recipe.check else {}
    run, main = opened(recipe, inputs), this().is_main_process
    if run is None:
        return recipe.output

    datasets.disable_progress_bars()
    processor = processing(recipe.model, max_pixels=recipe.max_pixels)
    asked = recipe.run_dir / "reference"
    with this().main_process_first():
        pairs, parted = _pairs(recipe, inputs, processor)
        if recipe.precompute_ref_log_probs:
            parted = Parted(*(on_disk(rows, asked / name) for name, rows in parted._asdict().items()))
    checkpoint = run.checkpoint()
    arguments = _arguments(recipe, held_out=parted.held_out is not None, begins=checkpoint is None)
    if recipe.deepspeed:
        join_deepspeed()
    model = loader(recipe.model).from_pretrained(  # after the arguments: ZeRO-3 splits weights while they load
        recipe.model,
        dtype=dtype_of(recipe.dtype, recipe.method),
        attn_implementation=attention_of(recipe.attention),
    )
    adapters = lora_config(model, recipe.lora) if recipe.method == "lora" else None
    if adapters is None:
        train_language_model(model)
    watch = [Watch(run, shown=SHOWN_DPO, kept=KEPT)] if main else []
    torch.manual_seed(recipe.seed)  # adapters start at random
    trainer = DPOTrainer(
        model=model,
        args=arguments,
        train_dataset=parted.train,
        eval_dataset=parted.held_out,
        processing_class=processor,
        peft_config=adapters,
        callbacks=[_LastLook(), *watch, Whole()],
    )
    quieten(trainer)
    if main:
        step = run.start()
        say(f"{count(trainer.model)}", f"{len(parted.train):,} pairs, from step {step}")
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    trained = recipe.run_dir / "trained"
    trainer.save_model(str(trained))
    steps = trainer.state.global_step
    if main:
        del trainer, model  # their memory is wanted
        torch.cuda.empty_cache()
        run.plot("loss")
        staged = recipe.output.with_name(f".{recipe.output.name}.part")
        _save(recipe, trained, staged)
        evaluation = _evaluation(run) | _checked(recipe, staged)
        write_whole(recipe.run_dir / "evaluation.json", json.dumps(evaluation, indent=2) + "\n")
        write_whole(staged / PROVENANCE, json.dumps(_provenance(recipe, run, pairs, evaluation), indent=2) + "\n")
        run.finish(steps=steps, weights=weights_digest(staged))
        put_in_place(staged, recipe.output, replace=recipe.replace)
        shutil.rmtree(asked, ignore_errors=True)
        if recipe.method == "full":
            shutil.rmtree(trained)
        say(f"{recipe.output}: done")
    return recipe.output


def _pairs(recipe: DpoRecipe, inputs: dict[str, str], processor: Any) -> tuple[Pairs, Parted]:
    tokenizer = getattr(processor, "tokenizer", processor)
    chat = recipe.chat and bool(tokenizer.chat_template)
    pairs = read_pairs(inputs["data"], chat=chat)
    if pairs.with_images and not sees(recipe.model):
        raise RecipeError(f"{recipe.data}: brings images, and {recipe.model} is a model of text")
    if pairs.with_images and recipe.precompute_ref_log_probs:
        raise RecipeError("precompute_ref_log_probs: true cannot be had with images; leave it out")
    if recipe.eval_data:
        parted = Parted(pairs.rows, read_pairs(inputs["eval_data"], chat=chat).rows)
        refuse_overlap(*parted, recipe.eval_data)
    else:
        parted = part(pairs.rows, share=recipe.eval_share, seed=recipe.seed)

    def fitting(rows: datasets.Dataset, name: str) -> datasets.Dataset:
        kept, dropped = within(rows, processor, max_length=recipe.max_length, too_long=recipe.too_long, name=name)
        say(f"{name}: {len(kept):,} pairs, {dropped:,} left out above {recipe.max_length:,} tokens")
        return kept

    if recipe.check:
        refuse_known(questions(recipe.check), prompts_of(parted.train), recipe.check)
    train, held_out = fitting(parted.train, recipe.data), parted.held_out
    if held_out is not None:
        held_out = fitting(held_out, f"{recipe.eval_data or recipe.data}, held out")
    return pairs, Parted(train, held_out)


def _arguments(recipe: DpoRecipe, *, held_out: bool, begins: bool) -> DPOConfig:
    losses = [recipe.loss] if isinstance(recipe.loss, str) else list(recipe.loss)
    if recipe.loss_weights is not None and len(recipe.loss_weights) != len(losses):
        raise RecipeError(f"loss_weights: {len(recipe.loss_weights)} for {len(losses)} losses; give one for each")
    if "exo_pair" in losses and not recipe.label_smoothing:
        raise RecipeError("loss exo_pair needs label_smoothing above 0; its paper takes 0.001")
    return DPOConfig(
        **arguments_of(recipe, held_out=held_out),
        eval_on_start=held_out and begins,
        loss_type=losses,
        loss_weights=recipe.loss_weights,
        beta=recipe.beta,
        label_smoothing=recipe.label_smoothing,
        precompute_ref_log_probs=recipe.precompute_ref_log_probs,
        disable_dropout=recipe.method == "full" or not recipe.lora.dropout,
        max_length=recipe.max_length,  # nothing is longer: what is was left out
    )


def _evaluation(run: Run) -> dict[str, Any]:
    """The held-out pairs before the first step and after the last, from the metrics."""
    rows = [row for row in run.metrics() if "eval_loss" in row]
    if not rows:
        return {}
    return {"pairs": {"before": _named(rows[0]), "after": _named(rows[-1])}}


def _named(row: dict[str, float]) -> Figures:
    """A policy that has learnt nothing is its own reference: its margin is 0, and no pair is told apart by it."""
    names = {
        "loss": "eval_loss",
        "accuracy": "eval_rewards/accuracies",
        "margin": "eval_rewards/margins",
        "logp_chosen": "eval_logps/chosen",
        "logp_rejected": "eval_logps/rejected",
    }
    return {name: row[key] for name, key in names.items() if key in row}


def _checked(recipe: DpoRecipe, staged: Path) -> dict[str, Any]:
    """How often the policy's own completions are right. What it could do before is measured once."""
    if recipe.check is None:
        return {}
    kept = recipe.run_dir / "before.json"
    if not kept.exists():
        write_whole(kept, json.dumps(check(recipe.check, Path(recipe.model), seed=recipe.seed)))
    before = json.loads(kept.read_text(encoding="utf-8"))
    after = check(recipe.check, staged, seed=recipe.seed)
    for how in ("greedy", "sampled"):
        if how in after:
            say(
                f"{recipe.check.prompts}: right {100 * before[how]:.1f} % before, {100 * after[how]:.1f} % after, {how}"
            )
    return {"check": {"before": before, "after": after}}


def _provenance(recipe: DpoRecipe, run: Run, pairs: Pairs, evaluation: dict[str, Any]) -> dict[str, Any]:
    return {
        "program": "training.dpo",
        "recipe": recipe.model_dump(mode="json"),
        "base": weights_digest(Path(recipe.model)),
        **run.origin,
        "judges": pairs.judges,
        "evaluation": evaluation,
    }


def _save(recipe: DpoRecipe, trained: Path, staged: Path) -> None:
    model = whole_model(
        recipe.model,
        trained,
        method=recipe.method,
        save_dtype=recipe.save_dtype,
        model_class=loader(recipe.model),
    )
    shutil.rmtree(staged, ignore_errors=True)
    model.save_pretrained(staged)
    processing(recipe.model).save_pretrained(staged)


class _LastLook(TrainerCallback):
    """Looks at the held-out pairs after the last step, whatever its number."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        control.should_evaluate |= args.eval_strategy != "no" and state.global_step >= state.max_steps
        return control


main = program("training.dpo", __doc__, train, DpoRecipe)


if __name__ == "__main__":
    sys.exit(main())
