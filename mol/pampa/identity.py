"""What a molecule is called, whatever its spelling: the names by which rows are matched, split and kept apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem, rdBase
from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator
from rdkit.Chem.Scaffolds import MurckoScaffold

from flexreward.errors import UserError


class LeakError(UserError):
    """A test molecule stands among what a model was trained on."""


class SmilesError(UserError):
    """RDKit reads no molecule in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    smiles: str
    """Canonical, with its stereochemistry."""
    block: str
    """First block of the InChIKey: which atoms are joined, and neither stereo, isotopes nor where a mobile hydrogen
    is. Two molecules that share it are one for every purpose of splitting. The canonical SMILES where InChI knows
    no name."""
    scaffold: str
    """Murcko's, as SMILES without stereochemistry; empty where there is no ring."""


@lru_cache(maxsize=65_536)
def identity(smiles: str) -> Identity:
    """The names of a molecule.

    Raises:
        SmilesError: It is none; one line.
    """
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
        if mol is None or not mol.GetNumAtoms():
            raise SmilesError(f"{smiles!r} is no molecule that RDKit reads; mend the SMILES or leave the row out")
        canonical = Chem.MolToSmiles(mol)
        key = Chem.MolToInchiKey(mol)
        scaffold = MurckoScaffold.MurckoScaffoldSmiles(mol=mol, includeChirality=False)
    return Identity(smiles=canonical, block=key.partition("-")[0] or canonical, scaffold=scaffold)


def fingerprints(smiles: Sequence[str], *, radius: int, bits: int) -> NDArray[np.uint8]:
    """(N, bits) Morgan fingerprints of 0 and 1, stereochemistry not looked at.

    Args:
        radius: In bonds; 2 is what is called ECFP4.
    """
    generator = GetMorganGenerator(radius=radius, fpSize=bits)
    with rdBase.BlockLogs():
        mols = [Chem.MolFromSmiles(one) for one in smiles]
        return np.stack([generator.GetFingerprintAsNumPy(mol) for mol in mols]) if mols else np.zeros((0, bits), "u1")


def refuse_leaks(test: Iterable[str], others: Mapping[str, Iterable[str]]) -> None:
    """Refuse a test molecule that stands elsewhere, in whatever spelling or stereochemistry.

    Args:
        test: SMILES.
        others: SMILES by what they are for, such as the file that they come from. What RDKit cannot read there is no
            molecule that a model could have learnt, and is passed over.

    Raises:
        LeakError: Names the molecule, both spellings and the place.
    """
    blocks = {identity(smiles).block: smiles for smiles in test}
    for name, found in others.items():
        for smiles in found:
            try:
                block = identity(smiles).block
            except SmilesError:
                continue
            if block in blocks:
                raise LeakError(
                    f"{name}: holds {smiles} ({block}), which is the test molecule {blocks[block]}; leave it out and "
                    "train again"
                )
