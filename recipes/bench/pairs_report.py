"""``python -m recipes.bench.pairs_report``: what another rule over a million judged pairs takes; five minutes, 4 GB."""

from __future__ import annotations

import time
from pathlib import Path

from flexreward.bench import machine, pairs_report
from recipes.bench.proof import measured
from training.proof import record


def main() -> None:
    began, load = time.monotonic(), machine()["load"]
    figures = measured(pairs_report.bars) | {"load": load}
    record(
        "pairs_report",
        figures,
        Path("recipes/bench/proofs"),
        seconds=time.monotonic() - began,
        command="python -m recipes.bench.pairs_report",
    )


if __name__ == "__main__":
    main()
