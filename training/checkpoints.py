"""A model on its way in and out: which class, type and attention it is loaded with, and the plain folder it ends in."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    PreTrainedModel,
)
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from flexreward.errors import RecipeError


def sees(name: str) -> bool:
    """Whether a model is shown images."""
    return hasattr(AutoConfig.from_pretrained(name), "vision_config")


def loader(name: str) -> Any:
    """The class that loads all of a model, its vision tower included."""
    return AutoModelForImageTextToText if sees(name) else AutoModelForCausalLM


def processing(name: str, *, max_pixels: int | None = None) -> Any:
    """What makes a model's inputs: its processor where it is shown images, else its tokenizer.

    Raises:
        RecipeError: The processor wants a library that is not here.
    """
    if not sees(name):
        return AutoTokenizer.from_pretrained(name)
    try:
        processor = AutoProcessor.from_pretrained(name)
    except ImportError as error:
        raise RecipeError(f"{name}: its processor needs more: {' '.join(str(error).split())[:120]}") from error
    if max_pixels is not None:
        processor.image_processor.size = replace(processor.image_processor.size, longest_edge=max_pixels)
    return processor


def attention_of(asked: str) -> str:
    """``auto``: flash attention 2 where it is installed and there is a GPU, else sdpa."""
    if asked != "auto":
        return asked
    return "flash_attention_2" if torch.cuda.is_available() and importlib.util.find_spec("flash_attn") else "sdpa"


def dtype_of(asked: str, method: str) -> str:
    """``auto``: bfloat16 for adapters on a GPU; full training adds updates far smaller than that could take up."""
    if asked != "auto":
        return asked
    return "bfloat16" if method == "lora" and torch.cuda.is_available() else "float32"


def whole_model(base: str, trained: Path, *, method: str, save_dtype: str, model_class: Any) -> PreTrainedModel:
    """The trained model as any engine loads it, ready to be saved: adapters merged, in the type of its base.

    Args:
        base: What the training began with.
        trained: What the trainer saved: the model, or adapters alone.
        model_class: Loads the base.
    """
    unset_hf_deepspeed_config()  # ZeRO-3 would split what one process loads over all of them
    base_dtype = AutoConfig.from_pretrained(base).dtype
    dtype = base_dtype or torch.float32 if save_dtype == "auto" else getattr(torch, save_dtype)
    if method == "full":
        return model_class.from_pretrained(trained, dtype=dtype)
    # Merged in full precision: the sum of two small numbers should be rounded once.
    model = model_class.from_pretrained(base, dtype=torch.float32)
    return PeftModel.from_pretrained(model, str(trained)).merge_and_unload().to(dtype)
