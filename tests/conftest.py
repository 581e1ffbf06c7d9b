"""Tiny models for every test that needs a checkpoint: made here, never fetched."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# Before torch is imported, here and in every program that a test starts: more threads than free cores stall the models.
os.environ.setdefault("OMP_NUM_THREADS", "1")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in the background deaf to ctrl-C, and so would be the commands that tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.register_profile("ci", deadline=None, derandomize=True)  # the same examples on every run of one commit
settings.register_profile("long", deadline=None, max_examples=5_000)  # HYPOTHESIS_PROFILE=long, to look for holes
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "untimed"))

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WORDS = (
    "system",
    "user",
    "assistant",
    "Ġassistant",
    "Ġthe",
    "Ġof",
    "Ġis",
    "answer",
    "think",
    "Question",
    "Ġdigits",
    "ĊĊ",
)


def tiny_tokenizer() -> Any:
    """A byte-level BPE over all bytes and a few words, with Qwen's special tokens and ChatML."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = sorted(pre_tokenizers.ByteLevel.alphabet())
    # Each word grows letter by letter. Written down, not trained: training breaks ties differently each time.
    merges = list(dict.fromkeys((word[:i], word[i]) for word in WORDS for i in range(1, len(word))))
    pieces += [left + right for left, right in merges]
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>"]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.add_tokens([AddedToken("<tool_call>", special=False, normalized=False)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = CHATML
    return fast


def tiny_checkpoint(folder: Path, *, seed: int = 0, **config: Any) -> Path:
    """A random Qwen2 model of two small layers with its tokenizer, saved in ``folder``."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = tiny_tokenizer()
    shape = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2ForCausalLM(Qwen2Config(**(shape | config)))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_adapter(model: Path, folder: Path, *, alpha: float = 16, merged: Path | None = None) -> Path:
    """A random LoRA adapter over ``model``, saved in ``folder``; ``merged`` gets the model that it makes of it."""
    import shutil
    import warnings

    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    layers = ["q_proj", "v_proj", "o_proj", "gate_proj", "down_proj"]
    config = LoraConfig(r=4, lora_alpha=alpha, target_modules=layers, init_lora_weights=False)
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        tuned = get_peft_model(AutoModelForCausalLM.from_pretrained(model), config)
        tuned.save_pretrained(folder)
        if merged is not None:
            shutil.copytree(model, merged)
            tuned.merge_and_unload().save_pretrained(merged)
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random model that every test may read."""
    return tiny_checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture
def make_checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """Makes tiny models of one's own: ``make_checkpoint("name", hidden_size=64)``."""

    def make(name: str = "model", **config: Any) -> Path:
        return tiny_checkpoint(tmp_path / name, **config)

    return make


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Path]:
    """``tiny(folder, **config)`` saves a tiny random model there."""
    return tiny_checkpoint


@pytest.fixture(scope="session")
def adapter() -> Callable[..., Path]:
    """``adapter(model, folder, merged=folder)`` saves a random adapter there, and what it makes of the model."""
    return tiny_adapter


@pytest.fixture
def tokenizer() -> Any:
    return tiny_tokenizer()


@pytest.fixture(scope="session")
def vl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random Qwen2.5-VL."""
    from tests.seeing import tiny_vl

    return tiny_vl(tmp_path_factory.mktemp("vl") / "vl")


@pytest.fixture(scope="session")
def omni(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random Qwen2.5-Omni, its thinker's weights under their prefix."""
    from tests.seeing import tiny_omni

    return tiny_omni(tmp_path_factory.mktemp("omni") / "omni")
