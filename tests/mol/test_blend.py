import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from mol.blend import Blending
from mol.config import MolLlamaConfig
from mol.encoders.moleculestm import Tokens

CONFIG = MolLlamaConfig.tiny()


@pytest.fixture(scope="module")
def blending():
    torch.manual_seed(0)
    return Blending(CONFIG).eval()


def tokens(width, *lengths, seed=0):
    rng = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return Tokens(torch.randn(len(lengths), max(lengths), width, generator=rng), mask)


def unit_by_the_book(unit, x, y):
    """Source: reference section 1.3, one molecule without padding, a loop over heads."""
    width, heads = x.shape[-1], CONFIG.blending.num_attention_heads
    weights, biases = unit.attention.in_proj_weight.chunk(3), unit.attention.in_proj_bias.chunk(3)
    given = (unit.norm_query(x), unit.norm_key(y), unit.norm_value(y))
    q, k, v = (F.linear(one, w, b) for one, w, b in zip(given, weights, biases, strict=True))
    size = width // heads
    read = [
        (q[:, i : i + size] @ k[:, i : i + size].T / size**0.5).softmax(-1) @ v[:, i : i + size]
        for i in range(0, width, size)
    ]
    x = x + unit.attention.out_proj(torch.cat(read, dim=-1))
    return x + unit.mlp(unit.norm_mlp(x))


def test_3d_reads_the_2d_that_has_read_3d_and_2d_comes_first(blending):
    two, three = tokens(12, 4), tokens(16, 6, seed=1)
    x, y = blending.inputs["moleculestm"](two.tokens_BND[0]), blending.inputs["unimol"](three.tokens_BND[0])
    for block in blending.blocks:
        x, y = unit_by_the_book(block.two, x, x), unit_by_the_book(block.three, y, y)
        x = unit_by_the_book(block.two_from_three, x, y)
        y = unit_by_the_book(block.three_from_two, y, x)
    with torch.no_grad():
        blended = blending(two, three)
    assert_close(blended.tokens_BND[0], torch.cat([x, y]), atol=1e-5, rtol=0)


def test_padding_is_not_read_and_stays_zero(blending):
    two, three = tokens(12, 4, 2), tokens(16, 3, 6, seed=1)
    with torch.no_grad():
        together = blending(two, three)
        alone = blending(
            Tokens(two.tokens_BND[1:, :2], two.mask_BN[1:, :2]), Tokens(three.tokens_BND[1:], three.mask_BN[1:])
        )
    assert together.mask_BN[1].tolist() == [True] * 2 + [False] * 2 + [True] * 6
    assert together.tokens_BND[1, 2:4].abs().max() == 0
    assert_close(together.tokens_BND[1][together.mask_BN[1]], alone.tokens_BND[0], atol=1e-5, rtol=0)
