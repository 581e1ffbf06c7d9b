"""Blending: the tokens of the 2D and of the 3D encoder read each other.

Shapes: B molecules, N tokens of one stream, M of the other, D width; 2D tokens come first wherever both stand together.

Source: Mol-LLaMA (arXiv 2502.13449), section 4; DongkiKim95/Mol-LLaMA at 8544da0.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mol.config import MolLlamaConfig
from mol.encoders.moleculestm import Tokens


class Blending(nn.Module):
    """``Blending(config)(two, three)``: the tokens of both streams behind each other, in one width, with their mask."""

    def __init__(self, config: MolLlamaConfig) -> None:
        super().__init__()
        width = config.blending.hidden_size
        self.inputs = nn.ModuleDict(
            {
                "moleculestm": nn.Linear(config.moleculestm.hidden_size, width),
                "unimol": nn.Linear(config.unimol.hidden_size, width),
            }
        )
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.blending.num_hidden_layers))

    def forward(self, two: Tokens, three: Tokens) -> Tokens:
        """Padded tokens are 0 in the result."""
        two = _masked(self.inputs["moleculestm"](two.tokens_BND), two.mask_BN)
        three = _masked(self.inputs["unimol"](three.tokens_BND), three.mask_BN)
        for block in self.blocks:
            two, three = block(two, three)
        return Tokens(
            torch.cat([two.tokens_BND, three.tokens_BND], dim=1), torch.cat([two.mask_BN, three.mask_BN], dim=1)
        )


class _Block(nn.Module):
    """Each stream reads itself; then 2D reads 3D, and 3D reads what became of 2D by that."""

    def __init__(self, config: MolLlamaConfig) -> None:
        super().__init__()
        self.two, self.three = _Unit(config), _Unit(config)
        self.two_from_three, self.three_from_two = _Unit(config), _Unit(config)

    def forward(self, two: Tokens, three: Tokens) -> tuple[Tokens, Tokens]:
        two, three = self.two(two, two), self.three(three, three)
        two = self.two_from_three(two, three)
        return two, self.three_from_two(three, two)


class _Unit(nn.Module):
    """Pre-LN attention with a norm for each of query, key and value, then an MLP. The residual is the query's as it
    came."""

    def __init__(self, config: MolLlamaConfig) -> None:
        super().__init__()
        width, eps = config.blending.hidden_size, config.blending.layer_norm_eps
        self.norm_query, self.norm_key, self.norm_value, self.norm_mlp = (
            nn.LayerNorm(width, eps=eps) for _ in range(4)
        )
        self.attention = nn.MultiheadAttention(width, config.blending.num_attention_heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, reader: Tokens, read: Tokens) -> Tokens:
        x_BND, y_BMD = reader.tokens_BND, read.tokens_BND
        seen_BND, _ = self.attention(
            self.norm_query(x_BND),
            self.norm_key(y_BMD),
            self.norm_value(y_BMD),
            key_padding_mask=~read.mask_BN,
            need_weights=False,
        )
        x_BND = x_BND + seen_BND
        return _masked(x_BND + self.mlp(self.norm_mlp(x_BND)), reader.mask_BN)


def _masked(tokens_BND: Tensor, mask_BN: Tensor) -> Tokens:
    return Tokens(tokens_BND * mask_BN[..., None], mask_BN)
