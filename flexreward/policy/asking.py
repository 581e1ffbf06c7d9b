"""How a prompt of a sample is put to a policy: as the conversation that it is, in the policy's own chat template.

Molecules of a row stand where its prompt has ``<mol>``, or below it (see ``flexreward.templates.molecules``).
"""

from __future__ import annotations

from typing import cast

from flexreward.engines.base import Placed, Prompt, Turn
from flexreward.errors import SampleError
from flexreward.files.samples import Sample
from flexreward.templates.molecules import placed
from flexreward.types import Message, Molecule


def conversation_of(sample: Sample, system: str = "") -> tuple[Message, ...]:
    """The turns that the policy goes on with. A text is one turn of a user.

    Args:
        system: Stands before them, where there is no system turn.
    """
    prompt = sample.prompt
    turns = (Message(role="user", content=prompt),) if isinstance(prompt, str) else prompt
    return turns if turns[0].role == "system" or not system else (Message(role="system", content=system), *turns)


def prompt_of(sample: Sample, system: str = "", *, molecules: bool = False) -> Prompt:
    """What the policy reads. Media of the row stand before its text, those of its messages where they are.

    Args:
        molecules: Whether the policy is shown molecules.

    Raises:
        SampleError: It is no conversation that a policy can go on with; one line.
    """
    turns = list(conversation_of(sample, system))
    if sample.molecules and not molecules:
        raise SampleError(f"{sample.where}: brings molecules, which this policy is not shown; take a molecular one")
    if molecules:
        try:
            turns = list(cast(tuple[Message, ...], placed(tuple(turns), sample.molecules)))
        except SampleError as error:
            raise SampleError(f"{sample.where}: {error}") from error
    first = _text(sample, turns.pop(0)) if turns[0].role == "system" else ""
    if not turns or turns[-1].role != "user":
        last = f"a turn of {turns[-1].role!r}" if turns else "its system turn"
        raise SampleError(
            f"{sample.where}: the prompt ends with {last}, where a policy goes on after the user's; cut it there"
        )
    user = turns.pop()
    earlier = tuple(Turn(turn.role, _text(sample, turn)) for turn in turns)
    if earlier and sample.media:
        raise SampleError(
            f"{sample.where}: brings media beside several turns; put each into its message, as a part of the last"
        )
    pieces = (user.content,) if isinstance(user.content, str) else user.content
    shown = [Placed(0, medium) for medium in sample.media]
    text = ""
    for piece in pieces:
        if isinstance(piece, str):
            text += piece
        else:
            shown.append(Placed(len(text), piece))
    return Prompt(system=first, user=text, media=tuple(shown), turns=earlier)


def _text(sample: Sample, turn: Message) -> str:
    if isinstance(turn.content, str):
        return turn.content
    raise SampleError(
        f"{sample.where}: brings {_kind(turn)} in a turn of {turn.role!r} before the last; a policy sees those of the "
        "last"
    )


def _kind(turn: Message) -> str:
    return "molecules" if any(isinstance(piece, Molecule) for piece in turn.content) else "media"
