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
from mol.chem.molecule import MoleculeError, Read, inchikey_block, naming


class LeakError(UserError):
    """A test molecule stands among what a model was trained on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    smiles: str
    """Canonical, with its stereochemistry."""
    block: str
    """``Molecule.inchikey_block``: which atoms are joined, and neither stereo, isotopes nor where a mobile hydrogen is.
    Two molecules that share it are one for every purpose of splitting."""
    scaffold: str
    """Murcko's, as SMILES without stereochemistry; empty where there is no ring."""


@lru_cache(maxsize=65_536)
def identity(text: str) -> Identity:
    """The names of the molecule that a SMILES, or an SDF block, says.

    Raises:
        MoleculeError: It cannot be read, is none, or has more than 512 heavy atoms.
    """
    with naming(text):
        smiles = Read.of(text).smiles
        mol = Chem.MolFromSmiles(smiles)
        scaffold = MurckoScaffold.MurckoScaffoldSmiles(mol=mol, includeChirality=False)
        return Identity(smiles=smiles, block=inchikey_block(mol), scaffold=scaffold)


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
            except MoleculeError:
                continue
            if block in blocks:
                raise LeakError(
                    f"{name}: holds {smiles} ({block}), which is the test molecule {blocks[block]}; leave it out and "
                    "train again"
                )
