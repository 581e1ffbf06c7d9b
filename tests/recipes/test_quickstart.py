"""The quickstart as a new user runs it, on fewer problems."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def quickstart(out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "recipes.tiny.quickstart", "--problems", "32", "--out", str(out), *more]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=280)


def test_a_better_answer_is_taken_and_everything_stands_in_the_folder(tmp_path):
    first = quickstart(tmp_path)
    assert first.returncode == 0, first.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    curve, oracle, shuffled = (summary[line] for line in ("best_of_n", "oracle", "shuffled"))
    assert list(curve) == ["1", "2", "4", "8", "16"]
    assert curve["16"] >= curve["1"] + 0.10
    assert all(curve[n] <= oracle[n] + 1e-9 for n in curve)
    assert abs(shuffled["16"] - shuffled["1"]) < 0.10
    assert summary["pairs"]["kept"] > 0
    assert summary["parse_rate"] >= 0.99
    assert 0 <= summary["flip_rate"] <= 0.1
    assert summary["judgments_per_s"] > 0
    kept = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert len(kept) == summary["pairs"]["kept"]
    assert all(row["score_chosen"] > row["score_rejected"] for row in kept)
    assert "judgments a second" in first.stdout
    page = (tmp_path / "report.html").read_text()
    assert "<think>" not in page

    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.jsonl")}
    again = quickstart(tmp_path)
    assert again.returncode == 0, again.stderr
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.jsonl")} == before
    assert json.loads((tmp_path / "summary.json").read_text()) == summary


def test_another_judge_is_swapped_in_by_name_and_a_wrong_name_is_one_line(tmp_path):
    assert quickstart(tmp_path, "--judge", "scripted:longer").returncode == 0
    wrong = quickstart(tmp_path, "--judge", "no/such.yaml")
    assert wrong.returncode == 2
    assert len(wrong.stderr.strip().splitlines()) == 1
