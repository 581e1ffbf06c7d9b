"""``make proof-serve``: what HTTP and Ray Serve cost, what keyed routing buys, and what ten thousand broken bodies are
answered, on the machine at hand.

``python -m recipes.serve.proof PART ...`` measures these parts alone; the proof is written once all are there. The part
``routing`` needs an environment with vLLM in it. The part ``fuzz`` is a proof by itself, ``serve_fuzz``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from flexreward.bench import routing, server
from flexreward.config import resolve_judge
from flexreward.engines.checkpoint import read_checkpoint
from recipes.bench.proof import measured
from recipes.serve import fuzz
from training.proof import Parts, record

TAKEN = {"server": server.bars, "routing": routing.bars, "fuzz": fuzz.bars}
PROOFS = Path("recipes/serve/proofs")


def main() -> None:
    parts = Parts("serve", basis=read_checkpoint(resolve_judge("tiny").model).digest)
    asked = sys.argv[1:] or list(TAKEN)
    figures = {name: parts.get(name, lambda run=TAKEN[name]: measured(run)) for name in asked}
    whole, seconds = set(asked) == set(TAKEN), parts.seconds
    if fuzzed := figures.pop("fuzz", None):
        record(
            "serve_fuzz", fuzzed, PROOFS, seconds=seconds, command=f"python -m recipes.serve.proof {' '.join(asked)}"
        )
    if whole:
        record("serve", figures, PROOFS, seconds=seconds)


if __name__ == "__main__":
    main()
