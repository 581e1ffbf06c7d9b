from math import pi, sqrt

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from mol.batch import collate
from mol.config import MolLlamaConfig, UniMolConfig
from mol.encoders import unimol
from mol.encoders.unimol import UniMol
from tests.mol.hand import batch, molecule, moved, renumbered


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    encoder = UniMol(MolLlamaConfig.tiny().unimol)
    encoder.pairs.scale.uniform_(0.5, 1.5)
    encoder.pairs.shift.normal_()
    return encoder


def keeping_every_pair(encoder, given):
    """Reference section 1.2 as it reads, with a new pair tensor for every step; and all of those tensors."""
    heads = encoder.layers[0].num_heads
    mask = given.tokens_BT != 0
    pairs = encoder.pairs
    moved = pairs.scale[given.edge_types_BTT] * given.distances_BTT[..., None] + pairs.shift[given.edge_types_BTT]
    stds = pairs.stds.abs() + 1e-5
    basis = torch.exp(-0.5 * ((moved - pairs.means) / stds) ** 2) / (sqrt(2 * 3.14159) * stds)
    bias = pairs.head(F.gelu(pairs.hidden(basis))).permute(0, 3, 1, 2)
    bias = bias.masked_fill(~mask[:, None, None], float("-inf"))
    kept = [moved, basis, bias]
    states = encoder.norm_in(encoder.embedding(given.tokens_BT)) * mask[..., None]
    for layer in encoder.layers:
        B, T, D = states.shape
        query, key, value = layer.qkv(layer.norm_attention(states)).chunk(3, dim=-1)
        query, key, value = (x.view(B, T, heads, D // heads).transpose(1, 2) for x in (query, key, value))
        bias = query * (D // heads) ** -0.5 @ key.transpose(2, 3) + bias
        weights = bias.softmax(-1)
        kept += [bias, weights]
        states = states + layer.out((weights @ value).transpose(1, 2).reshape(B, T, D))
        states = states + layer.down(F.gelu(layer.up(layer.norm_mlp(states))))
    return encoder.norm_out(states), kept


def test_the_forward_pass_is_the_one_of_the_reference(encoder):
    given = batch(5, 11)
    tokens, mask = encoder(given)
    assert_close(tokens[mask], keeping_every_pair(encoder, given)[0][mask], atol=1e-5, rtol=0)


@pytest.mark.parametrize("chunk", [1, 200, 5000])
def test_how_much_is_done_at_once_changes_nothing(encoder, monkeypatch, chunk):
    given = batch(5, 11, 3)
    tokens, mask = encoder(given)
    monkeypatch.setattr(unimol, "_chunk", lambda bias: chunk)
    assert_close(encoder(given).tokens_BND[mask], tokens[mask], atol=1e-6, rtol=0)


def test_a_batch_is_what_its_members_are(encoder):
    sizes = (5, 1, 19, 2)
    together = encoder(batch(*sizes))
    for i, size in enumerate(sizes):
        alone = encoder(batch(size))
        assert_close(
            together.tokens_BND[i, : size + 2], alone.tokens_BND[0, : size + 2], atol=1e-5, rtol=0, msg=f"{size} atoms"
        )
        assert together.mask_BN[i].sum() == size + 2


def test_atoms_in_another_order_give_their_states_in_that_order(encoder):
    order = np.random.default_rng(1).permutation(9)
    before = encoder(collate([molecule(9)])).tokens_BND[0]
    after = encoder(collate([renumbered(molecule(9), order)])).tokens_BND[0]
    assert_close(after[[0, 10]], before[[0, 10]], atol=1e-5, rtol=0)
    assert_close(after[1:10], before[1:10][torch.from_numpy(order)], atol=1e-5, rtol=0)


def test_where_a_molecule_lies_and_how_it_is_turned_does_not_matter(encoder):
    turn, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))
    before = encoder(collate([molecule(9)])).tokens_BND
    after = encoder(collate([moved(molecule(9), turn_33=turn, shift_3=np.array([30.0, -7.0, 2.0]))])).tokens_BND
    assert_close(after[:, :11], before[:, :11], atol=1e-5, rtol=0)


def test_a_distance_matters(encoder):
    stretched = moved(molecule(9), turn_33=np.diag([1.0, 1.0, 1.2]), shift_3=np.zeros(3))
    assert not torch.allclose(encoder(collate([stretched])).tokens_BND, encoder(batch(9)).tokens_BND, atol=1e-3)


def test_pi_is_the_one_that_the_weights_were_trained_with():
    assert unimol.PI == 3.14159
    assert pi - unimol.PI > 1e-6


def test_in_half_precision_distances_are_still_seen_in_full(encoder):
    given = batch(9)
    before = encoder.pairs(given.distances_BTT, given.edge_types_BTT)
    half = UniMol(MolLlamaConfig.tiny().unimol)
    half.load_state_dict(encoder.state_dict())
    after = half.bfloat16().pairs(given.distances_BTT, given.edge_types_BTT)
    assert after.dtype == torch.bfloat16
    assert_close(after.float(), before, atol=0.05, rtol=0.05)


def test_memory_is_at_most_half_of_keeping_every_pair_tensor():
    config = UniMolConfig(num_hidden_layers=4, hidden_size=64, intermediate_size=64, num_attention_heads=16)
    encoder = UniMol(config)
    given = collate([molecule(190), molecule(180)])
    with torch.no_grad():
        _, kept = keeping_every_pair(encoder, given)
    naive = sum(tensor.nbytes for tensor in kept)
    with Peak() as peak:
        encoder(given)
    assert peak.bytes < naive / 2


class Peak:
    """The most memory of tensors made within, by what torch's own allocator reports."""

    def __enter__(self):
        self._profile = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True)
        self._profile.__enter__()
        return self

    def __exit__(self, *error):
        self._profile.__exit__(*error)
        events = [e for e in self._profile.profiler.kineto_results.events() if e.name() == "[memory]"]
        now = self.bytes = 0
        for event in sorted(events, key=lambda e: e.start_ns()):
            now += event.nbytes()
            self.bytes = max(self.bytes, now)
