"""SMILES or an SDF block -> ``Molecule``: the 2D graph, the 3D input, and how they were made.

N nodes of the graph, E directed edges, A atoms with coordinates (angstrom).

What becomes of the unusual:

    salts, mixtures   one graph of several parts; their parts lie side by side (``-apart``)
    ions, radicals    charge and radical electrons are features; no hydrogen is added to them
    single atoms      no edges, one atom at the origin
    metals            MMFF knows few: coordinates are those of the embedding (``-unrefined``); Uni-Mol's ``[UNK]`` where
                      its dictionary lacks them; dative and zero-order bonds are the bond type "misc"
    isotopes          the element alone is a feature; a written ``[2H]`` is a node of the graph, as the source has it,
                      and has no coordinates, as no hydrogen has
    atropisomers      no bond carries a tag (see ``features``), and a SMILES without extension cannot say them; the
                      distances of the 3D input do not tell mirror images apart either
    macrocycles       ETKDG with its knowledge of them, then from random coordinates (``etkdg-random``)
    no embedding      without stereo (``etkdg-loose``), and where that fails the plane (``flat``)
    dummies (``*``)   "misc" of the atomic numbers, ``[UNK]``; no InChI, see ``inchikey_block``
    over 512 heavy    MoleculeError: the source draws 512 of them at random, and no judge would see the molecule named
    nothing, or what RDKit refuses    MoleculeError
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from rdkit import Chem, rdBase

from flexreward.errors import SampleError
from mol.chem import features
from mol.chem.conformer import Conformer, conformer, kept

MAX_ATOMS = 512
"""Heavy atoms that Uni-Mol takes."""
MAX_SMILES_CHARS = 10_000
MAX_BLOCK_CHARS = 1_000_000
SHOWN_CHARS = 300
SEEDS = range(2**31)


class MoleculeError(SampleError):
    """A molecule that cannot be used; the message begins with its SMILES, or with the first line of its block."""

    status = 422


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Molecule:
    """Made from its canonical SMILES, so that every way to write a molecule gives the same bytes."""

    smiles: str
    """Canonical."""
    atoms_N9: np.ndarray
    """(N, 9) int64, in the order of ``smiles``; see ``features.ATOM_SIZES``."""
    edges_2E: np.ndarray
    """(2, E) int64: from, to. Each bond stands in both directions."""
    bonds_E3: np.ndarray
    """(E, 3) int64; see ``features.BOND_SIZES``."""
    symbols: tuple[str, ...]
    """A element symbols. From an SDF block they are in its order: the two encoders do not look at one another's."""
    coords_A3: np.ndarray
    """(A, 3) float32, angstrom; heavy atoms, or all where all are hydrogen."""
    made: str
    """Where the coordinates come from: ``sdf``, or as ``conformer`` tells."""
    inchikey_block: str
    """First block of the InChIKey: the same for all stereoisomers, isotopes and most tautomers. Where InChI knows none,
    ``no-inchi:`` and the SMILES without stereo and isotopes."""


def featurise(text: str, *, seed: int = 0) -> Molecule:
    """The molecule that a SMILES or an SDF block names.

    Args:
        text: One molecule. More than one line is an SDF block; its coordinates are used when they are 3D, and made as
            for a SMILES when they are not. A name after a SMILES is refused: half a SMILES would look like one.
        seed: Of the embedding, 0 to 2**31 - 1.

    Raises:
        MoleculeError: It cannot be read, is none, or has more than 512 heavy atoms.
    """
    check_seed(seed)
    with naming(text):
        return made_of(Read.of(text), seed=seed)


@contextmanager
def naming(text: str) -> Iterator[None]:
    """RDKit's work on one molecule, without its lines on stderr: what fails in it names the molecule.

    Raises:
        MoleculeError: RDKit failed where it promises not to.
    """
    with rdBase.BlockLogs():
        try:
            yield
        except MoleculeError:
            raise
        except (RuntimeError, ValueError) as error:
            raise MoleculeError(f"{shown(text)}: RDKit fails at it: {_line(error)}; leave it out") from error


