import json
import time
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexreward.parse import LABELS, answer_spans, final_span, parse_labels, parse_scores
from flexreward.types import Outcome, Reason, Reply, Scale, Unscored, Verdict

TESTS = Path(__file__).parents[1]
ORACLE = TESTS.parents[1] / "shared" / "data" / "judgelrm_pandalm"
TEN = Scale(low=1, high=10)
UNIT = Scale(low=0, high=1)


def replies(name: str) -> list:
    rows = tomllib.loads((TESTS / "data" / "replies" / f"{name}.toml").read_text("utf-8"))["reply"]
    return [pytest.param(row, id=row["name"]) for row in rows]


def expect(outcome: Outcome, row: dict) -> None:
    """A row ends in scores or in a reason, and the reply is kept either way."""
    assert outcome.reply == row["text"]
    if "scores" in row:
        assert isinstance(outcome, Verdict), outcome
        assert outcome.scores == tuple(row["scores"])
    else:
        assert isinstance(outcome, Unscored), outcome
        assert outcome.reason == Reason(row["reason"])
        assert outcome.detail
        assert "\n" not in outcome.detail


def as_reply(row: dict) -> Reply:
    return Reply(text=row["text"], finish_reason=row.get("finish_reason", "stop"))


@pytest.mark.parametrize("row", replies("scores"))
def test_scores_come_out_as_a_careful_reader_would_read_them(row):
    reasoning = row.get("reasoning", "first")
    expect(parse_scores(as_reply(row), count=row.get("count", 2), scale=TEN, reasoning=reasoning), row)


@pytest.mark.parametrize("row", replies("labels"))
def test_labels_come_out_as_a_careful_reader_would_read_them(row):
    expect(parse_labels(as_reply(row), count=2, scale=UNIT, reasoning="first"), row)


@pytest.mark.parametrize("size", ["3b", "7b"])
def test_the_order_of_published_scores_is_what_their_authors_read(size):
    path = ORACLE / f"judgelrm{size}_outputs.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    agree = 0
    for row in rows:
        # The files hold the answers without the thought, and use 0 though the prompt asks for 1 to 10.
        verdict = parse_scores(Reply(text=row["output"]), count=2, scale=Scale(low=0, high=10), reasoning="none")
        assert isinstance(verdict, Verdict), (row, verdict)
        agree += row["result"] == {None: 0, 0: 1, 1: 2}[verdict.preferred]
    assert (agree, len(rows)) == (999, 999)


def test_a_detail_says_what_was_found_and_what_would_fit():
    def detail(text: str, **kinds) -> str:
        outcome = parse_scores(Reply(text=text, **kinds), count=2, scale=TEN, reasoning="first")
        assert isinstance(outcome, Unscored)
        return outcome.detail

    assert detail("<think>") == "no </think> ends the thought"
    assert detail("", finish_reason="length") == "the reply was cut at its token limit"
    assert detail("</think>8 3") == "the final part holds no <answer>"
    assert detail("</think><answer>8") == "an <answer> tag without its other half"
    assert detail("</think><answer>4/5</answer>") == "expected a number, found '4/5'"
    assert detail("</think><answer>4</answer>") == "expected 2 answers, found 1"
    assert detail("</think><answer>4</answer><answer>11</answer>") == "expected 1 to 10, found '11'"
    assert len(detail("</think><answer>" + "8\n" * 999 + "</answer>")) < 100


def test_spans_are_the_places_of_the_numbers():
    text = "<think><answer>1</answer></think>\n<answer> 8.5 </answer><answer>3</answer>"
    final = final_span(text, "first")
    assert final is not None
    spans = answer_spans(text, final)
    assert spans is not None
    assert [text[start:end] for start, end in spans] == ["8.5", "3"]


HOSTILE = {
    "open tags": "<answer>" * 12_500,
    "closing tags": "</answer>" * 12_500,
    "open tags, numbers": "<answer>1" * 12_500,
    "half tags": "<answer" * 15_000,
    "thoughts": "<think></think>" * 7_000,
    "digits": "<answer>" + "9" * 100_000 + "</answer>",
    "digits and points": "<answer>" + "9." * 50_000 + "</answer>",
    "spaces": "<answer>" + " " * 100_000 + "x</answer>",
    "angle brackets": "<" * 100_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("reasoning", ["first", "last", "none"])
def test_a_hundred_kilobytes_are_refused_in_no_time(text, reasoning):
    start = time.perf_counter()
    outcome = parse_scores(
        Reply(text="</think>" * (reasoning == "first") + text), count=2, scale=TEN, reasoning=reasoning
    )
    assert isinstance(outcome, Unscored)
    assert time.perf_counter() - start < 1.0


def test_a_long_thought_with_many_quotes_still_yields_its_verdict():
    text = "<think>" + "Assistant 1 says <answer>10</answer>. " * 3_000 + "</think><answer>2</answer><answer>9</answer>"
    verdict = parse_scores(Reply(text=text), count=2, scale=TEN, reasoning="first")
    assert isinstance(verdict, Verdict)
    assert verdict.scores == (2, 9)


TAGS = ["<think>", "</think>", "<answer>", "</answer>", "<|im_end|>", " ", "\n"]
ANSWERS = ["8", "3.5", "11", "-1", "4/5", "nan", "1" * 400, "８", "[[A>B]]", "[[A=B=Bad]]"]
PARTS = st.sampled_from([*TAGS, *ANSWERS])
TEXTS = st.lists(st.one_of(PARTS, st.text(max_size=5)), max_size=20).map("".join)
REPLIES = st.builds(Reply, text=TEXTS, finish_reason=st.sampled_from(["stop", "stop", "stop", "length"]))
REASONING = st.sampled_from(["first", "last", "none"])


@given(reply=REPLIES, count=st.integers(1, 4), reasoning=REASONING)
def test_no_reply_is_an_exception_or_a_score_off_the_scale(reply, count, reasoning):
    outcome = parse_scores(reply, count=count, scale=TEN, reasoning=reasoning)
    assert outcome.reply == reply.text
    if isinstance(outcome, Verdict):
        assert not reply.truncated
        assert len(outcome.scores) == count
        assert all(1 <= score <= 10 for score in outcome.scores)


@given(reply=REPLIES, reasoning=REASONING)
def test_no_reply_is_more_than_one_label(reply, reasoning):
    outcome = parse_labels(reply, count=2, scale=UNIT, reasoning=reasoning)
    if isinstance(outcome, Verdict):
        assert outcome.scores in LABELS.values()


@given(scores=st.lists(st.decimals(1, 10, places=2), min_size=1, max_size=5), thought=TEXTS)
def test_whatever_is_thought_the_answers_after_it_are_read(scores, thought):
    text = f"<think>{thought}</think>" + "".join(f"<answer>{score}</answer>" for score in scores)
    verdict = parse_scores(Reply(text=text), count=len(scores), scale=TEN, reasoning="first")
    assert isinstance(verdict, Verdict)
    assert verdict.scores == tuple(float(score) for score in scores)
