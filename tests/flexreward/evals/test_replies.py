"""Replies that exist: joined by id, order and sample, read by the publisher's reader or a template's, never guessed."""

from __future__ import annotations

import json

import pytest

from flexreward.errors import RecipeError, SampleError
from flexreward.evals import load_benchmark
from flexreward.evals.replies import RepliesJudge
from flexreward.evals.rows import item_of
from flexreward.evals.source import open_folder
from flexreward.evals.table import table_of
from flexreward.files.outcome_file import OutcomeFile
from flexreward.files.outcomes import read_outcomes
from flexreward.types import Reason, Unscored, Verdict


@pytest.fixture
def pandalm(tmp_path):
    """Three rows of PandaLM: the first is better, the second is, a tie."""
    base = {"cmp_key": "a_b", "instruction": "i", "input": "", "response1": "x y", "response2": "z"}
    rows = [
        base | {"idx": idx} | dict.fromkeys(("annotator1", "annotator2", "annotator3"), vote)
        for idx, vote in enumerate((1, 2, 0))
    ]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "testset-v1.json").write_text(json.dumps(rows))
    return tmp_path / "data"


@pytest.fixture
def judge_of(tmp_path, pandalm):
    """A judge over these lines of replies, and PandaLM's rows."""

    def make(lines, **options):
        path = tmp_path / "replies.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        benchmark = load_benchmark("pandalm")
        return RepliesJudge(path, benchmark, **options), list(benchmark.rows(open_folder(benchmark.source, pandalm)))

    return make


def reply(key, text="1", **more):
    return {"id": key, "reply": text} | more


def test_scores_are_put_back_into_the_order_of_the_row_and_both_orders_become_one_outcome(judge_of):
    judge, rows = judge_of([reply(i, "2", order="reversed") for i in range(3)] + [reply(i, "1") for i in range(3)])
    judgment = judge.judge(rows[0])
    assert [order.order for order in judgment.orders] == [(0, 1), (1, 0)]  # the given one first, wherever it stood
    assert [order.outcome.scores for order in judgment.orders] == [(1.0, 0.0), (1.0, 0.0)]
    assert judgment.outcome.scores == (1.0, 0.0)
    assert judge.check(rows).line is None


def test_an_order_may_be_named_or_given_slot_by_slot(judge_of):
    for order in ("reversed", [1, 0]):
        judge, rows = judge_of([reply(i, "1", order=order) for i in range(3)])
        assert judge.judge(rows[0]).outcome.scores == (0.0, 1.0)


def test_samples_of_one_prompt_are_votes_in_the_order_of_their_numbers(judge_of):
    votes = ["2", "1", "1"]
    lines = [reply(i, vote, sample=k) for i in range(3) for k, vote in reversed(list(enumerate(votes)))]
    judge, rows = judge_of(lines)
    (order,) = judge.judge(rows[0]).orders
    assert [vote.reply.text for vote in order.votes] == votes
    assert order.outcome.scores == pytest.approx((2 / 3, 1 / 3))
    judge, rows = judge_of(lines, how="majority")
    assert judge.judge(rows[0]).outcome.scores == (1.0, 0.0)


def test_what_cannot_be_read_is_unscored_with_a_reason_and_so_is_a_null(judge_of):
    judge, rows = judge_of([reply(0, "I like both"), reply(1, None), reply(2, "Tie")])
    unread, absent, tie = (judge.judge(row).outcome for row in rows)
    assert isinstance(unread, Unscored)
    assert (unread.reason, unread.reply) == (Reason.NO_ANSWER, "I like both")
    assert "PandaLM" in unread.detail or "pandalm" in unread.detail
    assert isinstance(absent, Unscored)
    assert "null" in absent.detail
    assert isinstance(tie, Verdict)
    assert tie.tie
    assert judge.check(rows).num_missing == 0  # a reply that is null is there


def test_one_readable_order_of_two_is_half_an_answer(judge_of):
    judge, rows = judge_of([reply(i, "1") for i in range(3)] + [reply(i, "?", order="reversed") for i in range(3)])
    outcome = judge.judge(rows[0]).outcome
    assert isinstance(outcome, Unscored)
    assert outcome.reason == Reason.QUORUM


def test_the_templates_reader_is_taken_on_request_and_sees_a_reply_that_was_cut(judge_of):
    text = "<think>hm</think><answer>8</answer><answer>3</answer>"
    lines = [reply(0, text), reply(1, text, finish_reason="length"), reply(2, text.replace("3", "11"))]
    judge, rows = judge_of(lines, reader="template")
    read, cut, off = (judge.judge(row).outcome for row in rows)
    assert (read.scores, read.scale.high) == ((8.0, 3.0), 10)
    assert (cut.reason, off.reason) == (Reason.TRUNCATED, Reason.OFF_SCALE)
    assert judge.header["template"]["id"] == "pair-sp"
    by_name, _ = judge_of(lines, template="pair")
    assert by_name.reader == "template"


def test_a_half_file_is_a_half_run_and_says_so(judge_of):
    judge, rows = judge_of([reply(0), reply(2)])
    assert judge.judge(rows[1]) is None
    assert judge.check(rows).line == "1 of 3 rows lack replies, the first is '1': a half-run"


