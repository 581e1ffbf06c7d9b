"""``flexreward pairs --policy``: prompts in, pairs out, whatever happens in between."""

from __future__ import annotations

import itertools
import json
import random

import pytest
from datasets import load_dataset

from flexreward.cli import run
from recipes.tiny import domain


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    path = tmp_path_factory.mktemp("policy") / "prompts.jsonl"
    problems = domain.problems(random.Random("policy"), held_out=False)
    rows = [{"id": f"q{i}", "prompt": next(problems).question, "level": i} for i in range(8)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def pairs(prompts):
    out = prompts.parent / "pairs"
    code = run(["pairs", str(prompts), "--policy", "tiny", "--completions", "3", "--out", str(out), "--no-store"])
    assert code == 0
    return out


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_prompts_become_pairs_that_a_trainer_loads(pairs):
    rows = load_dataset(str(pairs), split="train")
    assert len(rows) > 0
    for row in rows:
        assert row["prompt"][-1]["role"] == "user"
        assert row["chosen"][0]["role"] == row["rejected"][0]["role"] == "assistant"
        assert row["origin_chosen"]["temperature"] in (0.8, 1.2)
        assert row["origin_chosen"]["finish_reason"] == "stop"
        assert row["level"] == int(row["id"].partition("#")[0][1:])


def test_completions_at_both_temperatures_stand_in_a_file_of_their_own(pairs):
    header, *rows = lines(pairs / "sampled.jsonl")
    assert header["policy"]["model"] == "tiny-policy"
    assert [len(row["completions"]) for row in rows] == [6] * 8


def test_a_run_that_was_ended_in_the_middle_ends_in_the_same_bytes(pairs, prompts, tmp_path, capsys):
    whole = {name: (pairs / name).read_bytes() for name in ("sampled.jsonl", "pair_outcomes.jsonl")}
    for name, content in whole.items():
        (tmp_path / name).write_bytes(content[: 2 * len(content) // 3])
    options = ["--policy", "tiny", "--completions", "3", "--no-store", "--json", "--keep", "uncut"]
    assert run(["pairs", str(prompts), *options, "--out", str(tmp_path)]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {name: (tmp_path / name).read_bytes() for name in whole} == whole
    assert (tmp_path / "train.jsonl").read_bytes() == (pairs / "train.jsonl").read_bytes()
    assert 0 < summary["judged_now"] < summary["rows"]


def test_completions_that_were_cut_are_dropped_where_that_is_asked_for(prompts, tmp_path, capsys):
    options = ["--policy", "tiny", "--max-completion-tokens", "2", "--no-store", "--limit", "6", "--json"]
    assert run(["pairs", str(prompts), *options, "--keep", "uncut", "--out", str(tmp_path)]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    reasons = {line["reason"] for line in lines(tmp_path / "dropped.jsonl")}
    assert summary["pairs"]["kept"] == 0
    assert reasons <= {"cut", "duplicate", "tied", "flipped", "half_tied", "unscored"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--temperatures", "1.0"], "--temperatures, --completions, --max-completion-tokens, --policy-seed: need a"),
        (["--policy", "tiny", "--temperatures", "1.0"], "a pair needs two completions"),
        (["--policy", "tiny", "--temperatures", "hot"], "--temperatures hot: expected numbers between commas"),
        (["--policy", "tiny", "--temperatures", "1,1"], "the policy tiny: temperatures: one stands there twice"),
        (["--policy", "nowhere"], "--policy nowhere: expected tiny, a model's folder, a hub id"),
    ],
)
def test_a_wrong_flag_is_said_in_one_line(prompts, tmp_path, capsys, options, message):
    assert run(["pairs", str(prompts), *options, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


def test_rows_that_have_completions_are_not_given_to_a_policy(tmp_path, capsys):
    path = tmp_path / "s.jsonl"
    path.write_text('{"prompt": "x", "completions": ["a", "b"]}\n')
    assert run(["pairs", str(path), "--policy", "tiny", "--out", str(tmp_path / "out")]) == 2
    assert "line 1: has completions, and --policy draws them itself" in capsys.readouterr().err


@pytest.fixture(scope="module")
def questions(prompts):
    path = prompts.with_name("questions.jsonl")
    problems = domain.problems(random.Random("policy"), held_out=False)
    rows = [{"prompt": problem.question, "reference": problem.answer} for problem in itertools.islice(problems, 6)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("method", ["pointwise", "knockout"])
def test_the_best_of_what_a_policy_draws_is_held_against_the_references(questions, tmp_path, capsys, method):
    options = ["--policy", "tiny", "--n", "1,2,4", "--right", "number", "--method", method, "--no-store", "--json"]
    assert run(["best-of-n", str(questions), *options, "--out", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["truth"] == "right"
    assert found["best_of_n"]["1"]["mean"] <= found["best_of_n"]["4"]["mean"] <= found["oracle"]["4"]["mean"]
    _, *rows = lines(tmp_path / "sampled.jsonl")
    assert [len(row["completions"]) for row in rows] == [4] * 6
    assert {one["temperature"] for row in rows for one in row["origins"]} == {1.0}


def test_what_is_right_cannot_be_told_without_a_reference_or_a_policy(prompts, tmp_path, capsys):
    out = ["--right", "number", "--out", str(tmp_path / "o")]
    assert run(["best-of-n", str(prompts), "--policy", "tiny", *out]) == 2
    assert "line 1: has no reference, which --right compares" in capsys.readouterr().err
    assert run(["best-of-n", str(prompts), *out]) == 2
    assert "--right: tells of completions that a --policy draws" in capsys.readouterr().err
    assert run(["pairs", str(prompts), "--policy", "tiny", "--right", "nearly", "--out", str(tmp_path)]) == 2
    assert "--right: no 'nearly', expected one of number, exact, contains" in capsys.readouterr().err
