"""What a training shows while it runs, on the terminal and in its folder."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from training.processes import say, this
from training.run import WHOLE, Run

SHOWN = {
    "loss": "loss",
    "eval_loss": "held-out loss",
    "mean_token_accuracy": "token accuracy",
    "eval_mean_token_accuracy": "held-out token accuracy",
    "grad_norm": "gradient norm",
    "learning_rate": "lr",
    "epoch": "epoch",
}
"""The trainer's figures that are kept, with their names on the terminal."""
SHOWN_GRPO = {
    "reward": "reward",
    "frac_reward_zero_std": "groups of one reward",
    "entropy": "entropy",
    "completions/mean_length": "tokens",
    "judge/unscored": "unscored",
    "judge/latency_s": "judge, s",
    "judge/health/alarms": "alarms",
}
"""The same for rewards; whatever else the judge says is kept too."""

SHOWN_DPO = {
    "loss": "loss",
    "eval_loss": "held-out loss",
    "rewards/accuracies": "pairs told apart",
    "eval_rewards/accuracies": "held-out pairs told apart",
    "rewards/margins": "margin",
    "eval_rewards/margins": "held-out margin",
    "grad_norm": "gradient norm",
    "learning_rate": "lr",
    "epoch": "epoch",
}
"""The same for preference pairs; log-probabilities and rewards of either side are kept too."""


class Watch(TrainerCallback):
    """Writes each log step to the run folder and the terminal. For one process of many."""

    def __init__(self, run: Run, *, shown: Mapping[str, str] = SHOWN, kept: str | tuple[str, ...] = ()) -> None:
        """``kept`` begins the names of figures that are kept beside those that are ``shown``."""
        self._run = run
        self._names = shown
        self._kept = kept

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._start = (time.monotonic(), state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        row = {
            name: value for name, value in (logs or {}).items() if name in self._names or name.startswith(self._kept)
        }
        if not row.keys() & {"loss", "eval_loss", "reward"}:
            return
        start, first = self._start
        pace = (time.monotonic() - start) / max(state.global_step - first, 1)
        self._run.log({"step": state.global_step, **row, "seconds_a_step": round(pace, 4)})
        left = time.strftime("%H:%M:%S", time.gmtime(pace * (state.max_steps - state.global_step)))
        shown = "  ".join(f"{self._names[name]} {value:.4g}" for name, value in row.items() if name in self._names)
        say(f"step {state.global_step}/{state.max_steps}  {shown}  {pace:.2f} s/step  {left} left")


class Whole(TrainerCallback):
    """Marks a checkpoint once all processes have written their parts of it. For every process."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        this().wait_for_everyone()
        if this().is_main_process:
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / WHOLE).touch()
