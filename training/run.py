"""The run folder: what was asked, on what it ran, how it went, and where to go on after a kill.

RUN/recipe.yaml      the resolved recipe
RUN/run.json         inputs with digests, and for every start: date, commit, packages, hardware, step resumed from
RUN/metrics.jsonl    a line each log step, flushed
RUN/loss.png
RUN/checkpoint-N/    whole once it holds the file WHOLE
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from flexreward.errors import OutputError
from training.proof import write_whole
from training.provenance import commit, hardware, versions
from training.recipe import Strict

WHOLE = "WHOLE"
CHECKPOINT = re.compile(r"checkpoint-(\d+)")
FREE = {"log_every", "eval_every", "save_every", "keep_checkpoints", "replace", "rounds", "launch"}
"""Fields that may change between a start and the next: they do not touch what is learned."""


class Run:
    """One run's folder, opened anew by every start.

    Args:
        inputs: Data sources by role; a file's digest is kept, so that a changed file is not trained on by half.

    Raises:
        OutputError: the folder belongs to another recipe, or its data have changed.
    """

    def __init__(self, folder: Path, recipe: Strict, *, seed: int, inputs: dict[str, str]) -> None:
        self.folder = folder
        asked = recipe.model_dump(mode="json")
        digests = {role: {"source": source, "sha256": _digest(Path(source))} for role, source in inputs.items()}
        self._record = self._kept(asked, digests) or {"seed": seed, "inputs": digests, "starts": [], "weights": None}
        self._asked = asked

    def _kept(self, asked: dict[str, Any], digests: dict[str, Any]) -> dict[str, Any] | None:
        if not (self.folder / "run.json").exists():
            return None
        record: dict[str, Any] = json.loads((self.folder / "run.json").read_text(encoding="utf-8"))
        before = yaml.safe_load((self.folder / "recipe.yaml").read_text(encoding="utf-8"))
        for name, value in asked.items():
            if name not in FREE and before.get(name) != value:
                raise OutputError(
                    f"{self.folder}: this run was started with {name}={before.get(name)!r}, the recipe now says "
                    f"{value!r}; give another run_dir, or remove the folder"
                )
        for role, digest in digests.items():
            if record["inputs"].get(role) != digest:
                raise OutputError(
                    f"{digest['source']}: has changed since {self.folder} was started; give another run_dir"
                )
        return record

    @property
    def weights(self) -> str | None:
        """The digest of the trained model, once there is one."""
        weights: str | None = self._record["weights"]
        return weights

    @property
    def origin(self) -> dict[str, Any]:
        """What a trained model should carry with it: the inputs with their digests, and the last start."""
        return {"inputs": self._record["inputs"], **self._record["starts"][-1]}

    def checkpoint(self) -> Path | None:
        """The newest whole checkpoint."""
        whole = [path for path in self._checkpoints() if (path / WHOLE).exists()]
        return max(whole, key=_step, default=None)

    def clear_half_written(self) -> list[Path]:
        """Remove the checkpoints that a kill left half written, so that nothing counts or reads them."""
        half = [path for path in self._checkpoints() if not (path / WHOLE).exists()]
        for path in half:
            shutil.rmtree(path)
        return half

    def _checkpoints(self) -> list[Path]:
        return [path for path in self.folder.glob("checkpoint-*") if CHECKPOINT.fullmatch(path.name)]

    def start(self) -> int:
        """Note this start and drop the metrics of steps that will be done again; returns the step it goes on from.

        For one process of many.
        """
        checkpoint = self.checkpoint()
        step = _step(checkpoint) if checkpoint else 0
        write_whole(self.folder / "recipe.yaml", yaml.safe_dump(self._asked, sort_keys=False, allow_unicode=True))
        self._record["starts"].append(
            {
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
                "from_step": step,
                **commit(),
                "versions": versions(),
                "hardware": hardware(),
            }
        )
        self._write()
        kept = [row for row in self.metrics() if row["step"] <= step] if checkpoint else []
        write_whole(self._metrics, "".join(json.dumps(row) + "\n" for row in kept))
        return step

    def finish(self, *, steps: int, weights: str | None) -> None:
        """Note the trained model, before it takes its place: a kill between the two is then no loss."""
        self._record |= {"steps": steps, "weights": weights}
        self._write()

    def _write(self) -> None:
        write_whole(self.folder / "run.json", json.dumps(self._record, indent=2) + "\n")

    @property
    def _metrics(self) -> Path:
        return self.folder / "metrics.jsonl"

    def log(self, row: dict[str, float]) -> None:
        """Append one line; ``row`` holds ``step``."""
        with self._metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def metrics(self) -> list[dict[str, float]]:
        """The lines so far; one that a kill cut short is left out."""
        lines = self._metrics.read_text(encoding="utf-8").splitlines(keepends=True) if self._metrics.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def plot(self, label_of_loss: str = "loss, nats a token") -> None:
        """Draw the losses over the steps."""
        from matplotlib.figure import Figure

        axes = (figure := Figure(figsize=(7, 4), layout="constrained")).subplots()
        for name, label in (("loss", "training"), ("eval_loss", "held out")):
            rows = [row for row in self.metrics() if name in row]
            if rows:
                axes.plot([row["step"] for row in rows], [row[name] for row in rows], label=label)
        axes.set(xlabel="step", ylabel=label_of_loss)
        if axes.lines:
            axes.legend()
        figure.savefig(self.folder / "loss.png", dpi=120)


def put_in_place(staged: Path, output: Path, *, replace: bool) -> None:
    """Give a finished folder its name, whole or not at all.

    Raises:
        OutputError: something stands there that may not be replaced.
    """
    refuse_standing(output, replace=replace)
    output.parent.mkdir(parents=True, exist_ok=True)
    aside = output.with_name(f".{output.name}.old")
    if output.exists():
        shutil.rmtree(aside, ignore_errors=True)
        output.rename(aside)
    staged.rename(output)
    shutil.rmtree(aside, ignore_errors=True)


def refuse_standing(output: Path, *, replace: bool) -> None:
    """Say so before any training when the output would not be allowed to take its place."""
    if output.exists() and not replace:
        raise OutputError(f"{output}: already there; remove it, name another output, or set replace: true")


def weights_digest(folder: Path) -> str | None:
    """One digest over all weights of a saved model; ``None`` where there are none."""
    digests = [_digest(path) or "" for path in sorted(folder.glob("*.safetensors"))]
    return hashlib.sha256("".join(digests).encode()).hexdigest() if digests else None


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.partition("-")[2])


def _digest(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
