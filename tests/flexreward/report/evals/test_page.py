"""The page of an eval folder says what the summary holds, and nothing of a half-run's figures."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from flexreward.errors import OutputError
from flexreward.report import write_report
from flexreward.report.evals import shards
from flexreward.report.render import VERDICTS_POLICIES


class Elements(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def assert_inert(html: str) -> None:
    """One script that runs, one style, no handler, nothing that loads."""
    found = Elements(html).found
    scripts = [attributes for tag, attributes in found if tag == "script"]
    assert len([one for one in scripts if one.get("type") != "application/json"]) == 1
    assert [tag for tag, _ in found].count("style") == 1
    assert not {"img", "iframe", "object", "embed", "base", "video", "audio"} & {tag for tag, _ in found}
    for tag, attributes in found:
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "src", "srcdoc")], tag
        assert (attributes.get("href") or "#").startswith("#") or attributes["href"] == "data:,"
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", html)


def add(folder: Path, **fields: Any) -> None:
    path = folder / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def written(folder: Path) -> str:
    return write_report(folder).read_text()


def test_the_page_tells_both_protocols_their_difference_and_the_quirks(folder: Path):
    add(
        folder,
        published={"accuracy": 0.7213, "accuracy/maths": 0.5},
        strict={"accuracy": {"value": 0.7145, "low": 0.7081, "high": 0.7207, "n": 60}},
        quirks=["a reply that cannot be read counts as a tie"],
        notes=["the data has 60 rows, and published figures are of 61"],
    )
    html = written(folder)
    assert_inert(html)
    for text in ("72.13\u00a0%", "71.45\u00a0%", "70.81 to 72.07\u00a0%", "-0.68", "counts as a tie", "are of 61."):
        assert text in html
    assert "Half-run" not in html
    assert [policy.replace("'", "&#39;") in html for policy in VERDICTS_POLICIES] == [True, True]
    assert (folder / "report.md").read_text().startswith("# Made-up pairs: accuracy 72.13")
    assert "| accuracy | 72.13" in (folder / "card.md").read_text()


def test_a_half_run_is_told_at_the_top_and_has_no_figure_in_any_file(folder: Path):
    figures = {"published": {"accuracy": 0.7213}, "strict": {"accuracy": {"value": 0.7145, "n": 60}}}
    votes = [{"votes": k, "value": 0.7213, "spread": 0.0} for k in (1, 2)]
    add(folder, complete=False, expected_rows=120, scaling={"votes": votes}, **figures)
    html = written(folder)
    assert_inert(html)
    assert "Made-up pairs: half-run, 60 of 120 rows judged" in html
    assert html.index("Half-run.") < html.index("<h1>")
    for name in ("report.html", "report.md", "card.md"):
        text = (folder / name).read_text()
        assert "alf-run" in text
        assert "72.1" not in text
        assert "71.4" not in text
    assert 'id="figures"' not in html
    assert 'id="browser"' in html


def test_other_judges_stand_beside_this_one_by_the_same_figure(folder: Path):
    add(folder, benchmark="pandalm", published={"accuracy": 0.75, "f1": 0.7})
    html = written(folder)
    table = html[html.index("accuracy, beside other judges") :]
    assert table.index("JudgeLRM-7B") < table.index("this judge") < table.index("PandaLM-7B")
    assert "arXiv 2505.18601v1, Table 8" in table
    assert "it would come" in html


def test_errors_are_ranked_from_the_lowest(folder: Path):
    add(folder, benchmark="mllm-judge-batch", headline="levenshtein_over_groups")
    add(folder, published={"levenshtein_over_groups": 0.4, "levenshtein/COCO": 0.3, "levenshtein/M2W": 0.3})
    html = written(folder)
    table = html[html.index("levenshtein over groups, beside other judges") :]
    assert table.index("GPT-4V") < table.index("this judge") < table.index("LLaVA-Critic-7B")
    assert "COCO: 0.300; GPT-4V 0.318" in html


def test_each_part_of_the_summary_has_its_plot_and_a_part_that_is_missing_has_none(folder: Path):
    titles = {
        "Does it follow the place?": {"bias": {"position": position()}},
        "Where do the orders disagree?": {"bias": {"position": position()}},
        "Does it follow the length?": {"bias": {"length": length()}},
        "Can its confidence be believed?": {"calibration": calibration()},
        "Does it know when it is right?": {"confidence": confidence()},
        "Is it right where it thinks long?": {"scaling": {"length": thinking()}},
        "What more votes buy": {"scaling": {"votes": [{"votes": k, "value": 0.7, "spread": 0.01} for k in (1, 2, 3)]}},
        "What longer thought buys": {"scaling": {"waits": [{"waits": k, "value": 0.7} for k in (0, 1, 2)]}},
    }
    bare = written(folder)
    assert not [title for title in titles if title in bare]
    for title, part in titles.items():
        add(folder, **({"bias": {}, "calibration": {}, "confidence": {}, "scaling": {}} | part))
        html = written(folder)
        assert_inert(html)
        assert title in html


def test_ratings_stand_beside_peoples_and_few_prompts_leave_the_ids_in_front(folder: Path, change: Any):
    def rated(i: int, row: dict[str, Any]) -> None:
        if "flexreward" not in row:
            row |= {"human": [float(1 + i % 5)], "prompt": "One and the same.", "completions": ["a"]}
            row["scores"] = [float(1 + i % 4)] if row.get("scores") else row.get("scores")

    change(folder / "outcomes.jsonl", rated)
    change(folder / "samples.jsonl", rated)
    add(folder, task="rating", template={"id": "mos", "scale": [1, 5]})
    html = written(folder)
    assert_inert(html)
    assert "beside people’s ratings" in html
    assert "A rating is close when it lies within half a point of people’s." in html
    assert '"row-000000: One and the same."' in html


def test_who_judged_is_said_first_and_how_sure_it_is(folder: Path):
    confidence = {"votes": {"n": 60, "mean": 0.91, "auroc": 0.66, "coverage": []}, "margin": {"n": 60, "mean": None}}
    add(folder, confidence=confidence)
    html = written(folder)
    assert "60 rows, judged by made-up-judge (scripted), template pair." in html
    assert "votes agree" in html
    assert "AUROC 0.660" in html


def test_only_so_many_bytes_of_media_go_into_the_page(folder: Path, change: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shards, "MEDIA_BYTES", 3_000)
    (folder / "media").mkdir()
    (folder / "media" / "a.png").write_bytes(b"x" * 600)  # 800 characters in base64, and 22 of its type
    change(folder / "samples.jsonl", lambda i, row: row | {"images": ["a.png"]})
    html = written(folder)
    assert html.count('"src":"data:image/png;base64,') == 4
    assert html.count('"src":"media/a.png"') == 56


def share(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.02, "high": value + 0.02, "n": 60}


def position() -> dict[str, Any]:
    names = ("slot_1", "people_slot_1", "ties", "ties_in_one_order", "people_ties", "flips", "always_slot_1")
    parts = [
        {"low": i, "high": i + 1, "n": 12, "flips": 0.3 - i / 10, "slot_1": 0.5, "accuracy": 0.7} for i in range(3)
    ]
    return {name: share(0.4) for name in names} | {"by_margin": parts}


def length() -> dict[str, Any]:
    bins = [{"low": 10 * i, "high": 10 * i + 9, "n": 20, "judge": 0.6, "people": 0.5} for i in range(3)]
    difference = {"a": 0.5, "b": 0.6, "difference": 0.1, "low": 0.05, "high": 0.15, "p": 0.01, "n": 60}
    return {"judge": share(0.6), "people": share(0.5), "difference": difference, "bins": bins}


def calibration() -> dict[str, Any]:
    curve = [{"low": 0.5, "high": 0.55, "n": 9, "confidence": 0.52 + i / 10, "observed": 0.6} for i in range(3)]
    return {"over": "margin", "kind": "isotonic", "before": {"ece": 0.1, "curve": curve}, "after": {"ece": 0.03}}


def confidence() -> dict[str, Any]:
    coverage = [{"coverage": i / 10, "accuracy": 0.9 - i / 50} for i in range(1, 11)]
    return {"margin": {"n": 60, "mean": 0.4, "auroc": 0.7, "coverage": coverage}}


def thinking() -> dict[str, Any]:
    bins = [{"low": 100 * i, "high": 100 * i + 99, "n": 20, "length": 100 * i + 50, "value": 0.7} for i in range(3)]
    return {"n": 60, "spearman": -0.1, "bins": bins}


def test_null_figures_are_dashes(folder: Path):
    empty = {"value": None, "low": None, "high": None, "n": 0}
    add(folder, published={"accuracy": None}, strict={"accuracy": empty})
    assert_inert(written(folder))


def test_the_same_folder_ends_in_the_same_bytes(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shards, "PAGE_VERDICTS", 20)
    first = written(folder)
    assert written(folder) == first
    assert "holds 20 of 60 verdicts" in first


def test_attempts_in_every_place_stay_text_in_the_page_and_in_markdown(folder: Path, poison: Any):
    html = written(poison(folder))
    assert_inert(html)
    assert "&lt;img src=x onerror=" in html
    assert "etc/passwd" not in re.sub(r'"name":"[^"]*"', "", html)
    for name in ("report.md", "card.md"):
        text = (folder / name).read_text()
        assert not re.search(r"(?<!\\)<", text)
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", text)


def test_a_folder_without_outcomes_names_the_command(folder: Path):
    (folder / "outcomes.jsonl").unlink()
    with pytest.raises(OutputError, match=r"outcomes.jsonl: missing; `flexreward eval made-up --out .*` makes it"):
        write_report(folder)
    (folder / "summary.json").write_text("{")
    with pytest.raises(OutputError, match=r"summary.json: broken JSON"):
        write_report(folder)


def test_a_prompt_and_a_thought_that_were_cut_are_in_the_verdict_and_others_have_no_note(folder: Path, change: Any):
    def cut(i: int, row: dict[str, Any]) -> None:
        if i == 2:
            row["prompt_cut"] = 123
            row["orders"][1]["votes"][0]["thought_cut"] = True

    assert '"note":' not in written(folder)
    change(folder / "outcomes.jsonl", cut)
    blocks = re.findall(r"<script type=.application/json. data-verdicts>(.*?)</script>", written(folder), re.DOTALL)
    verdicts = {one["id"]: one for block in blocks for one in json.loads(block)}
    judge = verdicts["row-000001"]["judges"][0]
    assert judge["note"] == "prompt cut by 123 characters"
    assert [order["votes"][0].get("note") for order in judge["orders"]] == [None, "thought cut short"]
    assert json.dumps(verdicts).count('"note"') == 2
