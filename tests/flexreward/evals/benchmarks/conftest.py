"""A publisher's folder, a few tiny files at a time."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

PNG = b"\x89PNG\r\n\x1a\n"
"""Enough of an image for those who only carry it."""

DATA_SETS = (
    *("coco", "c.c.", "diffusion", "graphics", "math", "text", "wit", "chartqa", "visit", "cc-3m", "mind2web"),
    *("scienceqa", "aesthetics", "mm-vet"),
)

Rows = Sequence[Mapping[str, Any]]


class Publisher:
    """Writes files the way publishers lay them out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, name: str, data: bytes | None = None) -> Path:
        """A file; without ``data`` a tiny image that is unlike every other."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PNG + name.encode() if data is None else data)
        return path

    @staticmethod
    def picture(name: object) -> dict[str, Any]:
        """An image as the hub's Parquet holds it."""
        return {"bytes": PNG + str(name).encode(), "path": f"{name}.png"}

    def parquet(self, name: str, rows: Rows) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(list(rows)), self.put(name, b""))

    def jsonl(self, name: str, rows: Rows) -> None:
        self.put(name, "".join(json.dumps(row) + "\n" for row in rows).encode())

    def array(self, name: str, rows: Rows) -> None:
        self.put(name, json.dumps(rows, indent=4).encode())

    def table(self, name: str, lines: Sequence[Sequence[object]]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(lines)
        self.put(name, text.getvalue().encode())

    def mllm_judge(self, count: int) -> None:
        """The three files of MLLM-as-a-Judge: ``count`` rows each over 14 data sets, in both styles of each field."""
        score, pair, batch = [], [], []
        for i in range(count):
            self.put(f"image/{i}.jpg")
            common = {
                "id": i,
                "instruction": f"What is in picture {i}?",
                "image_path": f"image/{i}.jpg" if i % 2 else f"{i}.jpg",
                "original_dataset": DATA_SETS[i % len(DATA_SETS)],
            }
            human = "human" if i % 3 else "human_answer"
            place = i // len(DATA_SETS)
            stars = 1 + place % 5
            texts = [{"name": name, "answer": "word " * (1 + (i * k) % 7)} for k, name in enumerate("abcd", 2)]
            rated = {"score_id": i, "name": "gemini", "answer": "yes " * stars, human: stars if i % 2 else str(stars)}
            score.append(common | rated)
            pair.append(common | {"pair_id": i, "answer1": texts[0], "answer2": texts[1], human: "ABC"[place % 3]})
            batch.append(common | {"answers": texts, human: ("ABCD", "DCBA", "BADC")[place % 3]})
        for name, rows in {"score": score, "pair": pair, "batch": batch}.items():
            self.jsonl(f"Benchmark/{name}.jsonl", rows)


@pytest.fixture
def publish(tmp_path: Path) -> Publisher:
    """A publisher's folder, ``publish.folder``, still empty."""
    folder = tmp_path / "data"
    folder.mkdir()
    return Publisher(folder)
