"""Where verdicts lie: every one is somewhere once, and no text leaves its string."""

from __future__ import annotations

import ast
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from flexreward.report.evals import shards
from flexreward.report.evals.page import teller
from flexreward.report.evals.rows import read_facts
from flexreward.report.evals.shards import as_json, drawn, lay_out

RESULTS = ["right", "wrong", "tie", "unscored"]


def called(path: Path) -> tuple[int, list[dict[str, Any]]]:
    """What a shard calls the page with: a number, and the JSON in a string of ASCII."""
    text = path.read_bytes().decode("ascii")
    assert text.startswith("flexrewardShard(")
    assert text.endswith(");\n")
    assert text.count("\n") == 1
    assert "<" not in text
    number, _, string = text.removeprefix("flexrewardShard(").removesuffix(");\n").partition(",")
    return int(number), json.loads(json.loads(string))


def test_any_beginning_of_the_draw_has_the_strata_in_equal_parts():
    strata = ["many"] * 900 + ["some"] * 90 + ["few"] * 10
    order = drawn(strata)
    assert sorted(order) == list(range(1000))
    assert Counter(strata[i] for i in order[:30]) == {"many": 10, "some": 10, "few": 10}
    assert Counter(strata[i] for i in order[:190]) == {"many": 90, "some": 90, "few": 10}
    assert order == drawn(strata) != drawn(strata, seed=1)


def test_every_verdict_is_in_the_page_or_in_a_shard_where_the_list_says(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shards, "PAGE_VERDICTS", 20)
    monkeypatch.setattr(shards, "SHARD_CHARS", 60_000)
    monkeypatch.setattr(shards, "BLOCK_CHARS", 60_000)
    facts = read_facts(folder / "outcomes.jsonl", folder / "samples.jsonl")
    layout = lay_out(facts, teller(folder), folder / "report.shards", RESULTS)
    assert layout.num_page == 20
    assert layout.num_shards > 1
    files = [json.loads(block) for block in layout.blocks]
    for number, path in enumerate(sorted((folder / "report.shards").iterdir())):
        found, verdicts = called(path)
        assert found == number
        files.append(verdicts)
    assert len(files) == len(layout.blocks) + layout.num_shards
    [listed] = [json.loads(part) for part in layout.listed]
    assert listed["id"] == [fact.id for fact in facts]
    for name, file, place in zip(listed["id"], listed["file"], listed["place"], strict=True):
        assert files[file][place]["id"] == name
    assert [RESULTS[i] for i in listed["result"]] == [fact.result for fact in facts]


def test_a_page_is_no_larger_than_its_limit_and_the_rest_goes_into_shards(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shards, "PAGE_BYTES", shards.OTHER_BYTES + 150_000)
    facts = read_facts(folder / "outcomes.jsonl", folder / "samples.jsonl")
    layout = lay_out(facts, teller(folder), folder / "report.shards", RESULTS)
    assert 0 < layout.num_page < 60
    assert sum(len(part.encode()) for part in (*layout.blocks, *layout.listed)) <= 150_000
    assert layout.num_shards > 0


def test_shards_of_an_earlier_report_are_removed_and_nothing_else_is(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shards, "PAGE_VERDICTS", 20)
    monkeypatch.setattr(shards, "SHARD_CHARS", 60_000)
    facts = read_facts(folder / "outcomes.jsonl", folder / "samples.jsonl")
    place = folder / "report.shards"
    lay_out(facts, teller(folder), place, RESULTS)
    first = {path.name: path.read_bytes() for path in place.iterdir()}
    (place / "mine.txt").write_text("kept")
    (place / "999.js").write_text("old")
    lay_out(facts, teller(folder), place, RESULTS)
    assert {path.name: path.read_bytes() for path in place.iterdir()} == first | {"mine.txt": b"kept"}
    (place / "mine.txt").unlink()
    monkeypatch.setattr(shards, "PAGE_VERDICTS", 2_000)
    lay_out(facts, teller(folder), place, RESULTS)
    assert not place.exists()


def test_no_attempt_leaves_its_string(folder: Path, poison: Any, attempts: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shards, "PAGE_VERDICTS", 5)
    poison(folder)
    facts = read_facts(folder / "outcomes.jsonl", folder / "samples.jsonl")
    layout = lay_out(facts, teller(folder), folder / "report.shards", RESULTS)
    assert len(attempts) >= 30
    for part in (*layout.listed, *layout.blocks):
        assert "<" not in part
        assert "\u2028" not in part
        part.encode()
    for path in (folder / "report.shards").iterdir():
        _, verdicts = called(path)
        string = path.read_text().partition(",")[2].removesuffix(");\n")
        # The string ends where the shard does, for a reader of Python's string literals as for one of JavaScript's.
        assert isinstance(ast.literal_eval(string), str)
        assert all(set(verdict) >= {"id", "prompt", "completions", "judges"} for verdict in verdicts)


def test_json_for_a_script_element_holds_no_less_than():
    assert json.loads(as_json({"a": "</script><!--"})) == {"a": "</script><!--"}
    assert "<" not in as_json({"a": "</script><!--"})
