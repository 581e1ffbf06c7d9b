"""``python -m recipes.bench.one NAME``: one bench whose figures stand in this README for themselves.

``pairs`` needs an environment with vLLM in it; ``pairs_report`` takes three minutes and 4 GB of disk.
"""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path

from flexreward.bench import machine
from recipes.bench.proof import measured
from training.proof import record

NAMES = ("pairs", "pairs_report")


def main() -> None:
    if sys.argv[1:] not in [[name] for name in NAMES]:
        sys.exit(f"expected one of {', '.join(NAMES)}, found {' '.join(sys.argv[1:]) or 'nothing'}")
    (name,) = sys.argv[1:]
    began, load = time.monotonic(), machine()["load"]
    figures = measured(importlib.import_module(f"flexreward.bench.{name}").bars) | {"load": load}
    record(
        name,
        figures,
        Path("recipes/bench/proofs"),
        seconds=time.monotonic() - began,
        command=f"python -m recipes.bench.one {name}",
    )


if __name__ == "__main__":
    main()
