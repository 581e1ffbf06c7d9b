"""A server's judge in place of one that runs here: the same files, whoever asked."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexreward.cli import run
from flexreward.engines.scripted import ScriptedEngine
from flexreward.errors import JudgeError
from flexreward.files.outcomes import Item, outcome_row
from flexreward.judge import Judge
from flexreward.served import judgment_of, open_served
from flexreward.serving.app import build_app
from flexreward.templates import load_template
from flexreward.types import JudgeRequest
from tests.faulty_server import listening
from tests.flexreward.serving.served import digits, service_over

WORDS = st.sampled_from(["<think>Hm.</think><answer>7 3</answer>", "<answer>2 9</answer>", "<think>", "5 5", ""])


@given(st.lists(WORDS, min_size=6, max_size=6), st.sampled_from(["pair", "score"]))
def test_a_row_becomes_the_judgment_that_it_tells_of(replies, template):
    judge = Judge(ScriptedEngine(lambda prompt: replies[:3]), load_template(template), votes=3)
    request = JudgeRequest(id="q", prompt="Why?", completions=("a", "b")[: judge.template.num_completions])
    (judgment,) = judge.judge_now([request])
    row = outcome_row(judgment, Item(request, {}))
    found = judgment_of(row, scale=judge.template.scale, template="", judge="")
    assert outcome_row(found, Item(request, {})) == row
    assert found.confidence == judgment.confidence


def test_a_request_that_was_never_answered_is_unscored():
    row = {"id": "q", "reason": "deadline", "detail": "late", "scores": None, "orders": []}
    found = judgment_of(row, scale=load_template("pair").scale, template="pair", judge="f")
    assert (found.outcome.reason, found.template, found.judge) == ("deadline", "pair", "f")


@pytest.fixture(scope="module")
def url():
    with listening(build_app(service_over(template="pair"))) as found:
        yield found


@pytest.fixture
def samples(tmp_path):
    path = tmp_path / "s.jsonl"
    rows = [{"id": f"q{i}", "prompt": "Which digit?", "completions": ["3", "It is 5", "4"]} for i in range(5)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_pairs_of_a_server_are_those_of_its_judge(url, samples, tmp_path, capsys):
    out = tmp_path / "pairs"
    assert run(["pairs", str(samples), "--judge", url, "--out", str(out), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["pairs"]["kept"] == 15
    header, *rows = [json.loads(line) for line in (out / "pair_outcomes.jsonl").read_text().splitlines()]
    assert header["judge"]["fingerprint"] == rows[0]["judge"]
    assert header["judge"]["engine"] == "scripted"
    assert rows[0]["orders"][0]["votes"][0]["reply"].startswith("<think>")
    assert run(["pairs", str(samples), "--judge", url, "--out", str(out), "--json", "--keep", "widest=1"]) == 0
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (again["judged_now"], again["pairs"]["kept"]) == (0, 5)


async def test_one_judge_is_asked_for_two_parts_at_once_over_connections_of_each(url):
    judge = await asyncio.to_thread(open_served, url, template="pair")
    requests = [JudgeRequest(id=f"q{i}", prompt="Which digit?", completions=("3", "It is 5")) for i in range(3)]

    async def ask() -> list[str]:
        return [judgment.request_id async for judgment in judge.apart().judge_all(requests)]

    assert await asyncio.gather(ask(), ask()) == [["q0", "q1", "q2"]] * 2


def test_what_the_recipe_of_the_server_says_is_not_said_by_flags(url, samples, tmp_path, capsys):
    assert run(["pairs", str(samples), "--judge", url, "--temperature", "1", "--out", str(tmp_path / "p")]) == 2
    assert "temperature: the recipe of the server at http://127.0.0.1:" in capsys.readouterr().err


def test_a_judge_that_the_server_does_not_have_is_named(url):
    with pytest.raises(JudgeError, match="no judge 'strict', expected one of"):
        open_served(f"{url}#strict", template="pair")


def test_a_server_that_is_not_there_is_said_in_one_line(samples, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("flexreward.served.MEET_S", 0.3)
    assert run(["judge", str(samples), "--judge", "http://127.0.0.1:9", "--out", str(tmp_path / "o.jsonl")]) == 2
    assert "start it with `flexreward serve RECIPE`, or mend the url" in capsys.readouterr().err


async def test_a_judge_that_changes_meanwhile_is_not_mixed_in():
    service = service_over(template="pair")
    with listening(build_app(service)) as url:
        judge = await asyncio.to_thread(open_served, url, template="pair")
        request = JudgeRequest(id="q", prompt="Which digit?", completions=("3", "5"))
        assert (await judge.judge(request)).outcome.preferred == 1
        changed = ScriptedEngine(digits, name="another")
        service.judges |= {name: replace(one, engine=changed) for name, one in service.judges.items()}
        service.judges._opened.clear()
        with pytest.raises(JudgeError, match="its judge was changed while it judged"):
            await judge.judge(request)
