"""Which parameters train: the language model whole or through adapters, and never anything else."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from training.recipe import Lora


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """Parameters by the part of the model that they belong to."""

    trained: dict[str, int]
    frozen: dict[str, int]

    def __str__(self) -> str:
        trained, frozen = sum(self.trained.values()), sum(self.frozen.values())
        parts = ", ".join(f"{name} {number:,}" for name, number in self.trained.items())
        still = ", ".join(f"{name} {number:,}" for name, number in self.frozen.items()) or "nothing"
        return f"trains {trained:,} of {trained + frozen:,} parameters: {parts}; frozen: {still}"


def train_language_model(model: PreTrainedModel) -> None:
    """Train the decoder, its embeddings and its head; freeze whatever else the model holds, such as vision towers."""
    model.requires_grad_(False)
    for part in _language_parts(model):
        part.requires_grad_(True)


def add_lora(model: PreTrainedModel, lora: Lora) -> PeftModel:
    """Freeze the model and put adapters on every linear layer of its decoder. The head and the embeddings get none."""
    return get_peft_model(model, lora_config(model, lora))


def lora_config(model: PreTrainedModel, lora: Lora) -> LoraConfig:
    """Where the adapters go, for a trainer that puts them there itself."""
    decoder = model.get_decoder()
    linear = {id(module) for module in decoder.modules() if isinstance(module, nn.Linear)}
    names = [name for name, module in model.named_modules() if id(module) in linear]
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        # Full names: a suffix such as "q_proj" would also match layers of the same name in a vision tower.
        target_modules=names,
        task_type="CAUSAL_LM",
    )


def count(model: nn.Module) -> Count:
    """How many parameters train and how many stay, tied ones once."""
    trained: Counter[str] = Counter()
    frozen: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        (trained if parameter.requires_grad else frozen)[_part(name)] += _size(parameter)
    return Count(trained=dict(trained), frozen=dict(frozen))


def _language_parts(model: PreTrainedModel) -> list[nn.Module]:
    parts = [model.get_decoder(), model.get_input_embeddings(), model.get_output_embeddings()]
    return [part for part in parts if part is not None]


def _size(parameter: nn.Parameter) -> int:
    # Under ZeRO-3 the tensor in hand is empty and the true size is beside it.
    return getattr(parameter, "ds_numel", parameter.numel())


def _part(name: str) -> str:
    """``base_model.model.model.layers.0.mlp.up_proj.lora_A.default.weight`` -> ``layers.lora``."""
    words = [word for word in name.split(".") if word not in ("base_model", "model", "base_layer")]
    return f"{words[0]}.lora" if any(word.startswith("lora_") for word in words) else words[0]
