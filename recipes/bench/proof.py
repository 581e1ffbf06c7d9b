"""``make proof-bench``: the benches whose figures stand in this README, each a part that is kept when it is done.

``python -m recipes.bench.proof PART ...`` measures these parts alone; the proof is written once all are there. vLLM's
need an environment with vLLM in it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flexreward.bench import Bar, expected, passes, text_lines, vllm, votes
from flexreward.config import resolve_judge
from flexreward.engines.checkpoint import read_checkpoint
from training.proof import Parts, record

TAKEN = {
    "saved": votes.saved_bars,
    "statistical": votes.statistical_bars,
    "expected": expected.bars,
    "passes_transformers": passes.on_transformers,
    "passes_vllm": passes.on_vllm,
    "engine_vllm": vllm.bars,
}


def main() -> None:
    parts = Parts("bench", basis=read_checkpoint(resolve_judge("tiny").model).digest)
    asked = sys.argv[1:] or list(TAKEN)
    figures = {name: parts.get(name, lambda run=TAKEN[name]: measured(run)) for name in asked}
    if set(asked) == set(TAKEN):
        record("bench", figures, Path("recipes/bench/proofs"), seconds=parts.seconds)


def measured(run: Callable[[], dict[str, Bar]]) -> dict[str, Any]:
    """Each bar's value, interval and baseline; dots in a name, as of 0.6, part it in a README's mark."""
    bars = run()
    print("\n".join(text_lines(bars)), flush=True)
    return {name.replace(".", "_"): _plain(bar) for name, bar in bars.items()}


def _plain(bar: Bar) -> dict[str, Any]:
    low, high = bar.interval
    return {"value": bar.value, "low": low, "high": high, "baseline": bar.baseline, "n": bar.n}


if __name__ == "__main__":
    main()
