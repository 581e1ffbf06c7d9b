"""The page of a folder of pairs: what its figures say, and that it can be made again from the folder alone."""

from __future__ import annotations

import json
import re
from pathlib import Path

from flexreward.cli import run
from flexreward.report.pairs.page import pairs_page
from flexreward.report.pairs.told import leans, remarks


def share(value, spread=0.01, n=100):
    return {"value": value, "low": value - spread, "high": value + spread, "n": n}


def study(**parts):
    lengths = [[1, 1], [1, 2], [2, 4], [4, None]]
    plain = {
        "longer_won": {"before": share(0.5), "after": share(0.5)},
        "earlier_won": {"before": share(0.5), "after": share(0.5)},
        "histograms": {"length": {"bins": lengths, "kept": [9, 9, 1, 1], "dropped": [0, 0, 0, 0]}},
    }
    return plain | parts


def test_the_page_says_what_became_of_the_pairs_and_is_made_again_from_the_folder(folder: Path, capsys):
    written = (folder / "report.html").read_bytes()
    page = pairs_page(folder)
    by_outcome = json.loads((folder / "summary.json").read_text())["study"]["yield"]["by_outcome"]
    assert page.headline == f"{by_outcome['kept']} of 90 judged pairs kept"
    assert [(count.name, count.num) for count in page.counts] == list(by_outcome.items())
    assert list(page.plots) == ["place", "truth", "winners", "spread"]
    assert page.browser.total == 90
    html = written.decode()
    assert "Where do the orders disagree?" in html
    assert "Is the winner the better one?" in html
    (folder.parent / "samples.jsonl").unlink()
    (folder / "report.html").unlink()
    capsys.readouterr()
    assert run(["report", str(folder)]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "report.html")
    assert (folder / "report.html").read_bytes() == written


def test_every_pair_can_be_asked_for_by_outcome_and_by_the_truth(folder: Path):
    html = (folder / "report.html").read_text()
    outcomes = json.loads((folder / "summary.json").read_text())["study"]["yield"]["by_outcome"]
    for outcome, count in outcomes.items():
        assert f">{outcome} ({count})</option>" in html
    assert re.search(r">the better won \(\d+\)</option>", html)
    assert ">by the truth <select" in html
    shown = [json.loads(text) for text in re.findall(r"data-verdicts>(.*?)</script>", html)]
    [first, *_] = shown[0]
    assert first["completions"][0]["system"].startswith("temperature 0.8, cut at its limit, ")
    assert [len(order["votes"]) for order in first["judges"][0]["orders"]] == [1, 1]
    assert "Longer is better." in first["judges"][0]["orders"][0]["votes"][0]["thought"]


def test_prompts_with_images_show_the_small_ones_and_name_the_others(build_pairs, tmp_path: Path):
    from PIL import Image

    Image.new("RGB", (8, 8), "red").save(tmp_path / "small.png")
    Image.effect_noise((400, 400), 60).save(tmp_path / "large.png")
    for name in ("small.png", "large.png"):
        out = build_pairs(2, images=[name])
        line = json.loads((out / "shown.jsonl").read_text().splitlines()[0])
        assert line["images"][0]["name"] == name
        is_small = line["images"][0].get("src", "").startswith("data:image/png;base64,")
        assert is_small == (name == "small.png")
        assert ("data:image/png;base64," in (out / "report.html").read_text()) == is_small


def test_a_share_leans_where_its_interval_keeps_away_from_the_middle():
    assert leans(share(0.6))
    assert leans(share(0.4))
    assert not leans(share(0.55))
    assert not leans(share(0.8, spread=0.3))
    assert not leans({"value": None, "low": None, "high": None, "n": 0})


def test_what_the_figures_say_to_do_names_the_option():
    assert remarks(study()) == ()
    long = study(longer_won={"before": share(0.7), "after": share(0.8)})
    assert [remark.remedy for remark in remarks(long)] == ["--balance length"]
    assert "the longer text in 80.0\N{NO-BREAK SPACE}% of the kept pairs" in remarks(long)[0].words
    late = study(earlier_won={"before": share(0.5), "after": share(0.3)}, temperatures=[{}])
    assert [remark.remedy for remark in remarks(late)] == ["--balance position"]
    assert "the later completion of its sample in 70.0" in remarks(late)[0].words
    assert "temperature" in remarks(late)[0].words
    unlike = study(histograms={"length": {"bins": [[1, 2], [2, 4], [4, None]], "kept": [1, 2, 3], "dropped": [0] * 3}})
    assert [remark.remedy for remark in remarks(unlike)] == ["--keep ratio=2"]


def test_a_margin_below_which_the_judge_is_a_coin_is_named():
    by_margin = [{"from": 0, "to": 1, **share(0.5)}, {"from": 1, "to": 2, **share(0.9)}]
    known = {"before": share(0.8), "after": share(0.8), "by_margin": by_margin}
    assert [remark.remedy for remark in remarks(study(truth=known))] == ["--keep margin=1"]
    assert remarks(study(truth=known | {"before": share(0.5)})) == ()


def test_a_folder_in_which_no_pair_was_judged_has_a_page_too(build_pairs):
    page = pairs_page(build_pairs(3, completions=["the same"] * 2, origins=None, right=[True, True]))
    assert page.headline == "0 of 0 judged pairs kept"
    assert page.gauges[0].value == "–"
    assert "3 pairs of equal texts" in page.lead[0]


def test_a_folder_in_which_nothing_could_be_read_has_a_page_too(build_pairs):
    page = pairs_page(build_pairs(2, judge="scripted:mute"))
    assert page.headline == "0 of 6 judged pairs kept"
    assert page.plots["place"] == ()
