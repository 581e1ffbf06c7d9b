"""``make proof-thinking``: the bars of ``flexreward bench thinking``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flexreward.bench import Bar, text_lines, thinking
from flexreward.config import resolve_judge
from flexreward.engines.checkpoint import read_checkpoint
from training.proof import Parts, record


def main() -> None:
    digest = read_checkpoint(resolve_judge("tiny").model).digest
    parts = Parts(
        "thinking",
        basis=f"{digest} {thinking.NUM_REQUESTS} {thinking.BUDGETS} {thinking.WAITS} {thinking.WAITS_BUDGETS}",
    )
    figures = parts.get("bars", _measured)
    record("thinking", figures, Path("recipes/thinking/proofs"), seconds=parts.seconds)


def _measured() -> dict[str, Any]:
    bars = thinking.bars()
    print("\n".join(text_lines(bars)), flush=True)
    return {name: _plain(bar) for name, bar in bars.items()}


def _plain(bar: Bar) -> dict[str, Any]:
    low, high = bar.interval
    return {"value": bar.value, "low": low, "high": high, "baseline": bar.baseline, "n": bar.n}


if __name__ == "__main__":
    main()
