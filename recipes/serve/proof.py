"""``make proof-serve``: what HTTP and Ray Serve cost, and what keyed routing buys, on the machine at hand.

``python -m recipes.serve.proof PART ...`` measures these parts alone; the proof is written once all are there. The part
``routing`` needs an environment with vLLM in it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from flexreward.bench import routing, server
from flexreward.config import resolve_judge
from flexreward.engines.checkpoint import read_checkpoint
from recipes.bench.proof import measured
from training.proof import Parts, record

TAKEN = {"server": server.bars, "routing": routing.bars}


def main() -> None:
    parts = Parts("serve", basis=read_checkpoint(resolve_judge("tiny").model).digest)
    asked = sys.argv[1:] or list(TAKEN)
    figures = {name: parts.get(name, lambda run=TAKEN[name]: measured(run)) for name in asked}
    if set(asked) == set(TAKEN):
        record("serve", figures, Path("recipes/serve/proofs"), seconds=parts.seconds)


if __name__ == "__main__":
    main()
