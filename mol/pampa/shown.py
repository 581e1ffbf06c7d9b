"""A prompt about one molecule: what stands where a text says ``<mol>``."""

from __future__ import annotations

from flexreward.engines.base import Placed, Prompt
from flexreward.templates.molecules import MARK
from flexreward.types import Molecule


def prompt_with(system: str, user: str, smiles: str, *, as_text: bool = False) -> Prompt:
    """A prompt in which the molecule is shown wherever the user's turn has ``<mol>``.

    Args:
        as_text: Write the SMILES there instead, for a model that reads nothing but text.
    """
    if as_text:
        return Prompt(system=system, user=user.replace(MARK, smiles))
    text, *rest = user.split(MARK)
    placed = []
    for piece in rest:
        placed.append(Placed(len(text), Molecule(smiles=smiles)))
        text += piece
    return Prompt(system=system, user=text, media=tuple(placed))
