"""The commands with the bundled judge, as a user runs them: killed and run again, and over text it was not made for."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recipes.tiny import domain, measure

DATA = Path(__file__).parents[2].parent / "shared" / "data"
pytestmark = pytest.mark.slow


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "flexreward", *map(str, arguments)]


def run(*arguments: object) -> dict:
    done = subprocess.run(command(*arguments, "--json"), capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def write_pairs(path: Path, number: int) -> Path:
    rng = random.Random(0)
    with path.open("w") as file:
        for i, p in enumerate(measure.held_out(number, seed=5)):
            texts = [measure.answer(p.answer), measure.answer(domain.near_miss(p.answer, rng))]
            file.write(json.dumps({"id": f"q{i}", "prompt": p.question, "completions": texts}) + "\n")
    return path


def test_killed_at_random_and_run_again_a_sampled_run_ends_in_the_same_bytes(tmp_path):
    samples = write_pairs(tmp_path / "samples.jsonl", 120)
    options = ["judge", samples, "--temperature", "0.8", "--votes", "2"]
    whole = run(*options, "--out", tmp_path / "whole.jsonl", "--store", tmp_path / "a.sqlite")
    out = tmp_path / "killed.jsonl"
    options += ["--out", out, "--store", tmp_path / "b.sqlite"]
    rng = random.Random(1)
    kills = 0
    for _ in range(3):
        process = subprocess.Popen(command(*options), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        aim = (out.stat().st_size if out.exists() else 0) + rng.randint(2_000, 30_000)
        while process.poll() is None and (not out.exists() or out.stat().st_size < aim):
            time.sleep(0.02)
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    written = out.read_bytes().count(b"\n") - 1
    last = run(*options)
    assert kills
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert whole["rows"] == last["rows"] == 120
    assert last["judged_now"] <= 120 - written + 1


def test_human_voted_pairs_that_the_tiny_judge_cannot_read_end_as_counted_reasons(tmp_path):
    source = DATA / "pandalm" / "testset-v1.json"
    if not source.exists():
        pytest.skip(f"{source} is not here")
    found = run(
        *("judge", source, "--out", tmp_path / "out.jsonl", "--no-store", "--limit", "40"),
        *("--map", "id=idx", "--map", "completions=response1,response2"),
        *("--map", "prompt=(Instruction:) {instruction} (Input:) {input}"),
    )
    assert found["rows"] == 40
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()[1:]]
    assert all((row["scores"] is None) == (row["reason"] is not None) for row in rows)
    assert sum(found["unscored"].values()) == sum(row["status"] == "unscored" for row in rows)


def test_long_answers_of_real_assistants_are_judged_or_say_why_not(tmp_path):
    folder = DATA / "vicuna_reviews"
    if not folder.exists():
        pytest.skip(f"{folder} is not here")

    def lines(name: str) -> list[dict]:
        return [json.loads(line) for line in (folder / name).read_text().splitlines()]

    asked = {row["question_id"]: row["text"] for row in lines("question.jsonl")}
    vicuna = {row["question_id"]: row["text"] for row in lines("answer_vicuna-13b.jsonl")}
    samples = tmp_path / "samples.jsonl"
    with samples.open("w") as file:
        for other in ("alpaca-13b", "bard", "gpt35", "llama-13b"):
            for row in lines(f"answer_{other}.jsonl")[:4]:
                key = row["question_id"]
                sample = {"id": f"{other}-{key}", "prompt": asked[key], "completions": [row["text"], vicuna[key]]}
                file.write(json.dumps(sample) + "\n")
    found = run("judge", samples, "--out", tmp_path / "out.jsonl", "--no-store")
    assert found["rows"] == 16
    assert found["scored"] + sum(found["unscored"].values()) == 16
