"""Molecules put together by hand, without RDKit's embedding: random atoms at random places, joined in a ring."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mol.batch import MoleculeBatch, collate
from mol.chem.molecule import Molecule
from mol.encoders.moleculestm import ATOM_ROWS, BOND_ROWS

ELEMENTS = ("C", "N", "O", "S", "Cl", "F")


def molecule(num_atoms: int, *, seed: int = 0) -> Molecule:
    rng = np.random.default_rng([seed, num_atoms])
    ends = np.arange(num_atoms if num_atoms > 1 else 0)
    bonds = np.stack([ends, (ends + 1) % num_atoms])
    features = np.stack([rng.integers(rows, size=len(ends)) for rows in BOND_ROWS], axis=1)
    return Molecule(
        smiles=f"by hand {num_atoms} {seed}",
        atoms_N9=np.stack([rng.integers(rows, size=num_atoms) for rows in ATOM_ROWS], axis=1),
        edges_2E=np.concatenate([bonds, bonds[::-1]], axis=1),
        bonds_E3=np.concatenate([features, features]),
        symbols=tuple(rng.choice(ELEMENTS, size=num_atoms)),
        coords_A3=rng.normal(scale=2.0, size=(num_atoms, 3)).astype(np.float32),
        made="by hand",
        inchikey_block="BYHAND",
    )


def renumbered(one: Molecule, order_N: np.ndarray) -> Molecule:
    """The same molecule with atom ``order_N[i]`` in place ``i``."""
    places_N = np.argsort(order_N)
    return replace(
        one,
        atoms_N9=one.atoms_N9[order_N],
        edges_2E=places_N[one.edges_2E],
        symbols=tuple(one.symbols[i] for i in order_N),
        coords_A3=one.coords_A3[order_N],
    )


def moved(one: Molecule, *, turn_33: np.ndarray, shift_3: np.ndarray) -> Molecule:
    """The same molecule elsewhere in space."""
    return replace(one, coords_A3=(one.coords_A3 @ turn_33.T + shift_3).astype(np.float32))


def batch(*sizes: int) -> MoleculeBatch:
    return collate([molecule(size) for size in sizes])
