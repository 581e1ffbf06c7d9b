"""A killed run over a real model, drawn at a temperature: the rerun ends in the bytes of an undisturbed run."""

import json
import random
import subprocess
import sys
import time

import pytest

WORDS = ["apple", "stone", "river", "cloud", "green", "seven", "quick", "lamp"]


def start(*arguments):
    code = "import torch; torch.set_num_threads(1); from flexreward.cli import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def num_lines(path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def finish(process):
    out, err = process.communicate(timeout=280)
    assert process.returncode == 0, err
    return json.loads(out)


@pytest.mark.slow
def test_killed_at_temperature_0_9_and_run_again_ends_in_the_same_bytes(tmp_path, make_checkpoint):
    model = make_checkpoint(max_position_embeddings=4096)
    recipe = tmp_path / "judge.yaml"
    fields = {"model": str(model), "temperature": 0.9, "seed": 3, "max_tokens": 40, "batch_size": 8, "max_in_flight": 8}
    recipe.write_text(json.dumps(fields))
    rng = random.Random(7)
    rows = [{"prompt": f"Sort {rng.sample(WORDS, 3)}", "completions": rng.sample(WORDS, 2)} for _ in range(60)]
    source = tmp_path / "s.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out, whole = tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    options = ("judge", source, "--judge", recipe, "--json")

    process = start(*options, "--out", out, "--store", tmp_path / "store.sqlite")
    aim = rng.randint(5, 30)
    while num_lines(out) < aim and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    kept = num_lines(out) - 1
    assert 0 < kept < 60
    found = finish(start(*options, "--out", out, "--store", tmp_path / "store.sqlite"))
    assert found["judged_now"] == 60 - kept

    finish(start(*options, "--out", whole, "--no-store"))
    assert out.read_bytes() == whole.read_bytes()
