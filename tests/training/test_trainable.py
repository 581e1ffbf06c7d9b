import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from training.recipe import Lora
from training.trainable import add_lora, count, train_language_model


@pytest.fixture
def text_model(checkpoint):
    return AutoModelForCausalLM.from_pretrained(checkpoint)


@pytest.fixture
def vision_model():
    text = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    text |= {
        "num_key_value_heads": 1,
        "vocab_size": 64,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]},
    }
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision)
    return Qwen2_5_VLForConditionalGeneration(config)


def with_gradient(model) -> set[str]:
    ids = torch.arange(8)[None]
    model(input_ids=ids, labels=ids).loss.backward()
    return {name for name, parameter in model.named_parameters() if parameter.grad is not None}


def test_a_text_model_trains_whole(text_model):
    train_language_model(text_model)
    assert with_gradient(text_model) == {name for name, _ in text_model.named_parameters()}
    assert count(text_model).frozen == {}


def test_towers_are_frozen_and_the_language_model_is_not(vision_model):
    train_language_model(vision_model)
    assert with_gradient(vision_model) == {n for n, _ in vision_model.named_parameters() if ".visual." not in n}
    found = count(vision_model)
    assert set(found.trained) == {"language_model", "lm_head"}
    assert set(found.frozen) == {"visual"}


@pytest.mark.parametrize("kind", ["text_model", "vision_model"])
def test_adapters_train_in_the_decoder_and_nowhere_else(kind, request):
    model = add_lora(request.getfixturevalue(kind), Lora(rank=2))
    names = with_gradient(model)
    assert names
    assert all("lora_" in name and ".visual." not in name and "lm_head" not in name for name in names)
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in names} == {
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    }


def test_the_count_is_printed_by_part(text_model):
    train_language_model(text_model)
    total = sum(parameter.numel() for parameter in text_model.parameters())
    assert str(count(text_model)).startswith(f"trains {total:,} of {total:,} parameters: embed_tokens ")
    assert str(count(text_model)).endswith("; frozen: nothing")
