"""A tiny Mol-LLaMA with a LLaMA-3 tokenizer of its own, made here."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from mol.config import MolLlamaConfig
from mol.frame import SPECIAL
from mol.model import MolLlama
from mol.processing import MolLlamaProcessor

LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How LLaMA 3 cuts text into words. With it, text after a blank line is encoded as it is alone."""


def llama_tokenizer(*, words: tuple[str, ...] = ("system", "user", "assistant", "ĊĊ", "think")) -> Any:
    """Byte-level BPE with LLaMA-3's special tokens, without ``[PAD]`` and ``<mol>``, which are added later."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = list(dict.fromkeys((word[:i], word[i]) for word in words for i in range(1, len(word))))
    pieces += [left + right for left, right in merges]
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA_3), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL[:4]])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=SPECIAL[0], eos_token=SPECIAL[3])


def tiny_mol_llama(folder: Path, *, seed: int = 0, **config: Any) -> Path:
    """A random tiny Mol-LLaMA whose LoRA says something, saved in ``folder`` with its processor."""
    processor = MolLlamaProcessor(llama_tokenizer())
    sizes = MolLlamaConfig.tiny(
        vocab_size=len(processor.tokenizer), eos_token_id=processor.tokenizer.eos_token_id, **config
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        torch.manual_seed(seed)
        model = MolLlama(sizes).eval()
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
            if name in ("molecules.queries", "molecules.projection.weight"):
                torch.nn.init.normal_(parameter)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def mol_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny Mol-LLaMA that every test may read."""
    return tiny_mol_llama(tmp_path_factory.mktemp("mol") / "mol")


@pytest.fixture
def processor() -> MolLlamaProcessor:
    return MolLlamaProcessor(llama_tokenizer())
