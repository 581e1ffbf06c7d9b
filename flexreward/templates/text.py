"""How a request becomes text: slots filled in one pass, conversations and thoughts by one printed rule each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from flexreward.errors import SampleError
from flexreward.parse import THINK_TAG
from flexreward.types import Media, Message, Molecule, Part, Text

JudgeSees: TypeAlias = Literal["final", "all"]

SLOT = re.compile(r"\{([a-z][a-z0-9_]*)\}")
MEDIA = re.compile(r"<((?:image|video|audio|molecule)(?:_[0-9]+)?)>")

Pieces: TypeAlias = tuple[str, ...]
"""Literal text at the even places, names of slots at the odd ones."""

Shown: TypeAlias = tuple[Part, ...]
"""Text and media in the order in which the judge is shown them."""


def pieces_of(text: str) -> Pieces:
    return tuple(SLOT.split(text))


def stretches_of(text: str) -> tuple[Pieces, ...]:
    """What stands before, between and after the media slots of a text."""
    return tuple(pieces_of(stretch) for stretch in MEDIA.split(text)[::2])


def fill(pieces: Pieces, values: Mapping[str, Shown]) -> Shown:
    """The text with its slots filled. What a value brings along is never filled again."""
    found: list[Part] = []
    for place, piece in enumerate(pieces):
        found += values[piece] if place % 2 else (piece,)
    return tuple(found)


def text_of(shown: Shown) -> str:
    """What of it is text."""
    return "".join(piece for piece in shown if isinstance(piece, str))


def media_of(shown: Shown) -> list[Media | Molecule]:
    """What of it is no text."""
    return [piece for piece in shown if not isinstance(piece, str)]


def as_text(text: Text, *, role: str, sees: JudgeSees) -> str:
    """The text of ``as_shown``."""
    return text_of(as_shown(text, role=role, sees=sees))


def as_shown(text: Text, *, role: str, sees: JudgeSees) -> Shown:
    """A string or a conversation the way the judge reads it.

    A single user or assistant turn is its bare text, and so is a string, which is a single turn of ``role``. Several
    turns, or one of another role, are blocks headed ``[User]``, ``[Assistant]``, ``[System]``, ``[Tool]``, with an
    empty line between them. Thoughts in assistant turns are left out unless the judge ``sees`` ``all``. Media inside of
    a turn stay where they stand in it, with nothing around them.

    Raises:
        SampleError: An assistant turn has media and a thought that would be left out, and perhaps they with it.
    """
    turns = (Message(role=role, content=text),) if isinstance(text, str) else text
    contents = [_content(turn, sees) for turn in turns]
    if len(turns) == 1 and turns[0].role in ("user", "assistant"):
        return contents[0]
    found: list[Part] = []
    for turn, content in zip(turns, contents, strict=True):
        gap = "\n\n" if found else ""
        found += (f"{gap}[{turn.role.capitalize()}]\n", *content)
    return tuple(found)


def _content(turn: Message, sees: JudgeSees) -> Shown:
    hide = sees == "final" and turn.role == "assistant"
    if isinstance(turn.content, str):
        return (without_thoughts(turn.content) if hide else turn.content,)
    if hide and THINK_TAG.search(text_of(turn.content)):
        if media_of(turn.content):
            raise SampleError("an assistant turn holds media and a thought; leave the thought out, or show all of it")
        return (without_thoughts(text_of(turn.content)),)
    return turn.content


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


def numbered(completions: Sequence[Shown]) -> Shown:
    """The listwise block: each completion under its number, from 1."""
    found: list[Part] = []
    for i, completion in enumerate(completions, 1):
        gap = "\n\n" if found else ""
        found += (f"{gap}[Assistant {i}'s Answer]\n", *completion)
    return tuple(found)


def molecules_block(molecules: Sequence[str]) -> str:
    """What stands below the prompt: an empty line, ``[Molecules]``, and a numbered line each; nothing without any."""
    lines = [f"\n{i}. {smiles}" for i, smiles in enumerate(molecules, 1)]
    return "".join(["\n\n[Molecules]", *lines]) if lines else ""
