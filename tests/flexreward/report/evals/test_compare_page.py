"""Two judges over the same rows, as one page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from flexreward.bench.verdicts import write_eval_folder
from flexreward.errors import OutputError
from flexreward.report import write_compare


def compared(tmp_path: Path, **more: Any) -> tuple[Path, Path, Path]:
    """Two made-up runs, and what compare says of them."""
    a, b, out = write_eval_folder(tmp_path / "one", 12), write_eval_folder(tmp_path / "other", 12), tmp_path / "cmp"
    lines = [json.loads(line) for line in (a / "outcomes.jsonl").read_text().splitlines()[1:]]
    out.mkdir()
    found = {
        "benchmark": "made-up",
        "title": "Made-up pairs",
        "task": "pair",
        "changed": {"votes": [1, 5]},
        "figures": {"accuracy": figure(0.7, 0.75, 0.01), "kappa": figure(0.5, 0.5, 1.0)},
        "groups": {"maths": figure(0.6, 0.8, 0.2)},
        "choices": {"n": 12, "alike": 0.8, "both_right": 6, "only_a": 1, "only_b": 2, "neither": 3},
        "differ": [{"id": line["id"]} for line in lines[:4]],
        **more,
    }
    (out / "compare.json").write_text(json.dumps(found))
    return a, b, out


def figure(a: float, b: float, p: float) -> dict[str, Any]:
    return {"a": a, "b": b, "difference": b - a, "low": b - a - 0.02, "high": b - a + 0.02, "p": p, "n": 12}


def test_figures_stand_side_by_side_with_interval_and_p_and_the_rows_that_differ(tmp_path: Path):
    a, b, out = compared(tmp_path)
    path = write_compare(a, b, out)
    html = path.read_text()
    assert path == out / "compare.html"
    assert "accuracy of other is +5.00 points beside one" in html
    assert "+3.00 to +7.00" in html
    assert "choose alike in 80.0\u00a0% of the rows" in html
    assert "only other right" in html
    [block] = re.findall(r'<script type="application/json" data-verdicts>(.*?)</script>', html)
    verdicts = json.loads(block)
    assert len(verdicts) == 4
    assert all([judge["name"] for judge in verdict["judges"]] == ["one", "other"] for verdict in verdicts)
    assert not (out / "compare.shards").exists()


def test_a_difference_that_chance_would_make_is_not_told_as_one(tmp_path: Path):
    a, b, out = compared(tmp_path, figures={"accuracy": figure(0.7, 0.72, 0.4)})
    html = write_compare(a, b, out).read_text()
    assert "no sure difference between one and other" in html


def test_a_curve_over_waits_is_drawn(tmp_path: Path):
    waits = [{"waits": k, "value": 0.7, "n": 12, "completion_tokens": 100} for k in (0, 1, 2)]
    a, b, out = compared(tmp_path, waits=waits)
    assert "What longer thought buys" in write_compare(a, b, out).read_text()


def test_the_difference_of_each_group_stands_over_the_length_of_its_replies(tmp_path: Path):
    groups = {
        name: figure(0.5, 0.5 + i / 20, 0.2) | {"characters": {"a": 100, "b": 1000 + 500 * i}}
        for i, name in enumerate(("maths", "writing", "safety"))
    }
    a, b, out = compared(tmp_path, groups=groups, length={"rows": 0.1, "groups": 1.0})
    html = write_compare(a, b, out).read_text()
    assert "Where is the difference won?" in html
    assert "Spearman’s correlation over groups: +1.00." in html
    assert "100 → 1,500" in html


def test_null_figures_and_no_rows_are_told(tmp_path: Path):
    empty = dict.fromkeys(("a", "b", "difference", "low", "high", "p")) | {"n": 0}
    a, b, out = compared(tmp_path, figures={"accuracy": empty}, differ=[], groups={}, choices={"n": 0, "alike": None})
    assert "0 rows that both scored" in write_compare(a, b, out).read_text()


def test_attempts_in_both_runs_stay_text(tmp_path: Path, poison: Any, attempts: Any):
    a, b, out = compared(tmp_path, title=attempts[0])
    for folder in (a, b):
        poison(folder)
    ids = [json.loads(line)["id"] for line in (a / "outcomes.jsonl").read_text().splitlines()[1:]]
    found = json.loads((out / "compare.json").read_text())
    found |= {"differ": [{"id": one} for one in ids], "groups": {one: figure(0.1, 0.2, 0.3) for one in attempts}}
    (out / "compare.json").write_text(json.dumps(found))
    html = write_compare(a, b, out).read_text()
    assert html.count("<script") == html.count("</script>") == 4
    assert "<img" not in html


def test_a_missing_comparison_names_the_command(tmp_path: Path):
    a, b, out = compared(tmp_path)
    (out / "compare.json").unlink()
    with pytest.raises(OutputError, match=r"compare.json: missing; `flexreward compare A B --out .*` makes it"):
        write_compare(a, b, out)
    (out / "compare.json").write_text("[]")
    with pytest.raises(OutputError, match=r"is no comparison"):
        write_compare(a, b, out)
