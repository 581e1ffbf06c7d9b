"""A folder of pairs as ``flexreward pairs`` leaves it, by a script that likes length."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from flexreward.cli import run


@pytest.fixture
def folder(build_pairs: Callable[..., Path]) -> Path:
    """Thirty prompts, three pairs each; texts that differ in length, and some that tie."""
    return build_pairs(30)


@pytest.fixture
def build_pairs(tmp_path: Path) -> Callable[..., Path]:
    def build(
        count: int, *, says: Callable[[int], str] = lambda i: "word ", judge: str = "scripted:longer", **fields: object
    ) -> Path:
        rng = random.Random(0)
        rows = [
            {
                "id": f"q{i}",
                "prompt": f"Prompt {i}: {says(i)}?",
                "completions": [f"{says(i + k)} {'x' * rng.randint(1, 60)} {k}" for k in range(3)],
                "origins": [{"temperature": t, "finish_reason": "length"} for t in (0.8, 0.8, 1.2)],
                "right": [rng.random() < 0.5 for _ in range(3)],
                **fields,
            }
            for i in range(count)
        ]
        source, out = tmp_path / "samples.jsonl", tmp_path / "pairs"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        options = ["--judge", judge, "--no-store", "--overwrite", "--keep", "margin=0.3"]
        assert run(["pairs", str(source), "--out", str(out), *options]) == 0
        return out

    return build
