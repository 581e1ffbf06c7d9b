import asyncio
import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexreward.engines.scripted import ScriptedEngine
from flexreward.engines.scripts import longer, mute
from flexreward.errors import OutputError, SampleError
from flexreward.files.outcome_file import OutcomeFile, timings_path
from flexreward.files.outcomes import FIELDS, encode_fast, header_of, read_header, read_outcomes, request_digest
from flexreward.files.samples import Sample
from flexreward.fingerprint import digest
from flexreward.jobs.run import items_of, judge_to_file
from flexreward.jobs.tally import tally
from flexreward.judge import Judge
from flexreward.templates import load_template
from flexreward.types import JudgeRequest


def judge_of(script=longer, template="pair", name="test", **options):
    return Judge(ScriptedEngine(script, name=name), load_template(template), **options)


def samples(count: int, **extra) -> list[Sample]:
    completions = [("a" * (i + 1), "b" * 3) for i in range(count)]
    return [Sample(id=f"q{i}", prompt=f"é{i}?", completions=c, extra=extra) for i, c in enumerate(completions)]


def timings_of(out) -> list[str]:
    return timings_path(out).read_text().splitlines()


def run(path, rows, judge=None, **options) -> Judge:
    judge = judge or judge_of()
    asyncio.run(judge_to_file(judge, items_of(rows, judge.template), path, **options))
    return judge


def test_a_line_holds_everything_about_a_request_and_the_columns_carried_through(tmp_path):
    out = tmp_path / "deep" / "out.jsonl"
    judge = run(out, samples(3, topic="sums"))
    header, rows = read_header(out), list(read_outcomes(out))
    assert header["judge"]["fingerprint"] == judge.fingerprint
    assert header["template"]["id"] == "pair"
    assert [row["id"] for row in rows] == ["q0", "q1", "q2"]
    assert [row["preferred"] for row in rows] == [1, 1, None]
    assert [row["tie"] for row in rows] == [False, False, True]
    assert tuple(rows[0]) == (*(field for field in FIELDS if field not in ("rewards", "prompt_cut")), "topic")
    assert [order["order"] for order in rows[0]["orders"]] == [[0, 1], [1, 0]]
    vote = rows[0]["orders"][1]["votes"][0]
    assert vote["reply"].startswith("<think>")
    assert vote["scores"] == rows[0]["scores"]
    assert [json.loads(line)["id"] for line in timings_of(out)] == ["q0", "q1", "q2"]


def test_an_unscored_request_has_a_reason_and_no_number(tmp_path):
    run(tmp_path / "out.jsonl", samples(2), judge_of(mute))
    rows = list(read_outcomes(tmp_path / "out.jsonl"))
    assert all(row["status"] == "unscored" and row["scores"] is None and row["preferred"] is None for row in rows)
    assert all(row["orders"][0]["votes"][0]["reply"] == "<think>Hm.</think>" for row in rows)
    counts = tally(rows)
    assert counts.unscored == {"no_answer": 2}
    assert counts.parse_rate == 0.0
    assert counts.unscored_share == 1.0


def test_what_was_cut_is_counted_where_something_was(tmp_path):
    run(tmp_path / "out.jsonl", samples(3), judge_of(mute))
    rows = list(read_outcomes(tmp_path / "out.jsonl"))
    assert tally(rows).cut_lines == []
    assert "thoughts_cut" not in tally(rows).summary()
    rows[1]["prompt_cut"] = 40
    for row in rows[:2]:
        row["orders"][0]["votes"][0]["thought_cut"] = True
    counts = tally(rows)
    assert counts.cut_lines == [
        f"2 of {counts.num_replies} replies have a thought that was cut short",
        "1 of 3 prompts were cut at their head",
    ]
    assert (counts.summary()["thoughts_cut"], counts.summary()["prompts_cut"]) == (2, 1)


def test_wherever_a_run_is_cut_the_next_ends_in_the_same_bytes(tmp_path):
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    run(whole, samples(4))
    data = whole.read_bytes()
    for cut in range(0, len(data), 97):
        out.write_bytes(data[:cut])
        run(out, samples(4))
        assert out.read_bytes() == data, cut


def test_what_is_there_is_not_judged_again(tmp_path):
    out = tmp_path / "out.jsonl"
    run(out, samples(3))
    resumed = []
    judge = run(out, samples(5), on_resume=resumed.append)
    assert resumed == [3]
    assert judge.engine.num_calls == 4  # two rows in two orders
    assert run(out, samples(5), on_resume=resumed.append).engine.num_calls == 0
    assert resumed == [3, 5]
    assert len(timings_of(out)) == 5


