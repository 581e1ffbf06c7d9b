"""The road from replies on disk to figures, as ``flexreward eval --replies`` goes it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from flexreward.evals import load_benchmark
from flexreward.evals.base import Figures
from flexreward.evals.replies import Coverage, RepliesJudge
from flexreward.evals.rows import item_of
from flexreward.evals.source import open_folder
from flexreward.evals.table import Table, table_of
from flexreward.files.outcomes import encode, outcome_row

DATA = Path(__file__).parents[3].parent / "shared" / "data"


def jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


class Read(NamedTuple):
    """What became of a file of replies."""

    figures: Figures
    table: Table
    coverage: Coverage


@pytest.fixture
def shared_data() -> Path:
    """Real files, which lie beside the repository only where they were copied."""
    if not DATA.exists():
        pytest.skip("the real data lies beside the repository only where copied")
    return DATA


@pytest.fixture
def read_by(tmp_path: Path) -> Any:
    """``read_by("pandalm", folder, replies, ...)``: the replies written, joined, read, and counted as published."""

    def run(name: str, data: Path, replies: Iterable[Mapping[str, Any]], **options: Any) -> Read:
        path = tmp_path / "replies.jsonl"
        path.write_text("".join(json.dumps(reply) + "\n" for reply in replies), encoding="utf-8")
        benchmark = load_benchmark(name)
        folder = open_folder(benchmark.source, data)
        judge = RepliesJudge(path, benchmark, **options)
        coverage = judge.check(benchmark.rows(folder))
        judged = ((row, judge.judge(row)) for row in benchmark.rows(folder))
        lines = [json.loads(encode(outcome_row(judgment, item_of(row)))) for row, judgment in judged if judgment]
        table = table_of(lines)
        return Read(benchmark.published(table), table, coverage)

    return run