@pytest.mark.parametrize("missing", [{"order": "reversed"}, {"sample": 1}])
def test_a_row_with_fewer_orders_or_samples_than_others_is_not_all_there(judge_of, missing):
    lines = [reply(i) for i in range(3)] + [reply(i, **missing) for i in (0, 1)]
    judge, rows = judge_of(lines)
    assert judge.judge(rows[2]) is None
    assert judge.judge(rows[1]) is not None
    assert judge.check(rows).num_missing == 1


def test_a_reply_to_no_row_is_one_line_that_shows_what_an_id_looks_like(judge_of):
    judge, rows = judge_of([reply(0), reply("q-7"), reply("q-8")])
    with pytest.raises(SampleError) as error:
        judge.check(rows)
    assert str(error.value).endswith(
        "replies.jsonl: line 2: pandalm has no row 'q-7'; an id is idx, such as '0' (2 such ids)"
    )


def test_an_order_that_does_not_fit_the_row_is_one_line(judge_of):
    judge, rows = judge_of([reply(0, order=[0, 2])])
    with pytest.raises(SampleError, match=r"line 1: order is \[0, 2\], but '0' has 2 completions; expected \[0, 1\]"):
        judge.check(rows)


@pytest.mark.parametrize(("lines", "message"), [
    ([{"id": 1}], "line 1: no field 'reply'; a reply is {\"id\": ..., \"reply\": ...}"),
    ([{"reply": "1"}], "line 1: no field 'id'"),
    ([reply(None)], "line 1: id is None, expected text or a whole number"),
    ([reply(True)], "line 1: id is True, expected text or a whole number"),
    ([reply(1, 7)], "line 1: reply is 7, expected text, or null where none came"),
    ([reply(1, order="backwards")], "line 1: order is 'backwards', expected 'given', 'reversed' or a list such as"),
    ([reply(1, sample=-1)], "line 1: sample is -1, expected a whole number from 0"),
    ([reply(1, finish_reason="eos")], "line 1: finish_reason is 'eos', expected 'stop' or 'length'"),
    ([reply(1), reply("1")], "line 2: a reply to '1' in this order stands in line 1 already; keep one, or number them"),
    ([reply(1, order="reversed"), reply(1, order=[1, 0])], "line 2: a reply to 1 in this order stands in line 1"),
])  # fmt: skip
def test_a_line_that_is_no_reply_or_stands_twice_is_one_line(judge_of, lines, message):
    with pytest.raises(SampleError) as error:
        judge_of(lines)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_or_empty_is_one_line(tmp_path):
    benchmark = load_benchmark("pandalm")
    with pytest.raises(SampleError, match=r"--replies .*none.jsonl: is not there; expected a JSONL file"):
        RepliesJudge(tmp_path / "none.jsonl", benchmark)
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(SampleError, match=r"holds no rows"):
        RepliesJudge(tmp_path / "empty.jsonl", benchmark)


def test_a_reader_that_is_not_there_is_one_line(judge_of, tmp_path):
    from dataclasses import replace

    judge, _ = judge_of([reply(0)])
    with pytest.raises(RecipeError, match=r"--reader published: pandalm has none of its own; take --reader template"):
        RepliesJudge(judge.path, replace(judge.benchmark, read=None), reader="published")
    assert RepliesJudge(judge.path, replace(judge.benchmark, read=None)).reader == "template"
    with pytest.raises(RecipeError, match=r"--reader regex: expected published or template"):
        judge_of([reply(0)], reader="regex")
    with pytest.raises(RecipeError, match=r"--reader published takes no --template"):
        judge_of([reply(0)], reader="published", template="pair")


def test_the_fingerprint_names_the_replies_and_how_they_are_read_but_not_the_file(judge_of, tmp_path):
    lines = [reply(i) for i in range(3)]
    judge, _ = judge_of(lines)
    other = tmp_path / "renamed.jsonl"
    other.write_bytes(judge.path.read_bytes())
    assert RepliesJudge(other, judge.benchmark).fingerprint == judge.fingerprint
    read_otherwise, _ = judge_of(lines, template="pair-direct")
    changed, _ = judge_of([*lines[:2], reply(2, "2")])
    assert len({judge.fingerprint, read_otherwise.fingerprint, changed.fingerprint}) == 3


def test_an_outcome_file_of_replies_reads_back_as_a_table(judge_of, tmp_path):
    judge, rows = judge_of([reply(i, text) for i, text in enumerate(("1", "garbage", "Tie"))])
    path = tmp_path / "outcomes.jsonl"
    with OutcomeFile(path, judge.header) as file:
        for row in rows:
            file.add(judge.judge(row), item_of(row))
    table = table_of(read_outcomes(path))
    assert table.ids == ("0", "1", "2")
    assert table.words_NC.tolist() == [[2, 1]] * 3
    assert table.scored_N.tolist() == [True, False, True]
    assert table.reply_reasons == ("no_answer",)
    assert table.systems[0] == ("a", "b")
    header = json.loads(path.read_bytes().splitlines()[0])
    assert header["judge"]["engine"] == "replies"
    assert header["judge"]["model"] == "replies.jsonl"
    assert header["template"] == {"id": "pandalm as published", "scale": [0, 1]} | {
        "digest": header["template"]["digest"]
    }
