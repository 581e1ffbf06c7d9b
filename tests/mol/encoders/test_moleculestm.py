import numpy as np
import pytest
import torch
from torch.testing import assert_close

from mol.batch import collate
from mol.config import MolLlamaConfig
from mol.encoders.moleculestm import MoleculeSTM
from tests.mol.hand import batch, molecule, renumbered


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    encoder = MoleculeSTM(MolLlamaConfig.tiny().moleculestm)
    for name, buffer in encoder.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 2)
    return encoder


def test_a_batch_is_what_its_members_are(encoder):
    sizes = (5, 1, 9, 2)
    together = encoder(batch(*sizes))
    for i, size in enumerate(sizes):
        alone = encoder(batch(size))
        assert_close(together.tokens_BND[i, : size + 1], alone.tokens_BND[0], atol=1e-5, rtol=0)
        assert together.mask_BN[i].tolist() == [True] * (size + 1) + [False] * (9 - size)


def test_the_first_token_is_the_mean_over_the_atoms_and_padding_is_zero(encoder):
    tokens = encoder(batch(3, 6)).tokens_BND
    assert_close(tokens[0, 0], tokens[0, 1:4].mean(0))
    assert tokens[0, 4:].abs().max() == 0


def test_atoms_in_another_order_give_their_states_in_that_order(encoder):
    order = np.random.default_rng(1).permutation(7)
    before = encoder(collate([molecule(7)])).tokens_BND[0]
    after = encoder(collate([renumbered(molecule(7), order)])).tokens_BND[0]
    assert_close(after[0], before[0], atol=1e-5, rtol=0)
    assert_close(after[1:], before[1:][torch.from_numpy(order)], atol=1e-5, rtol=0)


def test_one_layer_by_the_book(encoder):
    """Source: reference section 1.1, written with loops over atoms and bonds."""
    one = molecule(4)
    given = collate([one])
    layer = encoder.layers[0]
    states = [sum(table.weight[row] for table, row in zip(encoder.atoms, atom, strict=True)) for atom in one.atoms_N9]
    heard = [torch.zeros_like(states[0]) for _ in states]
    for (source, target), bond in zip(one.edges_2E.T, one.bonds_E3, strict=True):
        edge = sum(table.weight[row] for table, row in zip(layer.bonds, bond, strict=True))
        heard[target] = heard[target] + (states[source] + edge).relu()
    book = layer.norm(layer.mlp(torch.stack([(1 + layer.eps) * s + h for s, h in zip(states, heard, strict=True)])))
    alone = MoleculeSTM.forward.__wrapped__
    encoder_of_one = MoleculeSTM(MolLlamaConfig.tiny().moleculestm)
    encoder_of_one.atoms, encoder_of_one.layers = encoder.atoms, encoder.layers[:1]
    assert_close(alone(encoder_of_one, given).tokens_BND[0, 1:], book)


def test_training_the_model_around_it_changes_nothing(encoder):
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    encoder.train()
    encoder(batch(5, 6))
    assert not encoder.training
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
