"""Render and parse on whatever text there is: no crash, no score from a reply without one, nothing unbounded."""

from __future__ import annotations

import json
import re
import time

import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

from flexreward.engines.base import Prompt
from flexreward.engines.scripted import ScriptedEngine
from flexreward.errors import RefusedError, SampleError
from flexreward.files.outcomes import Item, encode, outcome_row
from flexreward.judge import Judge
from flexreward.order import restore, show
from flexreward.parse import LABELS
from flexreward.templates import load_template, template_ids
from flexreward.templates.text import without_thoughts
from flexreward.types import Reply, Unscored, Verdict
from tests.flexreward.attacks.catalogue import ATTACKS
from tests.flexreward.attacks.requests import request_for, texts_of

SHARDS = [
    "<",
    ">",
    "/",
    "<|",
    "|>",
    "think",
    "answer",
    "</thi",
    "nk>",
    "1",
    "10",
    "{",
    "}",
    "completion_1",
    "\n",
    "\r",
    " ",
]
TAGS = ["<think>", "</think>", "<answer>", "</answer>", "<answer>7</answer>", "<answer>[[A>B]]</answer>"]
ODD = ["\x00", "\x1b[0m", "\x7f", "\x85", "\u2028", "\u200b", "\ufeff", "\ufffe", "\U0010ffff", "e\u0301", "\u0338"]
HALVES = ["\ud800", "\udc00", "\udfff\ud83d"]
"""Lone surrogates: JSON can bring them, UTF-8 cannot hold them."""

ANY = st.text(alphabet=st.characters(exclude_categories=()), max_size=8)
PARTS = st.one_of(st.sampled_from([*SHARDS, *TAGS, *ODD, *HALVES, *ATTACKS.values()]), ANY)
HOSTILE = st.lists(PARTS, max_size=12).map("".join)
TEMPLATES = st.sampled_from(template_ids())
SEES = st.sampled_from(["final", "all"])


@given(name=TEMPLATES, sees=SEES, texts=st.lists(HOSTILE, min_size=1, max_size=6), turns=st.booleans())
def test_every_request_renders_within_its_own_length(name, sees, texts, turns):
    template = load_template(name, judge_sees=sees)
    request = request_for(template, texts, turns=turns)
    if name.startswith("rubric") and not request.rubric.strip():
        with pytest.raises(SampleError, match="needs criteria"):
            template.render(request)
        return
    prompt = template.render(request)
    written = sum(map(len, texts_of(request)))
    headings = 40 * (len(request.completions) + len(list(texts_of(request))))
    frame = len(template.system) + len(template.user)
    repeated = len(re.findall(r"\{", template.system + template.user)) or 1
    assert len(prompt.system) + len(prompt.user) <= frame + headings + repeated * written
    assert [placed.at for placed in prompt.media] == sorted(placed.at for placed in prompt.media)
    assert all(0 <= placed.at <= len(prompt.user) for placed in prompt.media)


@given(text=HOSTILE)
def test_no_tag_of_thought_is_left_and_leaving_out_twice_changes_nothing(text):
    shown = without_thoughts(text)
    assert "<think>" not in shown
    assert "</think>" not in shown
    assert without_thoughts(shown) == shown
    assert len(shown) <= len(text)
    if "<think>" not in text and "</think>" not in text:
        assert shown == text


def test_thoughts_in_a_hundred_kilobytes_are_left_out_in_no_time():
    for text in (
        "<thi" * 9_000 + "<think></think>" + "nk>" * 9_000,
        "</thi<think></think>nk>" * 4_500,
        "<think>" * 15_000,
    ):
        start = time.perf_counter()
        assert "think>" not in without_thoughts(text)
        assert time.perf_counter() - start < 1.0


@given(text=HOSTILE)
def test_a_prompt_is_encoded_or_refused_by_name(encoder, text):
    prompt = Prompt(system="s", user=text)
    try:
        text.encode()
    except UnicodeEncodeError:
        with pytest.raises(RefusedError, match="no valid Unicode"):
            encoder.encode(prompt)
        return
    ids = encoder.encode(prompt).ids
    harmless = [i for i in encoder.encode(Prompt(system="s", user="x")).ids if i in encoder.added]
    assert [i for i in ids if i in encoder.added] == harmless


