"""How a request becomes text: slots filled in one pass, conversations and thoughts by one printed rule each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, TypeAlias

from flexreward.parse import THINK_TAG
from flexreward.types import Message, Text

JudgeSees: TypeAlias = Literal["final", "all"]

SLOT = re.compile(r"\{([a-z][a-z0-9_]*)\}")
MEDIA = re.compile(r"<((?:image|video|audio|molecule)(?:_[0-9]+)?)>")

Pieces: TypeAlias = tuple[str, ...]
"""Literal text at the even places, names of slots at the odd ones."""


def pieces_of(text: str) -> Pieces:
    return tuple(SLOT.split(text))


def stretches_of(text: str) -> tuple[Pieces, ...]:
    """What stands before, between and after the media slots of a text."""
    return tuple(pieces_of(stretch) for stretch in MEDIA.split(text)[::2])


def fill(pieces: Pieces, values: Mapping[str, str]) -> str:
    """The text with its slots filled. What a value brings along is never filled again."""
    return "".join([values[piece] if place % 2 else piece for place, piece in enumerate(pieces)])


def as_text(text: Text, *, role: str, sees: JudgeSees) -> str:
    """A string or a conversation the way the judge reads it.

    A single user or assistant turn is its bare text, and so is a string, which is a single turn of ``role``. Several
    turns, or one of another role, are blocks headed ``[User]``, ``[Assistant]``, ``[System]``, ``[Tool]``, with an
    empty line between them. Thoughts in assistant turns are left out unless the judge ``sees`` ``all``.
    """
    turns = (Message(role=role, content=text),) if isinstance(text, str) else text
    hide = sees == "final"
    contents = [without_thoughts(t.content) if hide and t.role == "assistant" else t.content for t in turns]
    if len(turns) == 1 and turns[0].role in ("user", "assistant"):
        return contents[0]
    return "\n\n".join(f"[{t.role.capitalize()}]\n{content}" for t, content in zip(turns, contents, strict=True))


def without_thoughts(text: str) -> str:
    """A completion without what its writer only thought; text that holds no thought is left as it is, to the byte.

    A thought lasts from ``<think>`` to the ``</think>`` that ends it, nested ones included. One that was begun for the
    writer (a ``</think>`` and no ``<think>`` before it) lasts from the start, one that never ends to the end, so that
    nothing after it is shown.
    """
    if "<think>" not in text and "</think>" not in text:
        return text
    *ended, rest = text.split("</think>")
    spoken = [part.partition("<think>")[0] for part in ended if "<think>" in part]
    shown = "".join(spoken) + rest.partition("<think>")[0]
    # What stood around a thought may spell a tag once the thought is gone. It is hidden like a thought that never ends.
    return THINK_TAG.split(shown, maxsplit=1)[0].strip()


def numbered(completions: list[str]) -> str:
    """The listwise block: each completion under its number, from 1."""
    return "\n\n".join(f"[Assistant {i}'s Answer]\n{completion}" for i, completion in enumerate(completions, 1))
