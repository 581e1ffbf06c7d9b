"""MoleculeSTM's GIN: a molecule's bonds in, a token for every atom and one for the whole out.

Shapes: B molecules, V atoms of all molecules together, E bonds of all (each both ways), N tokens (1 + the atoms of the
largest molecule), D width.

Source: chao1224/MoleculeSTM (the weights); the forward pass as in DongkiKim95/Mol-LLaMA at 8544da0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from mol.config import MoleculeSTMConfig
from mol.encoders.frozen import Frozen

if TYPE_CHECKING:
    from mol.batch import MoleculeBatch

ATOM_ROWS = (119, 4, 12, 12, 10, 6, 6, 2, 2)
"""Values of each atom feature: atomic number, chirality, degree, charge, hydrogens, radicals, hybridisation, aromatic,
ring (OGB 1.3.5)."""
BOND_ROWS = (5, 6, 2)
"""Values of each bond feature: type, stereo, conjugated."""


class Tokens(NamedTuple):
    """What an encoder hands over."""

    tokens_BND: Tensor
    """(B, N, D), the encoder's dtype."""
    mask_BN: Tensor
    """(B, N) bool, true where there is a token."""


class MoleculeSTM(Frozen):
    """``MoleculeSTM(config)(batch)``: the mean over a molecule's atoms, then its atoms in the batch's order."""

    def __init__(self, config: MoleculeSTMConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.atoms = nn.ModuleList(nn.Embedding(rows, width) for rows in ATOM_ROWS)
        self.layers = nn.ModuleList(_Layer(width) for _ in range(config.num_hidden_layers))
        self.freeze()

    @torch.no_grad()
    def forward(self, batch: MoleculeBatch) -> Tokens:
        """Atoms without a bond see no message; padded tokens are 0."""
        states_VD = _summed(self.atoms, batch.nodes_V9)
        for i, layer in enumerate(self.layers):
            states_VD = layer(states_VD, batch.edges_2E, batch.bonds_E3)
            if i < len(self.layers) - 1:
                states_VD = states_VD.relu()
        return _dense(states_VD, batch.graph_V, len(batch))


class _Layer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.eps = nn.Parameter(torch.zeros(1))
        self.bonds = nn.ModuleList(nn.Embedding(rows, width) for rows in BOND_ROWS)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.BatchNorm1d(2 * width), nn.ReLU(), nn.Linear(2 * width, width)
        )
        self.norm = nn.BatchNorm1d(width)

    def forward(self, states_VD: Tensor, edges_2E: Tensor, bonds_E3: Tensor) -> Tensor:
        source_E, target_E = edges_2E
        messages_ED = (states_VD[source_E] + _summed(self.bonds, bonds_E3)).relu()
        heard_VD = torch.zeros_like(states_VD).index_add_(0, target_E, messages_ED)
        updated: Tensor = self.norm(self.mlp((1 + self.eps) * states_VD + heard_VD))
        return updated


def _summed(tables: nn.ModuleList, features: Tensor) -> Tensor:
    """The sum of one embedding per column."""
    return torch.stack([table(features[:, i]) for i, table in enumerate(tables)]).sum(0)


def _dense(states_VD: Tensor, graph_V: Tensor, num_molecules: int) -> Tokens:
    counts_B = torch.bincount(graph_V, minlength=num_molecules)
    starts_B = counts_B.cumsum(0) - counts_B
    places_V = torch.arange(len(graph_V), device=graph_V.device) - starts_B[graph_V]
    most = int(counts_B.max())
    tokens_BND = states_VD.new_zeros(num_molecules, 1 + most, states_VD.shape[1])
    tokens_BND[graph_V, 1 + places_V] = states_VD
    tokens_BND[:, 0] = tokens_BND[:, 1:].sum(1) / counts_B[:, None].clamp(min=1)
    mask_BN = torch.arange(1 + most, device=graph_V.device) <= counts_B[:, None]
    return Tokens(tokens_BND, mask_BN)
