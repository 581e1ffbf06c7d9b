"""Molecules side by side: one graph without edges between them, and padded rows of tokens."""

import numpy as np
import pytest
import torch

from mol.batch import CLS, PAD, SEP, UNK, collate
from mol.chem.molecule import Molecule


def molecule(symbols: str, coords: list[list[float]], edges: list[list[int]] | None = None) -> Molecule:
    """Atoms by symbol; a node of the graph for each, which holds its place."""
    names = tuple(symbols.split())
    edges_2E = np.array(edges or [[], []], dtype=np.int64)
    return Molecule(
        smiles=symbols,
        atoms_N9=np.repeat(np.arange(len(names))[:, None], 9, axis=1).astype(np.int64),
        edges_2E=edges_2E,
        bonds_E3=np.ones((edges_2E.shape[1], 3), dtype=np.int64),
        symbols=names,
        coords_A3=np.array(coords, dtype=np.float32),
        made="sdf",
        inchikey_block="",
    )


SODIUM = molecule("Na", [[5.0, 5.0, 5.0]])
CARBONYL = molecule("C O", [[0.0, 0.0, 0.0], [2.0, 0.0, 0.0]], [[0, 1], [1, 0]])
CHAIN = molecule("C C C C C U N", [[1.5 * i, 0.0, 0.0] for i in range(7)], [[0, 1, 5, 6], [1, 0, 6, 5]])


def test_graphs_become_one_graph_without_edges_between_them():
    batch = collate([CARBONYL, SODIUM, CHAIN])
    assert batch.nodes_V9[:, 0].tolist() == [0, 1, 0, 0, 1, 2, 3, 4, 5, 6]
    assert batch.graph_V.tolist() == [0, 0, 1, 2, 2, 2, 2, 2, 2, 2]
    assert batch.edges_2E.tolist() == [[0, 1, 3, 4, 8, 9], [1, 0, 4, 3, 9, 8]]
    assert (batch.graph_V[batch.edges_2E[0]] == batch.graph_V[batch.edges_2E[1]]).all()
    assert batch.bonds_E3.shape == (6, 3)


def test_tokens_are_padded_to_a_multiple_of_eight():
    batch = collate([CARBONYL, SODIUM, CHAIN])
    assert batch.tokens_BT.shape == (3, 16)
    assert batch.tokens_BT[0].tolist() == [CLS, 4, 6, SEP] + [PAD] * 12
    assert batch.tokens_BT[2].tolist() == [CLS, 4, 4, 4, 4, 4, UNK, 5, SEP] + [PAD] * 7
    assert collate([molecule("C C C C C C", [[float(i), 0, 0] for i in range(6)])]).tokens_BT.shape == (1, 8)


def test_cls_and_sep_lie_at_the_centroid():
    distances_TT = collate([CARBONYL]).distances_BTT[0]
    assert distances_TT[:4, :4].tolist() == [[0, 1, 1, 0], [1, 0, 2, 1], [1, 2, 0, 1], [0, 1, 1, 0]]


def test_an_edge_type_is_a_pair_of_tokens():
    types_TT = collate([CARBONYL]).edge_types_BTT[0]
    assert types_TT[1, 2] == 4 * 31 + 6
    assert types_TT[2, 1] == 6 * 31 + 4
    assert types_TT[0, 3] == CLS * 31 + SEP


def test_wherever_one_token_is_pad_distance_and_edge_type_are_0():
    batch = collate([CARBONYL, CHAIN])
    pad_BT = batch.tokens_BT == PAD
    pad_BTT = pad_BT[:, :, None] | pad_BT[:, None, :]
    assert (batch.distances_BTT[pad_BTT] == 0).all()
    assert (batch.edge_types_BTT[pad_BTT] == 0).all()
    assert (batch.edge_types_BTT[~pad_BTT] > 0).all()


def test_types_are_those_that_the_encoders_take():
    batch = collate([CARBONYL, SODIUM])
    whole = [batch.nodes_V9, batch.edges_2E, batch.bonds_E3, batch.graph_V, batch.tokens_BT, batch.edge_types_BTT]
    assert {tensor.dtype for tensor in whole} == {torch.int64}
    assert batch.distances_BTT.dtype == torch.float32


def test_molecules_without_bonds_have_empty_edges():
    batch = collate([SODIUM, SODIUM])
    assert (batch.edges_2E.shape, batch.bonds_E3.shape) == ((2, 0), (0, 3))
    assert batch.graph_V.tolist() == [0, 1]
    assert batch.distances_BTT.max() == 0


def test_a_batch_holds_what_its_members_hold_alone():
    molecules = [CHAIN, SODIUM, CARBONYL]
    batch = collate(molecules)
    for index, one in enumerate(molecules):
        alone, num = collate([one]), len(one.symbols) + 2
        assert (batch.tokens_BT[index, :num] == alone.tokens_BT[0, :num]).all()
        assert (batch.distances_BTT[index, :num, :num] == alone.distances_BTT[0, :num, :num]).all()
        assert (batch.edge_types_BTT[index, :num, :num] == alone.edge_types_BTT[0, :num, :num]).all()
        assert (batch.nodes_V9[batch.graph_V == index] == alone.nodes_V9).all()


def test_a_turned_and_moved_molecule_has_the_same_distances():
    rng = np.random.default_rng(0)
    coords_A3 = rng.normal(0, 5, (40, 3))
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    one, other = (
        collate([molecule("C " * 40, coords.tolist())]).distances_BTT
        for coords in (coords_A3, coords_A3 @ turn + [30.0, -20.0, 10.0])
    )
    assert (one - other).abs().max() < 2e-5


def test_a_batch_has_a_length_and_moves_whole():
    batch = collate([CARBONYL, SODIUM, CHAIN])
    assert len(batch) == 3
    moved = batch.to("meta")
    assert {getattr(moved, name).device.type for name in batch.__dataclass_fields__} == {"meta"}


def test_no_molecules_are_no_batch():
    with pytest.raises(ValueError, match=r"^molecules: none"):
        collate([])