def reads(text: str, *, reasoning: str, reader: str, count: int) -> bool:
    """Whether the judge's own part of a reply is as many answers as are due: told by splitting, without any pattern."""
    if reasoning == "first":
        _, end, final = text.rpartition("</think>")
        if not end or "<think>" in final:
            return False
    elif reasoning == "last":
        final = text.replace("</think>", "<think>").partition("<think>")[0]
    else:
        final = text
    inside = [part.partition("</answer>")[0].strip() for part in final.split("<answer>")[1:]]
    closed = final.count("</answer>") == len(inside) and all("</answer>" in p for p in final.split("<answer>")[1:])
    if reader == "genai":
        return closed and len(inside) == 1 and inside[0] in LABELS
    digits = [part.replace(".", "", 1) if part[:1] != "." and part[-1:] != "." else "" for part in inside]
    return closed and len(inside) == count and all(part.isascii() and part.isdigit() for part in digits)


ANSWER = st.sampled_from(
    ["<answer>3</answer>", "<answer> 4.5\n</answer>", "<answer>1</answer>", "<answer>[[A>B]]</answer>"]
)
WILD = st.lists(st.one_of(PARTS, st.sampled_from([*TAGS, "</think>"]), ANSWER), max_size=14).map("".join)
PLAIN = st.tuples(HOSTILE, st.sampled_from(["</think>", "", "<think>"]), st.lists(ANSWER, max_size=4).map("".join))
REPLY = st.one_of(WILD, PLAIN.map("".join))
"""Anything; or anything, and then what may be a verdict."""


@given(name=TEMPLATES, text=REPLY, finish=st.sampled_from(["stop", "stop", "length"]))
def test_a_score_comes_only_from_a_reply_that_holds_one(name, text, finish):
    template = load_template(name)
    count = template.num_completions or 3
    outcome = template.parse(Reply(text=text, finish_reason=finish), count=count)
    if isinstance(outcome, Verdict):
        assert finish == "stop"
        assert reads(text, reasoning=template.reasoning, reader=template.reader, count=count)
        assert len(outcome.scores) == count
        assert all(score in template.scale for score in outcome.scores)
    else:
        assert outcome.detail
        assert outcome.reply == text


@pytest.mark.parametrize("name", ["pair", "score", "batch", "score-direct", "pair-answer-first", "gen-image"])
def test_the_replies_drawn_here_hold_verdicts_too(name):
    """Else the test above would say nothing."""
    template = load_template(name)
    count = template.num_completions or 3
    found = find(REPLY, lambda text: isinstance(template.parse(Reply(text=text), count=count), Verdict))
    assert "<answer>" in found


@given(name=TEMPLATES, text=HOSTILE)
def test_text_without_a_whole_answer_never_scores(name, text):
    template = load_template(name)
    for tag in ("<answer>", "</answer>"):
        cut = text.replace(tag, "")
        if tag in cut:  # cutting one out spelled another
            continue
        assert isinstance(template.parse(Reply(text=cut), count=template.num_completions or 3), Unscored)


@given(data=st.data(), name=TEMPLATES, texts=st.lists(HOSTILE, min_size=2, max_size=5))
def test_orders_are_undone_under_hostile_text(data, name, texts):
    template = load_template(name)
    request = request_for(template, texts)
    places = range(len(request.completions))
    order = tuple(data.draw(st.permutations(places)))
    back = tuple(order.index(place) for place in places)
    assert show(show(request, order), back) == request
    scores = tuple(data.draw(st.floats(template.scale.low, template.scale.high)) for _ in places)
    verdict = Verdict(scores=tuple(scores[index] for index in order), scale=template.scale)
    restored = restore(verdict, order)
    assert isinstance(restored, Verdict)
    assert restored.scores == scores


@given(name=TEMPLATES, texts=st.lists(HOSTILE, min_size=1, max_size=4), reply=REPLY, turns=st.booleans(), id=HOSTILE)
@settings(max_examples=60)
async def test_the_whole_road_ends_in_a_line_of_the_outcome_file(name, texts, reply, turns, id):
    template = load_template(name)
    request = request_for(template, [*texts, "never only space"], turns=turns, id=id)
    if name.startswith("rubric") and not request.rubric.strip():
        return
    judgment = await Judge(ScriptedEngine(lambda prompt: reply), template).judge(request)
    assert isinstance(judgment.outcome, Verdict | Unscored)
    line = encode(outcome_row(judgment, Item(request, {})))
    assert line.count(b"\n") == 1
    row = json.loads(line)
    assert (row["status"] == "scored") == isinstance(judgment.outcome, Verdict)
    assert (row["scores"] is None) == (row["status"] == "unscored")
