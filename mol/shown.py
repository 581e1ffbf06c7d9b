"""A molecule as something that is shown to a model: what stands where a text says ``<mol>``."""

from __future__ import annotations

from flexreward.engines.base import Placed, Prompt
from flexreward.types import Media

MOL = "<mol>"
"""Where a molecule stands in the texts of Mol-LLaMA's prompts, once a molecule."""


def molecule(smiles: str) -> Media:
    """The medium that an engine with ``molecule`` among its modalities is shown."""
    return Media(kind="molecule", data=smiles.encode())


def smiles_of(media: Media) -> str:
    """What ``molecule`` was made of."""
    assert media.kind == "molecule"
    assert media.data is not None
    return media.data.decode()


def prompt_with(system: str, user: str, smiles: str, *, prefix: str = "", as_text: bool = False) -> Prompt:
    """A prompt about one molecule, which is shown wherever the user's turn has ``<mol>``.

    Args:
        as_text: Write the SMILES there instead, for a model that reads nothing but text.
    """
    if as_text:
        return Prompt(system=system, user=user.replace(MOL, smiles), prefix=prefix)
    first, *rest = user.split(MOL)
    text, placed = first, []
    for piece in rest:
        placed.append(Placed(len(text), molecule(smiles)))
        text += piece
    return Prompt(system=system, user=text, prefix=prefix, media=tuple(placed))
