"""The Q-Former: learned queries read a molecule's tokens.

The query path of the published one (LAVIS' BERT, as Mol-LLaMA uses it after its first stage) is transformers'
``Blip2QFormerModel`` number by number: cross-attention on even layers, queries without position, their own MLP.
"""

from __future__ import annotations

from transformers import Blip2QFormerModel

from mol.config import QFormerConfig


def build_qformer(config: QFormerConfig) -> Blip2QFormerModel:
    """With fresh weights. Text has no path through it, so ``use_qformer_text_input`` stays off."""
    return Blip2QFormerModel(config)
