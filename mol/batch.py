"""Molecules -> one batch for both encoders.

B molecules, V nodes of all 2D graphs together, E directed edges of all, T tokens of the longest 3D input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from mol.chem.features import SYMBOLS
from mol.chem.molecule import Molecule

TOKENS = {symbol: token for token, symbol in enumerate(SYMBOLS)}
PAD, CLS, SEP, UNK = (TOKENS[f"[{name}]"] for name in ("PAD", "CLS", "SEP", "UNK"))
NUM_TOKENS = len(SYMBOLS)
MULTIPLE = 8
"""T is a multiple of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MoleculeBatch:
    """The graphs as one graph without edges between them, the 3D inputs as padded rows."""

    nodes_V9: Tensor
    """(V, 9) int64 atom features; molecule by molecule."""
    edges_2E: Tensor
    """(2, E) int64, from and to, rows of ``nodes_V9``."""
    bonds_E3: Tensor
    """(E, 3) int64 bond features."""
    graph_V: Tensor
    """(V,) int64, ascending: which molecule a node is of."""
    tokens_BT: Tensor
    """(B, T) int64: CLS, the element of each atom, SEP, then pad (0). T is a multiple of 8."""
    distances_BTT: Tensor
    """(B, T, T) float32, angstrom. CLS and SEP lie at the centroid. 0 on the diagonal and wherever a token is pad."""
    edge_types_BTT: Tensor
    """(B, T, T) int64: token of the row x 31 + token of the column; 0 wherever one of them is pad."""

    def __len__(self) -> int:
        return len(self.tokens_BT)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> MoleculeBatch:
        """The same batch on a device. Types stay: whole numbers, and distances in float32."""
        moved = {one.name: getattr(self, one.name).to(device, non_blocking=non_blocking) for one in fields(self)}
        return MoleculeBatch(**moved)


def collate(molecules: Sequence[Molecule]) -> MoleculeBatch:
    """One batch of molecules, in their order.

    Raises:
        ValueError: There are none.
    """
    if not molecules:
        raise ValueError("molecules: none were given, and a batch has at least one")
    counts = [len(molecule.atoms_N9) for molecule in molecules]
    starts = np.cumsum([0, *counts[:-1]])
    num_tokens = -(-max(len(molecule.symbols) + 2 for molecule in molecules) // MULTIPLE) * MULTIPLE
    tokens_BT = torch.full((len(molecules), num_tokens), PAD)
    coords_BT3 = torch.zeros(len(molecules), num_tokens, 3, dtype=torch.float64)
    for tokens_T, coords_T3, molecule in zip(tokens_BT, coords_BT3, molecules, strict=True):
        end = len(molecule.symbols) + 1
        tokens_T[: end + 1] = torch.tensor([CLS, *(TOKENS.get(one, UNK) for one in molecule.symbols), SEP])
        coords_A3 = torch.from_numpy(molecule.coords_A3.astype(np.float64))
        coords_T3[1:end] = coords_A3 - coords_A3.mean(dim=0)
    real_BTT = (tokens_BT != PAD)[:, :, None] & (tokens_BT != PAD)[:, None, :]
    # In float64 and by differences: so that a molecule far from the origin, or turned, has the same distances.
    distances_BTT = torch.cdist(coords_BT3, coords_BT3, compute_mode="donot_use_mm_for_euclid_dist").float()
    return MoleculeBatch(
        nodes_V9=torch.from_numpy(np.concatenate([molecule.atoms_N9 for molecule in molecules])),
        edges_2E=torch.from_numpy(
            np.concatenate([one.edges_2E + start for one, start in zip(molecules, starts, strict=True)], axis=1)
        ),
        bonds_E3=torch.from_numpy(np.concatenate([molecule.bonds_E3 for molecule in molecules])),
        graph_V=torch.repeat_interleave(torch.arange(len(molecules)), torch.tensor(counts)),
        tokens_BT=tokens_BT,
        distances_BTT=distances_BTT * real_BTT,
        edge_types_BTT=(tokens_BT[:, :, None] * NUM_TOKENS + tokens_BT[:, None, :]) * real_BTT,
    )
