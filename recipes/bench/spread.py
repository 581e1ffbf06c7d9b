"""``python -m recipes.bench.spread``: a million rows through ``pairs --ray``, rate and memory; 20 minutes, 6 GB.

Killed, it goes on where it was: what it has written stands in ``runs/proofs/spread``.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from flexreward.bench import machine, spread
from training.proof import record

NUM_ROWS = 1_000_000


def main() -> None:
    os.environ.pop("RAY_ADDRESS", None)
    folder = Path("runs/proofs/spread")
    folder.mkdir(parents=True, exist_ok=True)
    began, load = time.monotonic(), machine()["load"]
    figures = spread.measure(NUM_ROWS, folder) | {"load": load}
    record(
        "spread",
        figures,
        Path("recipes/bench/proofs"),
        seconds=time.monotonic() - began,
        command="python -m recipes.bench.spread",
    )
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