def check_seed(seed: int) -> None:
    """Raises ValueError: RDKit would draw another one each time, or does not take it."""
    if seed not in SEEDS:
        raise ValueError(f"seed: {seed}, expected 0 to {SEEDS[-1]}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A molecule that was read, and nothing computed of it yet."""

    smiles: str
    given: Conformer | None
    """Coordinates that came with it."""

    @classmethod
    def of(cls, text: str) -> Read:
        """Raises MoleculeError: It cannot be read, is none, or is too large."""
        if not isinstance(text, str):  # an empty cell of a table
            raise MoleculeError(f"{shown(str(text))}: {type(text).__name__}, expected a SMILES or an SDF block")
        is_block = "\n" in text.strip()
        limit = MAX_BLOCK_CHARS if is_block else MAX_SMILES_CHARS
        if len(text) > limit:
            raise MoleculeError(f"{shown(text)}: {len(text):,} characters, at most {limit:,} are read")
        mol = _of_block(text) if is_block else _of_smiles(text.strip())
        _check_size(mol, text)
        return cls(smiles=Chem.MolToSmiles(mol), given=_given(mol, text))


def made_of(read: Read, *, seed: int) -> Molecule:
    """The graph by the canonical SMILES; coordinates as they were given, or made."""
    mol = _of_smiles(read.smiles)
    atoms_N9, edges_2E, bonds_E3 = features.graph(mol)
    symbols, coords_A3, made = read.given or conformer(mol, seed=seed)
    return Molecule(
        smiles=read.smiles,
        atoms_N9=atoms_N9,
        edges_2E=edges_2E,
        bonds_E3=bonds_E3,
        symbols=symbols,
        coords_A3=coords_A3,
        made=made,
        inchikey_block=inchikey_block(mol),
    )


def inchikey_block(mol: Chem.Mol) -> str:
    """The connectivity of a molecule in one word, see ``Molecule.inchikey_block``."""
    key = str(Chem.MolToInchiKey(mol))
    return key.partition("-")[0] or f"no-inchi:{Chem.MolToSmiles(mol, isomericSmiles=False)}"


def shown(text: str) -> str:
    """A molecule's text in one line of bounded length, for messages."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    line = lines[0] if lines else ""
    name = f"SDF block {line!r}" if len(lines) > 1 else repr(line)
    return name if len(name) <= SHOWN_CHARS else f"{name[:SHOWN_CHARS]}... ({len(text):,} characters)"


def _of_smiles(smiles: str) -> Chem.Mol:
    parameters = Chem.SmilesParserParams()
    parameters.parseName = False
    mol = Chem.MolFromSmiles(smiles, parameters)
    if mol is None:
        parameters.sanitize = False
        raise MoleculeError(f"{shown(smiles)}: {_why_not(Chem.MolFromSmiles(smiles, parameters), 'SMILES')}")
    return mol


def _of_block(text: str) -> Chem.Mol:
    block, _, more = text.partition("$$$$")
    if more.strip():
        raise MoleculeError(f"{shown(text)}: more than one record; give one molecule at a time")
    mol = Chem.MolFromMolBlock(block)
    if mol is None:
        raise MoleculeError(f"{shown(text)}: {_why_not(Chem.MolFromMolBlock(block, sanitize=False), 'SDF block')}")
    return mol


def _why_not(unsanitised: Chem.Mol | None, kind: str) -> str:
    """What is wrong with something that RDKit did not take."""
    if unsanitised is None:
        return f"cannot be read as {kind}; mend it or leave it out"
    try:
        Chem.SanitizeMol(unsanitised)
    except ValueError as error:
        return f"is no molecule: {_line(error)}; mend it or leave it out"
    return f"cannot be taken from its {kind}; mend it or leave it out"


def _check_size(mol: Chem.Mol, text: str) -> None:
    num_atoms = mol.GetNumAtoms()
    if not num_atoms:
        raise MoleculeError(f"{shown(text)}: no atoms; leave it out")
    num_heavy = sum(atom.GetAtomicNum() != 1 for atom in mol.GetAtoms()) or num_atoms
    if num_heavy > MAX_ATOMS:
        raise MoleculeError(f"{shown(text)}: {num_heavy:,} heavy atoms, at most {MAX_ATOMS} are taken; leave it out")


def _given(mol: Chem.Mol, text: str) -> Conformer | None:
    """The 3D coordinates that came with a block; ``None`` for 2D ones, and where all atoms lie in one point."""
    if not mol.GetNumConformers() or not mol.GetConformer().Is3D():
        return None
    coords_A3 = mol.GetConformer().GetPositions()
    if not np.isfinite(coords_A3).all():
        raise MoleculeError(f"{shown(text)}: coordinates that are no numbers; mend them, or give its SMILES")
    if len(coords_A3) > 1 and not np.ptp(coords_A3, axis=0).any():
        return None
    return kept(mol, coords_A3, "sdf")


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
