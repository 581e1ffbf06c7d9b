"""A trainer's prompts, completions and columns as items for a judge."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from flexreward.files.outcomes import request_digest
from flexreward.files.parts import Parts, read_molecules
from flexreward.files.samples import Reader
from flexreward.media.intake import HERE, media_of
from flexreward.media.limits import LIMITS
from flexreward.serving.contract import RewardItem
from flexreward.types import Completion, JudgeRequest, Media, Message, Modality

THOUGHT, END = "<think>", "</think>"
COLUMNS: Mapping[str, Modality] = {
    "image": "image",
    "images": "image",
    "video": "video",
    "videos": "video",
    "audio": "audio",
    "audios": "audio",
}
"""Media of the prompt; a column in the singular holds one."""


def item_of(
    prompt: Any, completion: Any, columns: Mapping[str, Any], *, sees_thought: bool = False, where: str = "the row"
) -> RewardItem:
    """One completion with what is shown beside it.

    Args:
        prompt: Text, or messages, with PIL images in their parts or not.
        completion: Text, or messages; of a single assistant turn its text is shown.
        columns: Of this row: ``rubric``, ``reference``, ``molecules`` and those of media are looked at.
        sees_thought: Whether the judge is shown what a reasoning policy wrote in ``<think>``.
        where: What a refusal begins with.

    Raises:
        SampleError: It cannot be shown.
    """
    asked = _turns(prompt)
    # A trainer puts the column's images into the messages itself.
    parts = Parts(where=where, waiting=[] if _holds_media(asked) else _media(columns, where), reach=HERE)
    read = Reader(where, False, parts)
    shown = read.text(asked, "prompt")
    made = read.completion(_turns(completion), "completion")
    if not sees_thought:
        made = _final(made, begun=isinstance(shown, str) and shown.rstrip().endswith(THOUGHT))
    return RewardItem(
        prompt=shown,
        completion=_only_text(made),
        media=tuple(parts.waiting),
        rubric=_text(columns.get("rubric"), read, "rubric"),
        reference=_text(columns.get("reference"), read, "reference"),
        molecules=read_molecules(columns.get("molecules"), where),
    )


def final_part(text: str, *, begun: bool = False) -> str:
    """What follows the thought of a reasoning policy; all of a text without one, nothing of a thought without an end.

    Only the first ``</think>`` ends it: what stands between two of them is not hidden from the judge.

    Args:
        begun: Whether the prompt has opened the thought.
    """
    thought, end, rest = text.partition(END)
    if end:
        return rest.lstrip()
    return "" if begun or thought.lstrip().startswith(THOUGHT) else text


def group_name(item: RewardItem) -> str:
    """A name that items share whose prompts are equal, with all that stands beside them."""
    same = JudgeRequest(
        prompt=item.prompt,
        completions=(),
        media=item.media,
        rubric=item.rubric,
        reference=item.reference,
        molecules=item.molecules,
    )
    return request_digest(same)


def _turns(value: Any) -> Any:
    """Messages with what no judge is shown left out, and tool calls as the text that they are."""
    if not isinstance(value, list):
        return value
    return [_turn(turn) if isinstance(turn, Mapping) else turn for turn in value]


def _turn(turn: Mapping[str, Any]) -> dict[str, Any]:
    content = turn.get("content")
    content = "" if content is None else content
    for call in turn.get("tool_calls") or ():
        function = call.get("function", call) if isinstance(call, Mapping) else call
        line = f"<tool_call>{json.dumps(function, ensure_ascii=False, default=str)}</tool_call>"
        content = f"{content}{line}" if isinstance(content, str) else [*content, {"type": "text", "text": line}]
    return {"role": turn.get("role"), "content": content}


def _holds_media(prompt: Any) -> bool:
    if not isinstance(prompt, list):
        return False
    contents = [turn["content"] for turn in prompt if isinstance(turn, Mapping) and isinstance(turn["content"], list)]
    parts = [part for content in contents for part in content if isinstance(part, Mapping)]
    return any(part.get(str(part.get("type"))) is not None for part in parts if part.get("type") != "text")


def _media(columns: Mapping[str, Any], where: str) -> list[Media]:
    found: list[Media] = []
    for column, kind in COLUMNS.items():
        value = columns.get(column)
        if value is None:
            continue
        values = value if column.endswith("s") and isinstance(value, Sequence) and not _is_one(value) else [value]
        found += media_of(kind, values, limits=LIMITS, reach=HERE, where=f"{where}: {column}")
    return found


def _is_one(value: Any) -> bool:
    return isinstance(value, str | bytes | Mapping)


def _final(completion: Completion, *, begun: bool) -> Completion:
    if isinstance(completion, str):
        return final_part(completion, begun=begun)
    if isinstance(completion, Media):
        return completion
    return tuple(
        replace(turn, content=final_part(turn.content))
        if turn.role == "assistant" and isinstance(turn.content, str)
        else turn
        for turn in completion
    )


def _only_text(completion: Completion) -> Completion:
    """The text of a single assistant turn, as a judge of plain completions reads it."""
    if isinstance(completion, tuple) and len(completion) == 1:
        only: Message = completion[0]
        if only.role == "assistant" and isinstance(only.content, str):
            return only.content
    return completion


def _text(value: Any, read: Reader, name: str) -> str | None:
    """A column of numbers is as good as one of texts: a reference is often a bare number."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return read.optional(value, name)
