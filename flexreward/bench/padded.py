"""The bundled judge in larger heads, with zeros: vLLM's attention on a CPU takes no heads of 48.

width                192 -> 256; the weights of a norm times sqrt(192 / 256), its epsilon times 192 / 256
heads of queries     48 -> 64, times sqrt(64 / 48), for attention divides by the root of a head's size
heads of keys        48 -> 64; the halves that rotary embedding pairs begin at 0 and at 32, no longer at 24
rotary base          to the power of 64 / 48, so that pair j of 32 turns as fast as pair j of 24 did
"""

from __future__ import annotations

from math import sqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

HEAD_SIZE = 64
"""vLLM 0.29 takes 32, 64, 80, 96, 112, 128 and more."""


def padded(model: str | Path, folder: Path, *, head_size: int = HEAD_SIZE) -> Path:
    """Write a Qwen2 checkpoint whose logits are those of ``model``, but for rounding, and whose heads are larger."""
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    old = Qwen2ForCausalLM.from_pretrained(model, dtype=torch.float32)
    config = old.config
    num_heads, num_kv_heads, width = config.num_attention_heads, config.num_key_value_heads, config.hidden_size
    head = width // num_heads
    fields = config.to_dict()
    fields |= {"hidden_size": num_heads * head_size, "rms_norm_eps": config.rms_norm_eps * head / head_size}
    rope: dict[str, Any] = dict(fields["rope_parameters"])
    fields["rope_parameters"] = rope | {"rope_theta": rope["rope_theta"] ** (head_size / head)}
    new = Qwen2ForCausalLM(Qwen2Config(**fields))
    into = new.state_dict()
    for name, weight in old.state_dict().items():
        into[name].copy_(_grown(name, weight, (num_heads, num_kv_heads), head, head_size, into[name].shape))
    new.generation_config = old.generation_config
    new.save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return folder


def _grown(name: str, weight: Tensor, heads: tuple[int, int], head: int, head_size: int, shape: torch.Size) -> Tensor:
    """One weight of the old shape in the new one. A linear map's weight is (out, in)."""
    if name.endswith("norm.weight"):
        weight = weight * sqrt(head / head_size)
    num_heads, num_kv_heads = heads
    if ".q_proj." in name:
        weight = _in_heads(weight * sqrt(head_size / head), num_heads, head, head_size, halves=2)
    elif ".k_proj." in name:
        weight = _in_heads(weight, num_kv_heads, head, head_size, halves=2)
    elif ".v_proj." in name:
        weight = _in_heads(weight, num_kv_heads, head, head_size, halves=1)
    elif ".o_proj." in name:
        weight = _in_heads(weight.T, num_heads, head, head_size, halves=1).T
    grown = weight.new_zeros(shape)
    grown[tuple(slice(size) for size in weight.shape)] = weight
    return grown


def _in_heads(weight: Tensor, num_heads: int, head: int, head_size: int, *, halves: int) -> Tensor:
    """Rows of each head, or of each half of it, followed by zeros up to the new size."""
    parts = weight.reshape(num_heads, halves, head // halves, *weight.shape[1:])
    grown = parts.new_zeros(num_heads, halves, head_size // halves, *weight.shape[1:])
    grown[:, :, : head // halves] = parts
    return grown.reshape(num_heads * head_size, *weight.shape[1:])
