"""One conformer a molecule: seeded ETKDG, then MMFF, and what is done where they cannot.

A atoms, P atoms of a part. Lengths are in angstrom.

Embeddings are tried in this order, and the name of the one that came about is the first word of ``made``:

    etkdg          ETKDG version 3, with its knowledge of rings, macrocycles and torsions
    etkdg-random   the same from random coordinates, for cages and large rings
    etkdg-loose    distances alone, without that knowledge and without stereo: where no geometry satisfies both
    flat           the depiction in the plane, in angstrom: no embedding came about

Two words may follow. ``-unrefined``: MMFF has no parameters for an atom of it (metals, boron, radicals of some kinds,
dummies), or left coordinates that are no numbers, and those before it stand. Each part of a salt is refined alone, so
that the hydrogen chloride beside a drug, which MMFF does not know, does not keep the drug from it; a part of one kept
atom has nothing to refine. ``-apart``: several parts (salts, mixtures). RDKit embeds each alone and all about one
origin, one through the other; here they lie side by side along x, ``GAP`` apart, in the order in which they begin in
the canonical SMILES.

Each attempt is bounded in number and never by the clock, so that a slow machine makes the same molecule as a fast one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from rdkit import Chem
from rdkit.Chem import rdDepictor, rdDistGeom
from rdkit.Chem.rdForceFieldHelpers import MMFFOptimizeMolecule

ATTEMPTS = 20
"""Starts of each embedding before the next is tried."""
GAP = 2.5
"""Angstrom between the extents of two parts, hydrogens included: about a contact."""


class Conformer(NamedTuple):
    symbols: tuple[str, ...]
    coords_A3: np.ndarray
    """(A, 3) float32."""
    made: str


def conformer(mol: Chem.Mol, *, seed: int) -> Conformer:
    """Coordinates for the heavy atoms of a molecule; the same molecule, atom order and seed give the same bytes.

    Args:
        mol: Sanitised, hydrogens implicit. It is not changed.
        seed: 0 to 2**31 - 1.
    """
    whole = Chem.AddHs(mol)
    embedding = next(name for name in ("etkdg", "etkdg-random", "etkdg-loose", "flat") if _embedded(whole, name, seed))
    coords_A3, made = whole.GetConformer().GetPositions(), embedding
    if embedding != "flat":
        parts = [list(part) for part in Chem.GetMolFrags(whole)]
        if not _refine(whole, coords_A3, parts):
            made += "-unrefined"
        if len(parts) > 1:
            _lay_apart(coords_A3, parts)
            made += "-apart"
    return kept(whole, coords_A3, made)


def kept(mol: Chem.Mol, coords_A3: np.ndarray, made: str) -> Conformer:
    """Without hydrogens of any isotope, unless there is nothing else."""
    symbols = [atom.GetSymbol() for atom in mol.GetAtoms()]
    keep = [i for i, symbol in enumerate(symbols) if symbol != "H"] or list(range(len(symbols)))
    return Conformer(tuple(symbols[i] for i in keep), np.ascontiguousarray(coords_A3[keep], dtype=np.float32), made)


def _embedded(whole: Chem.Mol, name: str, seed: int) -> bool:
    """Whether it has a conformer now."""
    if name == "flat":
        rdDepictor.Compute2DCoords(whole)
        return True
    parameters = rdDistGeom.ETKDGv3()
    parameters.randomSeed = seed
    parameters.maxIterations = ATTEMPTS
    parameters.numThreads = 1
    embedded = whole
    if name != "etkdg":
        parameters.useRandomCoords = True
    if name == "etkdg-loose":
        parameters.useExpTorsionAnglePrefs = False
        parameters.useBasicKnowledge = False
        parameters.useMacrocycleTorsions = False
        embedded = Chem.Mol(whole)
        Chem.RemoveStereochemistry(embedded)
    try:
        if rdDistGeom.EmbedMolecule(embedded, parameters) < 0:
            return False
    except (RuntimeError, ValueError):  # RDKit's ways to say that it has no bounds for such a molecule
        return False
    found = embedded.GetConformer()
    if not np.isfinite(found.GetPositions()).all():
        return False
    if embedded is not whole:
        whole.RemoveAllConformers()
        whole.AddConformer(found, assignId=True)
    return True


def _refine(whole: Chem.Mol, coords_A3: np.ndarray, parts: list[list[int]]) -> bool:
    """Move each part to where 200 steps of MMFF end, at rest or not; whether that was done to all that could gain."""
    mols = [whole] if len(parts) == 1 else Chem.GetMolFrags(whole, asMols=True)
    complete = True
    for mol, part in zip(mols, parts, strict=True):
        refined_P3 = _refined(mol)
        if refined_P3 is not None:
            coords_A3[part] = refined_P3
        elif sum(atom.GetAtomicNum() != 1 for atom in mol.GetAtoms()) > 1:
            complete = False
    return complete


def _refined(mol: Chem.Mol) -> np.ndarray | None:
    """``None`` where MMFF cannot be had."""
    try:
        if MMFFOptimizeMolecule(mol) < 0:
            return None
    except (RuntimeError, ValueError):
        return None
    coords_P3 = mol.GetConformer().GetPositions()
    return coords_P3 if np.isfinite(coords_P3).all() else None


def _lay_apart(coords_A3: np.ndarray, parts: list[list[int]]) -> None:
    """The parts side by side along x, each centred in y and z."""
    x = 0.0
    for part in parts:
        part_P3 = coords_A3[part] - coords_A3[part].mean(axis=0)
        low, high = part_P3[:, 0].min(), part_P3[:, 0].max()
        coords_A3[part] = part_P3 + np.array([x - low, 0.0, 0.0])
        x += high - low + GAP
