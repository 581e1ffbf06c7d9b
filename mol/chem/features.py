"""What the 2D encoder reads of an atom and of a bond: the tables of OGB 1.3.5, and the symbols that Uni-Mol knows.

N nodes, E directed edges.

A value is its place in its list, and the last place takes whatever the list does not name. Bond stereo alone has no
such place in the source, where an atropisomer's bond is an error. It is STEREONONE here: the RDKit that the encoder was
trained with read no atropisomers, and such a bond carried that tag.

Source: snap-stanford/ogb:ogb/utils/features.py at 1.3.5; dptech/Uni-Mol's ``mol.dict.txt``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from rdkit import Chem
from rdkit.Chem.rdchem import Atom, Bond, BondStereo, BondType, ChiralType, HybridizationType

Places = dict[Any, int]
"""From a value to its place; ``None`` stands for whatever has none."""


def _places(values: list[Any], *, misc: bool) -> Places:
    places = {value: place for place, value in enumerate(values)}
    places[None] = len(values) if misc else len(values) - 1
    return places


ATOMIC_NUMBER = _places(list(range(1, 119)), misc=True)
CHIRALITY = _places(
    [
        ChiralType.CHI_UNSPECIFIED,
        ChiralType.CHI_TETRAHEDRAL_CW,
        ChiralType.CHI_TETRAHEDRAL_CCW,
        ChiralType.CHI_OTHER,
    ],
    misc=False,
)
"""Square planar, trigonal bipyramidal and octahedral centres, which newer RDKit reads, are "other"."""
DEGREE = _places(list(range(11)), misc=True)
CHARGE = _places(list(range(-5, 6)), misc=True)
HYDROGENS = _places(list(range(9)), misc=True)
RADICALS = _places(list(range(5)), misc=True)
HYBRIDISATION = _places(
    [
        HybridizationType.SP,
        HybridizationType.SP2,
        HybridizationType.SP3,
        HybridizationType.SP3D,
        HybridizationType.SP3D2,
    ],
    misc=True,
)
BOND_TYPE = _places([BondType.SINGLE, BondType.DOUBLE, BondType.TRIPLE, BondType.AROMATIC], misc=True)
STEREO = _places(
    [
        BondStereo.STEREONONE,
        BondStereo.STEREOZ,
        BondStereo.STEREOE,
        BondStereo.STEREOCIS,
        BondStereo.STEREOTRANS,
        BondStereo.STEREOANY,
    ],
    misc=False,
)
STEREO[None] = STEREO[BondStereo.STEREONONE]

ATOM_SIZES = (119, 4, 12, 12, 10, 6, 6, 2, 2)
"""How many values each of the nine atom features takes: number, chirality, degree, charge, hydrogens, radical
electrons, hybridisation, aromatic, in a ring."""
BOND_SIZES = (5, 6, 2)
"""The same of the three bond features: type, stereo, conjugated."""

SYMBOLS = (
    *(
        "[PAD]",
        "[CLS]",
        "[SEP]",
        "[UNK]",
        "C",
        "N",
        "O",
        "S",
        "H",
        "Cl",
        "F",
        "Br",
        "I",
        "Si",
        "P",
        "B",
        "Na",
        "K",
        "Al",
    ),
    *("Ca", "Sn", "As", "Hg", "Fe", "Zn", "Cr", "Se", "Gd", "Au", "Li", "[MASK]"),
)
"""Uni-Mol's dictionary: a symbol's place is its token. Elements that it lacks are ``[UNK]``."""


def atom_features(atom: Atom) -> list[int]:
    """The nine places of an atom, each below its size in ``ATOM_SIZES``."""
    return [
        _place(ATOMIC_NUMBER, atom.GetAtomicNum()),
        _place(CHIRALITY, atom.GetChiralTag()),
        _place(DEGREE, atom.GetTotalDegree()),
        _place(CHARGE, atom.GetFormalCharge()),
        _place(HYDROGENS, atom.GetTotalNumHs()),
        _place(RADICALS, atom.GetNumRadicalElectrons()),
        _place(HYBRIDISATION, atom.GetHybridization()),
        int(atom.GetIsAromatic()),
        int(atom.IsInRing()),
    ]


def bond_features(bond: Bond) -> list[int]:
    """The three places of a bond, each below its size in ``BOND_SIZES``."""
    return [_place(BOND_TYPE, bond.GetBondType()), _place(STEREO, bond.GetStereo()), int(bond.GetIsConjugated())]


def graph(mol: Chem.Mol) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The 2D graph of a molecule as it is, without adding or dropping an atom.

    Returns:
        (N, 9) int64 atom features; (2, E) int64 sources and targets, each bond in both directions, one after the other;
        (E, 3) int64 bond features. Without bonds E is 0, and the shapes are (2, 0) and (0, 3).
    """
    atoms_N9 = np.array([atom_features(atom) for atom in mol.GetAtoms()], dtype=np.int64).reshape(-1, 9)
    edges: list[tuple[int, int]] = []
    bonds: list[list[int]] = []
    for bond in mol.GetBonds():
        begin, end = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        edges += [(begin, end), (end, begin)]
        bonds += [bond_features(bond)] * 2
    edges_2E = np.array(edges, dtype=np.int64).reshape(-1, 2).T.copy()
    return atoms_N9, edges_2E, np.array(bonds, dtype=np.int64).reshape(-1, 3)


def _place(places: Places, value: Any) -> int:
    return places.get(value, places[None])
