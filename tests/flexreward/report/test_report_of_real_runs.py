"""Run folders as the library's own writers leave them, and the command over them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flexreward.cli import run
from flexreward.engines.base import Prompt
from flexreward.engines.scripted import ScriptedEngine
from flexreward.files.samples import read_samples
from flexreward.files.whole import update_summary
from flexreward.jobs.run import items_of, judge_to_file
from flexreward.judge import Judge
from flexreward.pairs import build, choose
from flexreward.pairs.keep import consistent
from flexreward.report import report_html
from flexreward.templates import load_template

SAMPLES = [
    {"id": "q1", "kind": "add", "prompt": "What is 3 + 4?", "answer": "7", "completions": ["7", "8", "7", "It is 7."]},
    {"id": "q2", "kind": "add", "prompt": "What is 5 + 4?", "answer": "9", "completions": ["9", "7", "bad", "1"]},
]


def script(prompt: Prompt) -> str:
    """Likes sevens; cannot read ``bad``; and where it compares a nine it takes whatever stands first."""
    shown = [part.split("\n")[1] for part in prompt.user.split("\n\n")[1:]]
    if "bad" in shown:
        return "<think>\nI cannot"
    marks = [5 if "7" in text else 2 for text in shown]
    marks = [6, 3] if len(shown) == 2 and "9" in shown else marks
    return "<think>\nlooking for a seven</think> " + " ".join(f"<answer>{mark}</answer>" for mark in marks)


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    rows = [row | {"right": [row["answer"] in text for text in row["completions"]]} for row in SAMPLES]
    path = tmp_path / "run" / "samples.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def judge(template: str) -> Judge:
    return Judge(ScriptedEngine(script), load_template(template))


async def test_a_folder_of_best_of_n_and_pairs_gets_the_whole_page(samples: Path):
    out = samples.parent
    files = choose.Files.beside(out)
    await judge_to_file(judge("score"), choose.completion_items(read_samples(str(samples))), files.outcomes)
    await judge_to_file(judge("pair"), build.pair_items(read_samples(str(samples))), out / build.OUTCOMES)
    choose.choose_all(read_samples(str(samples)), files, truth="right", counts=[1, 2, 4], seed=0)
    built = build.build(lambda: read_samples(str(samples)), out, build.Plan(rules=(consistent,)))
    update_summary(files.summary, built.counts.summary())
    html = report_html(out)
    assert "The judge picks no better than chance" in html
    assert "#1, #3 and #4 share the highest score, 5: one of them is drawn at random." in html
    assert "#2 is picked: its score, 5, is the highest. A wrong pick: no right completion got a score as high." in html
    assert "Unscored: the judge&#39;s reasoning never ended" in html
    assert 'data-status="dropped" data-reason="flipped"' in html
    assert 'data-status="dropped" data-reason="unscored"' in html
    assert "Kept: both orders prefer A, so the verdict does not hang on the place. A is right." in html
    assert "Scores run from 1 to 5." in html
    assert "duplicate" not in html
    assert '<mark title="A score that was read">5</mark>' in html


def test_a_knockouts_page_says_how_a_completion_was_picked(samples: Path):
    longer = ("--judge", "scripted:longer", "--no-store")
    assert run(["best-of-n", str(samples), "--out", str(samples.parent), "--method", "knockout", *longer]) == 0
    html = report_html(samples.parent)
    assert "A policy was given 2 problems and wrote several completions for each." in html
    assert "The judge set two completions at a time against each other, in both orders" in html
    assert "gave it a score" not in html
    assert 'id="best-of-n"' not in html


async def test_a_folder_of_judgments_alone_shows_who_was_preferred(samples: Path):
    items = items_of(read_samples(str(samples)), load_template("batch"))
    await judge_to_file(judge("batch"), items, samples.parent / "outcomes.jsonl")
    html = report_html(samples.parent)
    assert "1 of 2 requests scored" in html
    assert "A tie: the best score is shared." in html
    assert 'data-status="unscored"' in html


async def test_the_command_prints_where_the_page_is(samples: Path, capsys: pytest.CaptureFixture[str]):
    assert run(["report", str(samples.parent)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    items = choose.completion_items(read_samples(str(samples)))
    await judge_to_file(judge("score"), items, samples.parent / "outcomes.jsonl")
    assert run(["report", str(samples.parent)]) == 0
    assert capsys.readouterr().out.strip() == str(samples.parent / "report.html")
