"""What ``flexreward pairs --estimate`` says beforehand."""

from __future__ import annotations

import json

import pytest

from flexreward.cli import run
from flexreward.files.outcomes import request_digest
from flexreward.files.samples import Sample
from flexreward.pairs.balance import parse_balance
from flexreward.pairs.build import Plan, pair_items
from flexreward.pairs.forecast import likely
from flexreward.pairs.keep import parse_keep


def rows_of(samples, scores) -> list[dict]:
    return [
        {
            "id": item.request.id,
            "request": request_digest(item.request),
            "scores": list(score),
            "orders": [{"scores": list(score)}] * 2,
        }
        for item, score in zip(pair_items(samples), scores, strict=True)
    ]


def samples_of(count: int, *completions: str) -> list[Sample]:
    return [Sample(id=f"q{i}", prompt="p", completions=completions) for i in range(count)]


def test_of_one_pair_a_prompt_the_likely_yield_has_wilsons_interval():
    samples = samples_of(10, "a", "b")
    rows = rows_of(samples, [(2, 1)] * 4 + [(1, 1)] * 6)
    found = likely(samples, rows, Plan(rules=parse_keep("consistent")), num=10, total=1_000)
    assert found.kept == (400, 168, 687)
    assert found.by_outcome == {"kept": 4, "tied": 6}
    assert found.line().startswith("about 400 pairs kept (168 to 687) of 1000 prompts: 4 of 10 pairs were")


def test_prompts_of_which_nothing_was_drawn_yield_nothing():
    samples = samples_of(5, "a", "b")
    found = likely(samples, rows_of(samples, [(2, 1)] * 5), Plan(rules=parse_keep("consistent")), num=10, total=100)
    assert found.kept.value == 50


def test_pairs_of_one_prompt_go_together():
    samples = samples_of(40, "a", "b", "c", "d")
    scores = [(2, 1)] * 6 * 20 + [(1, 1)] * 6 * 20
    found = likely(samples, rows_of(samples, scores), Plan(rules=parse_keep("consistent")), num=40, total=400)
    assert found.kept.value == 1_200
    # 240 pairs, were they independent, would give 1,048 to 1,352.
    assert found.kept.low < 900
    assert found.kept.high > 1_500


def test_all_rules_and_the_balance_are_in_it():
    samples = samples_of(8, "a", "bbb")
    rows = rows_of(samples, [(1, 9)] * 5 + [(9, 1)] * 2 + [(1, 2)])
    plan = Plan(rules=parse_keep("margin=2"), balance=parse_balance("length"))
    assert likely(samples, rows, plan, num=8, total=8).by_outcome == {"kept": 4, "unbalanced": 3, "margin": 1}


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "s.jsonl"
    rows = [{"prompt": f"p{i}", "completions": ["a", "bb" * (i % 2), "ccc"]} for i in range(300)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_command_says_tokens_time_and_yield_and_writes_nothing(source, tmp_path, capsys):
    options = ["pairs", str(source), "--out", str(tmp_path / "o"), "--judge", "scripted:longer", "--no-store"]
    assert run([*options, "--estimate", "--json", "--keep", "widest=1"]) == 0
    found = json.loads(capsys.readouterr().out)["estimate"]
    assert (found["measured"], found["requests"]) == (300, 900)
    assert found["seconds"] > 0
    assert found["pairs"]["prompts"] == {"measured": 100, "total": 300}
    assert found["pairs"]["kept"]["value"] == 300
    assert found["pairs"]["kept"]["low"] < 300
    assert not (tmp_path / "o").exists()
    assert run([*options, "--estimate"]) == 0
    assert "pairs kept (" in capsys.readouterr().out


@pytest.mark.parametrize(("method", "judgments"), [("pointwise", 4), ("knockout", 3)])
def test_of_the_best_of_a_policys_n_all_rounds_are_told(method, judgments, tmp_path, capsys):
    path = tmp_path / "s.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"What is {i} + 2?"}) + "\n" for i in range(40)))
    options = f"best-of-n {path} --policy tiny --max-completion-tokens 8 --no-store --out {tmp_path / 'o'}"
    options += f" --judge scripted:longer --n 1,2,4 --method {method} --estimate --json"
    assert run(options.split()) == 0
    found = json.loads(capsys.readouterr().out)["estimate"]
    assert found["requests"] == 40 * judgments
    assert found["policy"]["seconds"] > 0
    assert not (tmp_path / "o").exists()


def test_with_a_policy_its_tokens_and_time_are_told_too(tmp_path, capsys):
    path = tmp_path / "s.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"What is {i} + 2?"}) + "\n" for i in range(6)))
    options = ["pairs", str(path), "--policy", "tiny", "--out", str(tmp_path / "o"), "--judge", "scripted:longer"]
    options += ["--store", str(tmp_path / "store"), "--estimate"]
    assert run([*options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["estimate"]
    assert found["policy"]["tokens"]["completion"] > 0
    assert found["policy"]["seconds"] > 0
    assert found["pairs"]["prompts"] == {"measured": 6, "total": 6}
    assert sum(found["pairs"]["by_outcome"].values()) == found["requests"]
    assert not (tmp_path / "o").exists()
    assert run(options) == 0
    policy, judge, kept = capsys.readouterr().out.splitlines()
    assert policy.startswith("policy: about time unknown (all came from the store)")
    assert judge.startswith("judge: about ")
    assert kept.startswith("about ")
