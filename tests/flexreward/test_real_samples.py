"""Real rows, where they lie beside the repository: 999 human-voted pairs, and four models' answers to 80 questions."""

import json
from pathlib import Path

import pytest

from flexreward.cli import run
from flexreward.files.outcomes import read_outcomes

DATA = Path(__file__).parents[2].parent / "shared" / "data"
SETS = ("alpaca-13b", "bard", "gpt35", "llama-13b")

pytestmark = pytest.mark.skipif(not DATA.exists(), reason="the real data lies beside the repository only where copied")


def jsonl(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.fixture(params=SETS)
def vicuna_pairs(request, tmp_path) -> Path:
    """The questions with a model's answer and Vicuna's, joined by question."""
    folder = DATA / "vicuna_reviews"
    answers = [
        {row["question_id"]: row["text"] for row in jsonl(folder / f"answer_{model}.jsonl")}
        for model in (request.param, "vicuna-13b")
    ]
    path = tmp_path / f"{request.param}.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for question in jsonl(folder / "question.jsonl"):
            key = question["question_id"]
            row = {"id": key, "prompt": question["text"], "completions": [by_id[key] for by_id in answers]}
            file.write(json.dumps(row | {"category": question["category"]}) + "\n")
    return path


def test_80_pairs_of_real_answers_are_judged(vicuna_pairs, tmp_path):
    out = tmp_path / "outcomes.jsonl"
    assert run(["judge", str(vicuna_pairs), "--out", str(out), "--judge", "scripted:longer", "--no-store"]) == 0
    rows = list(read_outcomes(out))
    samples = jsonl(vicuna_pairs)
    assert [row["id"] for row in rows] == [str(sample["id"]) for sample in samples] == [str(i) for i in range(1, 81)]
    lengths = [[len(text) for text in sample["completions"]] for sample in samples]
    assert all(row["status"] == "scored" and row["category"] for row in rows)
    assert all(
        (row["scores"][0] > row["scores"][1]) == (a > b)
        for row, (a, b) in zip(rows, lengths, strict=True)
        if abs(a - b) > 5
    )


def test_999_human_voted_pairs_are_judged_in_the_order_of_the_file(tmp_path, capsys):
    out = tmp_path / "outcomes.jsonl"
    maps = ("id=idx", "completions=response1,response2", "prompt=(Instruction:) {instruction} (Input:) {input}")
    options = [part for spec in maps for part in ("--map", spec)]
    source = str(DATA / "pandalm" / "testset-v1.json")
    assert (
        run(["judge", source, "--out", str(out), "--judge", "scripted:longer", "--no-store", "--json", *options]) == 0
    )
    assert json.loads(capsys.readouterr().out)["scored"] == 999
    rows = list(read_outcomes(out))
    assert [row["id"] for row in rows] == [str(row["idx"]) for row in json.loads(Path(source).read_bytes())]
    assert all(row["annotator1"] in (0, 1, 2) for row in rows)
