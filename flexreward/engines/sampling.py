"""Drawing tokens: each from its own seed, its reply's number and its place, so that batch mates change nothing.

Shapes: B rows, V tokens of the vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flexreward.engines.base import Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """One token to be drawn: of which sampling, for which reply, at which place."""

    sampling: Sampling
    reply: int
    place: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Odds:
    """Log-probabilities at one place, under the distribution at temperature 1."""

    logprob: float
    top: tuple[tuple[int, float], ...]


def uniform(seed: int, reply: int, place: int) -> float:
    """A number in [0, 1) that depends on the three and on nothing else, on every machine and in every version."""
    digest = hashlib.blake2b(f"{seed} {reply} {place}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 12) / 2**52


def draw(logits_BV: Tensor, draws: Sequence[Draw]) -> list[int]:
    """One token a row: the likeliest at temperature 0, else the one at the row's uniform number.

    In float64 and in the vocabulary's order: what a batch of another make-up changes in the last bits of the logits
    changes a token only where the number falls within those bits of a border.
    """
    sampled = [b for b, d in enumerate(draws) if d.sampling.temperature > 0]
    if len(sampled) < len(draws):
        tokens: list[int] = logits_BV.argmax(dim=-1).tolist()
    else:
        tokens = [0] * len(draws)
    if not sampled:
        return tokens

    def column(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=logits_BV.device)[:, None]

    some = [draws[b] for b in sampled]
    logits = (logits_BV if len(some) == len(draws) else logits_BV[sampled]).double()
    probs = (logits / column([d.sampling.temperature for d in some])).softmax(dim=-1)
    if any(d.sampling.top_p < 1 for d in some):
        probs = _nucleus(probs, column([d.sampling.top_p for d in some]))
    cumulative = probs.cumsum(dim=-1)
    numbers = column([uniform(d.sampling.seed, d.reply, d.place) for d in some])
    found = torch.searchsorted(cumulative, numbers * cumulative[:, -1:], right=True)
    for b, token in zip(sampled, found.clamp_(max=probs.shape[-1] - 1)[:, 0].tolist(), strict=True):
        tokens[b] = token
    return tokens


def _nucleus(probs_BV: Tensor, top_p_B1: Tensor) -> Tensor:
    """The likeliest tokens that together reach ``top_p``; the rest at 0. The likeliest one always stays."""
    ordered, order = probs_BV.sort(dim=-1, descending=True, stable=True)
    outside = ordered.cumsum(dim=-1) - ordered >= top_p_B1
    outside[:, 0] = False
    return probs_BV.masked_fill(torch.zeros_like(outside).scatter_(-1, order, outside), 0.0)


def odds(logits_BV: Tensor, tokens: Sequence[int], num_top: int) -> list[Odds]:
    """The log-probability of each row's token, and the ``num_top`` likeliest tokens with theirs, best first."""
    logprobs = logits_BV.float().log_softmax(dim=-1)
    chosen: list[float] = logprobs.gather(-1, torch.tensor(tokens, device=logprobs.device)[:, None])[:, 0].tolist()
    values, ids = logprobs.topk(min(num_top, logprobs.shape[-1]), dim=-1)
    tops = [tuple(zip(i, v, strict=True)) for i, v in zip(ids.tolist(), values.tolist(), strict=True)]
    return [Odds(logprob=logprob, top=top) for logprob, top in zip(chosen, tops, strict=True)]
