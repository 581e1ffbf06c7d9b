"""Where the molecules of a request stand, for a model that is shown them as molecules.

The i-th ``<mol>`` in the text of the prompt is the place of its i-th molecule; a prompt without any gets the line
``Molecule <mol>.`` for each below it. Only what users say in the prompt is looked at: a ``<mol>`` in a completion, a
rubric, a reference or an earlier answer of the policy stays the text that it is. The mark itself is gone once a
molecule has its place, so none can be forged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

from flexreward.errors import SampleError
from flexreward.types import JudgeRequest, Message, Molecule, Part, Text

Molecules: TypeAlias = Literal["text", "placed"]
"""How a template shows a request's molecules."""

MARK = "<mol>"
LINE = f"\nMolecule {MARK}."


def marked(prompt: Text, count: int) -> Text:
    """The prompt with a mark for each of ``count`` molecules: as it is, or with a line for each below its last turn of
    a user, where it has none.

    Raises:
        SampleError: It has another number of marks, or no turn of a user.
    """
    if isinstance(prompt, str):
        return _below(prompt, count) if MARK not in prompt else _checked(prompt, prompt.count(MARK), count)
    users = [i for i, turn in enumerate(prompt) if turn.role == "user"]
    if found := sum(_marks(prompt[i]) for i in users):
        return _checked(prompt, found, count)
    if not count:
        return prompt
    if not users:
        raise SampleError(f"the prompt brings {count} molecule(s) and has no turn of a user to show them in")
    turn = prompt[users[-1]]
    if isinstance(turn.content, str):
        content: str | tuple[Part, ...] = _below(turn.content, count)
    else:
        content = (*turn.content, LINE * count)
    return (*prompt[: users[-1]], replace(turn, content=content), *prompt[users[-1] + 1 :])


def placed(prompt: Text, molecules: Sequence[str]) -> Text:
    """The prompt with its molecules (SMILES) at their places, in the contents of its turns.

    Raises:
        SampleError: It has marks, and not one for each molecule.
    """
    prompt = marked(prompt, len(molecules))
    if not molecules:
        return prompt
    turns = (Message(role="user", content=prompt),) if isinstance(prompt, str) else prompt
    left = iter(molecules)
    return tuple(
        replace(turn, content=tuple(_split(turn, left))) if turn.role == "user" and _marks(turn) else turn
        for turn in turns
    )


def with_places(request: JudgeRequest) -> JudgeRequest:
    """The request with its molecules in its prompt; none are left to be placed.

    Raises:
        SampleError: The prompt has marks, and not one for each molecule.
    """
    return replace(request, prompt=placed(request.prompt, request.molecules), molecules=())


def _below(text: str, count: int) -> str:
    return text + LINE * count


def _checked(prompt: Text, found: int, count: int) -> Text:
    if found != count:
        raise SampleError(
            f"the prompt has {found} {MARK}, and {count} molecule(s) come with it; write one for each, or none"
        )
    return prompt


def _marks(turn: Message) -> int:
    pieces = (turn.content,) if isinstance(turn.content, str) else turn.content
    return sum(piece.count(MARK) for piece in pieces if isinstance(piece, str))


def _split(turn: Message, molecules: Iterator[str]) -> Iterator[Part]:
    """The content of a turn, the next molecule in place of each mark."""
    for piece in (turn.content,) if isinstance(turn.content, str) else turn.content:
        if not isinstance(piece, str):
            yield piece
            continue
        first, *rest = piece.split(MARK)
        yield first
        for text in rest:
            yield Molecule(smiles=next(molecules))
            yield text
