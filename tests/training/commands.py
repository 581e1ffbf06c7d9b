"""TRL's own command line, as a user types it, on a machine without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def trl(
    name: str, data: Path, model: Path, output: Path, *more: str, also: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """``trl NAME --dataset_name DATA ...`` for two steps; ``also`` goes before PYTHONPATH."""
    told = {
        "--dataset_name": data,
        "--model_name_or_path": model,
        "--output_dir": output,
        "--max_steps": 2,
        "--per_device_train_batch_size": 2,
        "--use_cpu": "true",
        "--bf16": "false",
        "--report_to": "none",
    }
    place = os.pathsep.join(str(path) for path in (also, os.environ.get("PYTHONPATH")) if path)
    own = {"PYTHONPATH": place, "HF_HOME": str(output.with_name("hf")), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [
            sys.executable,
            "-c",
            "from trl.cli import main; main()",
            name,
            *(str(x) for pair in told.items() for x in pair),
            *more,
        ],
        env=os.environ | own,
        capture_output=True,
        text=True,
    )
