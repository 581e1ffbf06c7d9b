"""The bench of a judged folder: what it filters is judged as the command would have it, so that nothing is judged."""

from __future__ import annotations

import json

from flexreward.bench import pairs_report


def test_the_bench_ends_in_seconds_and_megabytes_beside_the_floor():
    bars = pairs_report.bars(num_pairs=40)
    assert {name: bar.goal for name, bar in bars.items()} == {
        "pairs_report_s": 60.0,
        "pairs_report_cpu_s": None,
        "pairs_report_mb": 2_000.0,
    }
    assert all(bar.value > bar.baseline > 0 for bar in bars.values() if bar.goal != 2_000.0)


def test_a_folder_that_the_bench_makes_is_filtered_and_shown_without_a_judgment(tmp_path):
    folder = pairs_report.write_pairs_folder(tmp_path, 60)
    taken = pairs_report.filtered(folder)
    found = json.loads((folder / "printed").read_text())
    assert (found["rows"], found["judged_now"]) == (60, 0)
    assert found["pairs"]["kept"] > 0
    assert {"flipped", "margin"} <= found["pairs"]["dropped"].keys()
    assert found["study"]["truth"]["before"]["value"] > 0.5
    assert found["study"]["temperatures"][0]["temperatures"] == [0.8, 1.2]
    assert (folder / "report.html").exists()
    assert taken.cpu_s > 0
    assert 20 < taken.peak_mb < pairs_report.GOAL_MB