def test_another_judge_or_template_refuses_to_append_and_overwriting_begins_anew(tmp_path):
    out = tmp_path / "out.jsonl"
    run(out, samples(2))
    before = out.read_bytes()
    for judge, part in ((judge_of(name="other"), "judge"), (judge_of(template="pair-sp"), "judge")):
        with pytest.raises(OutputError, match=f"another {part} .*give another --out, or --overwrite"):
            run(out, samples(2), judge)
        assert out.read_bytes() == before
    run(out, samples(1), judge_of(name="other"), overwrite=True)
    assert [row["id"] for row in read_outcomes(out)] == ["q0"]
    assert len(timings_of(out)) == 1


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("text", ['{"prompt": "x"}\n', '{"prompt"', "x", "\n"])
def test_a_file_that_holds_something_else_is_left_untouched(tmp_path, text, overwrite):
    out = tmp_path / "samples.jsonl"
    out.write_text(text)
    with pytest.raises(OutputError, match="stays untouched"):
        run(out, samples(1), overwrite=overwrite)
    assert out.read_text() == text


def test_samples_that_changed_are_noticed(tmp_path):
    out = tmp_path / "out.jsonl"
    run(out, samples(3))
    before = out.read_bytes()
    changed = samples(3)
    changed[1] = Sample(id="q1", prompt="another", completions=("a", "b"))
    for rows, message in (
        (changed, "line 3: judged 'q1', where the input now has another 'q1'"),
        (samples(3)[1:], "line 2: judged 'q0'"),
        (samples(2), "holds more rows than the input"),
    ):
        with pytest.raises(OutputError, match=message):
            run(out, rows)
        assert out.read_bytes() == before


def test_a_bad_row_costs_nothing_that_stands_before_it(tmp_path):
    out = tmp_path / "out.jsonl"

    def broken():
        yield from samples(3)
        raise SampleError("s.jsonl: line 4: broken")

    with pytest.raises(SampleError, match="line 4"):
        run(out, broken())
    assert [row["id"] for row in read_outcomes(out)] == ["q0", "q1", "q2"]
    assert run(out, samples(4)).engine.num_calls == 2


def test_a_template_for_other_numbers_of_completions_names_one_that_fits(tmp_path):
    rows = [Sample(id="a", prompt="x", completions=("a",), where="s.jsonl: line 1")]
    with pytest.raises(SampleError, match=r"s.jsonl: line 1: has 1 completion.*judges 2; --template score"):
        run(tmp_path / "out.jsonl", rows)
    with pytest.raises(SampleError, match=r"judges two or more; --template score"):
        run(tmp_path / "b.jsonl", rows, judge_of(template="batch"))


def test_two_runs_cannot_write_one_file(tmp_path):
    out = tmp_path / "out.jsonl"
    header = header_of(judge_of())
    with OutcomeFile(out, header), pytest.raises(OutputError, match="another run is writing it"):
        OutcomeFile(out, header).__enter__()
    with OutcomeFile(out, header):
        pass


def test_a_line_that_someone_edited_is_named(tmp_path):
    out = tmp_path / "out.jsonl"
    run(out, samples(3))
    lines = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join([*lines[:2], b"oops\n", *lines[3:]]))
    with pytest.raises(OutputError, match="line 3: broken"):
        run(out, samples(3))


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import test_outcomes as t
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))
try:
    t.run(Path(sys.argv[1]), t.samples(9))
except t.OutputError as error:
    print(error)
"""


def test_a_full_disk_is_one_line_and_the_file_goes_on_later(tmp_path):
    out = tmp_path / "out.jsonl"
    env = os.environ | {"PYTHONPATH": os.path.dirname(__file__)}
    done = subprocess.run([sys.executable, "-c", FULL_DISK, out], capture_output=True, text=True, env=env, timeout=60)
    assert done.stdout.count("\n") == 1, done.stderr
    assert "cannot be written: File too large; what is there stays: make room and run the same again" in done.stdout
    assert out.read_bytes().endswith(b"\n")
    kept = len(list(read_outcomes(out)))
    assert 1 <= kept < 9
    assert run(out, samples(9)).engine.num_calls == 2 * (9 - kept)
    run(tmp_path / "whole.jsonl", samples(9))
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_half_a_character_in_a_reply_does_not_stop_the_run(tmp_path):
    script = lambda prompt: "<think>\ud800</think><answer>1</answer><answer>2</answer>"  # noqa: E731
    run(tmp_path / "out.jsonl", samples(1), judge_of(script))
    (row,) = read_outcomes(tmp_path / "out.jsonl")
    assert row["tie"]
    assert row["orders"][0]["votes"][0]["reply"].startswith("<think>?</think>")


@given(st.lists(st.text(), min_size=2, max_size=4), st.none() | st.text(), st.none() | st.text())
def test_texts_are_named_by_the_digest_of_their_canonical_json(texts, rubric, reference):
    request = JudgeRequest(prompt=texts[0], completions=tuple(texts[1:]), rubric=rubric, reference=reference)
    fields = {"prompt": texts[0], "completions": texts[1:], "rubric": rubric, "reference": reference}
    assert request_digest(request) == digest(fields)[:16]


@pytest.mark.parametrize("number", [3, 2**70, 1e300, "é\n"])
def test_a_line_that_is_written_fast_is_read_as_it_was(number):
    line = encode_fast({"a": number, "b": [True, None]})
    assert line.count(b"\n") == 1
    assert json.loads(line) == {"a": number, "b": [True, None]}
