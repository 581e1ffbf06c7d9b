"""Rows of judgments -> what the judge read and what it has to write. Pure functions, no model and no tokenizer."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from flexreward.errors import SampleError
from flexreward.files.rows import read_rows
from flexreward.templates import load_template, template_ids

THINK, END_THINK = "<think>", "</think>"
CHATML = re.compile(
    r"(?:<\|im_start\|>system\n(?P<system>.*?)<\|im_end\|>\n)?"
    r"<\|im_start\|>user\n(?P<user>.*)<\|im_end\|>\n"
    r"<\|im_start\|>assistant\n(?P<started>(?:<think>\n?)?)",
    re.DOTALL,
)
END_OF_TURN = re.compile(r"(?:\s|<\|im_end\|>|<\|endoftext\|>|<\|eot_id\|>)*\Z")
SCORE = re.compile(r"<answer>\s*(\d+)\s*</answer>")
TWIN = "-answer-first"
SHAPES = "{prompt, text}, {system, user, reply} or {messages}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """One judgment to learn from."""

    system: str
    user: str
    reply: str
    """The assistant's whole turn, the started part of a prompt included, the end-of-turn token not."""
    where: str = ""
    """File and line, for messages."""


def read_lessons(source: str) -> Iterator[Lesson]:
    """The rows of a file as judgments, reasoning first.

    Raises:
        SampleError: names file, line and remedy.
    """
    for row in read_rows(source):
        yield lesson(row.fields, where=row.where)


def lesson(fields: Mapping[str, Any], *, where: str = "") -> Lesson:
    """One row in any of three shapes; further columns are left alone.

    ``{prompt, text}`` is the published form: a whole ChatML string, which ends with the assistant's header or after a
    started ``<think>``, and its continuation. It is taken apart, so that any model's own chat template can frame it.
    """
    if {"prompt", "text"} <= fields.keys():
        system, user, reply = _unframed(_text(fields, "prompt", where), _text(fields, "text", where), where)
    elif {"user", "reply"} <= fields.keys():
        system = _text(fields, "system", where) if fields.get("system") is not None else ""
        user, reply = _text(fields, "user", where), _text(fields, "reply", where)
    elif "messages" in fields:
        system, user, reply = _turns(fields["messages"], where)
    else:
        raise SampleError(f"{where}: a training row is {SHAPES}; found the columns {', '.join(fields)}")
    reply = END_OF_TURN.sub("", reply).lstrip()
    if not reply.startswith(THINK) or END_THINK not in reply:
        raise SampleError(f"{where}: a reply must begin with {THINK} and hold {END_THINK}; found {reply[:60]!r}")
    if "<answer>" not in _parted(reply)[1]:
        raise SampleError(f"{where}: no <answer> after {END_THINK}; such a judgment teaches nothing, leave it out")
    return Lesson(system=system, user=user, reply=reply, where=where)


def _text(fields: Mapping[str, Any], name: str, where: str) -> str:
    text = fields[name]
    if not isinstance(text, str):
        raise SampleError(f"{where}: {name!r} must be text, found {type(text).__name__}")
    return text


def _unframed(prompt: str, text: str, where: str) -> tuple[str, str, str]:
    framed = CHATML.fullmatch(prompt)
    if framed is None:
        raise SampleError(
            f"{where}: 'prompt' must be a ChatML string that ends with the assistant's header (and <think>); "
            f"found {prompt[-40:]!r} at its end; give {{system, user, reply}} for another frame"
        )
    return framed["system"] or "", framed["user"], framed["started"] + text


def _turns(messages: Any, where: str) -> tuple[str, str, str]:
    try:
        turns = [(turn["role"], turn["content"]) for turn in messages]
    except (TypeError, KeyError) as error:
        raise SampleError(f"{where}: 'messages' must be a list of {{role, content}}") from error
    if [role for role, _ in turns if role != "system"] != ["user", "assistant"] or len(turns) > 3:
        raise SampleError(
            f"{where}: 'messages' must be [system,] user, assistant; found {', '.join(str(r) for r, _ in turns)}"
        )
    if not all(isinstance(content, str) for _, content in turns):
        raise SampleError(f"{where}: the content of every message must be text")
    by_role = dict(turns)
    return by_role.get("system", ""), by_role["user"], by_role["assistant"]


def _parted(reply: str) -> tuple[str, str]:
    """The thought with its last end tag, and what follows."""
    thought, end, answer = reply.rpartition(END_THINK)
    return thought + end, answer


def answer_first(item: Lesson) -> Lesson:
    """The same judgment with the answer written before the thought: the ablation's rows.

    A system prompt that has a twin which asks for this order becomes its twin; any other stays as it is.
    """
    thought, answer = _parted(item.reply)
    system = _answer_first_systems().get(item.system, item.system)
    return replace(item, system=system, reply=f"{answer.strip()}\n{thought}")


@cache
def _answer_first_systems() -> dict[str, str]:
    ids = [name.removesuffix(TWIN) for name in template_ids() if name.endswith(TWIN)]
    return {load_template(name).system: load_template(name + TWIN).system for name in ids}


def halve_scale(item: Lesson) -> Lesson:
    """A judgment on the scale 1-10 moved to 1-5: every score ``s`` becomes ``ceil(s / 2)``, and the prompt says 1-5.

    The published data were made so for a random part of the rows; its rounding is not stated, and ceil keeps 1 at 1 and
    10 at 5. The thought is left as it is.

    Raises:
        SampleError: the system prompt asks for no 1-10, or a score is not a whole number on that scale.
    """
    thought, answer = _parted(item.reply)
    scores = SCORE.findall(answer)
    if "1-10" not in item.system:
        raise SampleError(f"{item.where}: the system prompt does not ask for scores 1-10")
    if len(scores) != answer.count("<answer>") or not all(1 <= int(score) <= 10 for score in scores):
        raise SampleError(f"{item.where}: a score is not a whole number from 1 to 10; found {answer.strip()[:60]!r}")
    halved = SCORE.sub(lambda score: f"<answer>{math.ceil(int(score[1]) / 2)}</answer>", answer)
    return replace(item, system=item.system.replace("1-10", "1-5"), reply=thought + halved)


def refuse_overlap(train: Iterable[Lesson], held_out: Iterable[Lesson]) -> None:
    """Held-out rows that the training saw measure memory, not judgment."""
    seen = {(item.system, item.user) for item in train}
    again = [item for item in held_out if (item.system, item.user) in seen]
    if again:
        raise SampleError(
            f"{again[0].where}: this prompt is among the training rows too, as are {len(again) - 1} others; "
            "leave them out of one of the two files"
        )
