"""Uni-Mol: a molecule's elements and distances in, a token for every atom, the start and the end out.

Shapes: B molecules, T tokens (``[CLS]``, atoms, ``[SEP]``, padding), H heads, C width of a head, G Gaussians, D width,
P pairs of tokens.

The bias of every head and pair of tokens is a state of the model: what a layer makes of it, the next begins with.
It is the largest tensor by far (B, H, T, T), so there is one of it, updated in place, and whatever else has its shape
is made for some heads at a time. What the published code computes of it and throws away (norm losses, pair deltas) is
left out.

Source: dptech/Uni-Mol-Models (``mol_pre_no_h_220816.pt``); the forward pass as in DongkiKim95/Mol-LLaMA at 8544da0,
models/unimol/.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mol.config import UniMolConfig
from mol.encoders.frozen import Frozen
from mol.encoders.moleculestm import Tokens

if TYPE_CHECKING:
    from mol.batch import MoleculeBatch

PAD = 0
PI = 3.14159
"""As the weights were trained with."""
CHUNK = 1 << 18
"""Numbers in a temporary tensor, or an eighth of those of the bias where that is more: 1 MiB in float32, which stays in
a cache of a CPU."""


class UniMol(Frozen):
    """``UniMol(config)(batch)``: the states of all tokens, and which of them are no padding."""

    def __init__(self, config: UniMolConfig) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.layer_norm_eps
        self.embedding = nn.Embedding(config.num_symbols, width, padding_idx=PAD)
        self.norm_in = nn.LayerNorm(width, eps=eps)
        self.pairs = PairBias(config)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.num_hidden_layers))
        self.norm_out = nn.LayerNorm(width, eps=eps)
        self.freeze()

    @torch.no_grad()
    def forward(self, batch: MoleculeBatch) -> Tokens:
        """States of padded tokens are finite and mean nothing."""
        mask_BT = batch.tokens_BT != PAD
        states_BTD = self.norm_in(self.embedding(batch.tokens_BT)) * mask_BT[..., None]
        bias_BHTT = self.pairs(batch.distances_BTT, batch.edge_types_BTT)
        bias_BHTT.masked_fill_(~mask_BT[:, None, None], float("-inf"))
        for layer in self.layers:
            states_BTD = layer(states_BTD, bias_BHTT)
        return Tokens(self.norm_out(states_BTD), mask_BT)


class PairBias(nn.Module):
    """A bias for each head from the distance of two tokens, shifted and scaled by what the two are."""

    def __init__(self, config: UniMolConfig) -> None:
        super().__init__()
        gaussians, heads = config.num_gaussians, config.num_attention_heads
        self.means = nn.Parameter(torch.linspace(0, 3, gaussians)[None])
        self.stds = nn.Parameter(torch.linspace(0.5, 3, gaussians)[None])
        self.scale = nn.Parameter(torch.ones(config.num_symbols**2, 1))
        self.shift = nn.Parameter(torch.zeros(config.num_symbols**2, 1))
        self.hidden = nn.Linear(gaussians, gaussians)
        self.head = nn.Linear(gaussians, heads)

    def forward(self, distances_BTT: Tensor, edge_types_BTT: Tensor) -> Tensor:
        """(B, H, T, T) in the dtype of the weights.

        Args:
            distances_BTT: float32, angstrom.
            edge_types_BTT: int64, row token times the number of symbols plus column token.
        """
        B, T, _ = distances_BTT.shape
        H = self.head.out_features
        bias_BHTT = self.head.weight.new_empty(B, H, T, T)
        rows = max(1, _chunk(bias_BHTT) // (T * self.means.shape[1]))
        molecules, rows = (max(1, rows // T), T) if rows >= T else (1, rows)
        for b in range(0, B, molecules):
            for i in range(0, T, rows):
                here = (slice(b, b + molecules), slice(i, i + rows))
                found = self._bias(distances_BTT[here], edge_types_BTT[here])
                bias_BHTT[b : b + molecules, :, i : i + rows] = found.movedim(-1, 1)
        return bias_BHTT

    def _bias(self, distances_P: Tensor, edge_types_P: Tensor) -> Tensor:
        # Squares and exponentials lose too much in half precision.
        moved_P1 = self.scale.float()[edge_types_P] * distances_P.float()[..., None] + self.shift.float()[edge_types_P]
        stds_G = self.stds.float().abs()[0] + 1e-5
        # One tensor of this size, written over step by step.
        basis_PG = (moved_P1 - self.means.float()[0]).div_(stds_G).square_().mul_(-0.5).exp_()
        basis_PG.div_(sqrt(2 * PI) * stds_G)
        bias_PH: Tensor = self.head(F.gelu(self.hidden(basis_PG.to(self.hidden.weight.dtype))))
        return bias_PH


class _Layer(nn.Module):
    def __init__(self, config: UniMolConfig) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.layer_norm_eps
        self.num_heads = config.num_attention_heads
        self.norm_attention = nn.LayerNorm(width, eps=eps)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width, eps=eps)
        self.up = nn.Linear(width, config.intermediate_size)
        self.down = nn.Linear(config.intermediate_size, width)

    def forward(self, states_BTD: Tensor, bias_BHTT: Tensor) -> Tensor:
        """The new states. ``bias_BHTT`` becomes the next layer's: this layer's logits before the softmax."""
        states_BTD = states_BTD + self.out(self._attended(self.norm_attention(states_BTD), bias_BHTT))
        return states_BTD + self.down(F.gelu(self.up(self.norm_mlp(states_BTD))))

    def _attended(self, states_BTD: Tensor, bias_BHTT: Tensor) -> Tensor:
        B, T, D = states_BTD.shape
        H = self.num_heads
        qkv = self.qkv(states_BTD).view(B, T, 3, H, D // H).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.reshape(3, B * H, T, D // H)
        # Of B * H pairs of molecule and head, some at a time; a view, so the bias itself is updated.
        logits = bias_BHTT.view(B * H, T, T)
        seen = torch.empty_like(value)
        step = max(1, _chunk(bias_BHTT) // (T * T))
        for i in range(0, B * H, step):
            some = slice(i, i + step)
            logits[some].baddbmm_(query[some], key[some].transpose(1, 2), alpha=(D // H) ** -0.5)
            torch.bmm(logits[some].softmax(-1), value[some], out=seen[some])
        return seen.view(B, H, T, D // H).transpose(1, 2).reshape(B, T, D)


def _chunk(bias_BHTT: Tensor) -> int:
    return max(CHUNK, bias_BHTT.numel() // 8)
