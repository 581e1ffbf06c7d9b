"""Tiny random models that are shown media: the real Qwen2.5-VL and Qwen2.5-Omni architectures, in every layout that
their checkpoints come in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np

from flexreward.engines.base import Placed, Prompt
from flexreward.media.intake import audio_of, image_of, video_of
from flexreward.types import Media
from tests.conftest import tiny_tokenizer

VlLayout = Literal["old", "new"]
OmniLayout = Literal["whole", "thinker", "bare"]

IMAGES = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "min_pixels": 56 * 56,
    "max_pixels": 224 * 224,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
}
TEXT = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "initializer_range": 0.2,
    "bos_token_id": None,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
}
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for part in m['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% elif 'video' in part['type'] %}VIDEO{% elif 'audio' in part['type'] %}AUDIO{% else %}IMAGE{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""With places for media in a turn, as the models' own templates have them."""
VISION = {"depth": 2, "hidden_size": 64, "intermediate_size": 96, "num_heads": 2, "window_size": 112}
OMNI_TOKENS = {
    "image_token": "<|IMAGE|>",
    "audio_token": "<|AUDIO|>",
    "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}


def tokenizer_with(tokens: list[str], **places: str) -> Any:
    """The tiny tokenizer with further special tokens, and a chat template that has these ``places`` for media."""
    from tokenizers import AddedToken

    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])
    tokenizer.chat_template = CHATML
    for kind, tokens_of in places.items():
        tokenizer.chat_template = tokenizer.chat_template.replace(kind.upper(), f"{{{{ '{tokens_of}' }}}}")
    return tokenizer


def tiny_vl(folder: Path, *, layout: VlLayout = "old", processor: bool = True, seed: int = 0) -> Path:
    """Qwen2.5-VL. ``old`` has the keys of Flex-VL-7B (``visual``, ``model.layers``), ``new`` those of later savings."""
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    tokenizer = tokenizer_with(
        ["<|vision_end|>", "<|image_pad|>", "<|video_pad|>"],
        image="<|vision_start|><|image_pad|><|vision_end|>",
        video="<|vision_start|><|video_pad|><|vision_end|>",
    )
    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("image_pad", "video_pad")}
    config = Qwen2_5_VLConfig(
        text_config=TEXT | _ends(tokenizer),
        vision_config=VISION | {"out_hidden_size": 128, "fullatt_block_indexes": [1], "initializer_range": 0.2},
        image_token_id=ids["image_pad"],
        video_token_id=ids["video_pad"],
        vision_start_token_id=tokenizer.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=tokenizer.convert_tokens_to_ids("<|vision_end|>"),
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(config)
    _save(
        model, config, folder, {"old": {"model.visual.": "visual.", "model.language_model.": "model."}}.get(layout, {})
    )
    tokenizer.save_pretrained(folder)
    if processor:
        images = IMAGES | {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor"}
        (folder / "preprocessor_config.json").write_text(json.dumps(images))
    return folder


def tiny_omni(folder: Path, *, layout: OmniLayout = "thinker", processor: bool = True, seed: int = 0) -> Path:
    """Qwen2.5-Omni. ``whole`` holds weights of a talker and a vocoder too, ``thinker`` the thinker's under their prefix
    in the whole model's config, ``bare`` those without a prefix in a thinker's config."""
    import torch
    from transformers import Qwen2_5OmniConfig, Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration

    tokenizer = tokenizer_with(
        list(OMNI_TOKENS.values()),
        image="<|vision_bos|><|IMAGE|><|vision_eos|>",
        video="<|vision_bos|><|VIDEO|><|vision_eos|>",
        audio="<|audio_bos|><|AUDIO|><|audio_eos|>",
    )
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in OMNI_TOKENS.items()}
    audio = {
        "num_mel_bins": 128,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 96,
        "d_model": 64,
        "output_dim": 128,
        "max_source_positions": 1500,
    }
    thinker = Qwen2_5OmniThinkerConfig(
        text_config=TEXT | _ends(tokenizer) | {"tie_word_embeddings": False},
        vision_config=VISION | {"out_hidden_size": 128, "fullatt_block_indexes": [1]},
        audio_config=audio,
        audio_token_index=ids["audio_token"],
        image_token_index=ids["image_token"],
        video_token_index=ids["video_token"],
        audio_start_token_id=ids["audio_bos_token"],
        audio_end_token_id=ids["audio_eos_token"],
        vision_start_token_id=ids["vision_bos_token"],
        vision_end_token_id=ids["vision_eos_token"],
        initializer_range=0.2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2_5OmniThinkerForConditionalGeneration(thinker)
    if layout == "bare":
        _save(model, thinker, folder, {})
    else:
        config = Qwen2_5OmniConfig(thinker_config=thinker.to_dict(), enable_audio_output=layout == "whole")
        config.architectures = ["Qwen2_5OmniModel"]
        more = {"talker.codec_head.weight", "token2wav.code2wav_bigvgan_model.conv_pre.weight"}
        _save(model, config, folder, {"": "thinker."}, {key: torch.zeros(2, 2) for key in more if layout == "whole"})
    tokenizer.save_pretrained(folder)
    about = folder / "tokenizer_config.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"extra_special_tokens": OMNI_TOKENS}))
    if processor:
        settings = IMAGES | {
            "image_processor_type": "Qwen2VLImageProcessor",
            "processor_class": "Qwen2_5OmniProcessor",
            "feature_extractor_type": "WhisperFeatureExtractor",
            "feature_size": 128,
            "chunk_length": 30,
            "n_samples": 480_000,
            "hop_length": 160,
            "sampling_rate": 16_000,
        }
        (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def _ends(tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _save(model: Any, config: Any, folder: Path, renamed: dict[str, str], more: dict[str, Any] | None = None) -> None:
    """Weights under other names, and the config beside them. A name is changed by the first beginning that it has."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)

    def name(key: str) -> str:
        found = next((old for old in renamed if key.startswith(old)), None)
        return key if found is None else renamed[found] + key.removeprefix(found)

    weights = {name(key): value.contiguous() for key, value in model.state_dict().items()}
    save_file(weights | (more or {}), folder / "model.safetensors", metadata={"format": "pt"})
    config.architectures = config.architectures or [type(model).__name__]
    config.save_pretrained(folder)


def noise(height: int, width: int, *, seed: int = 0) -> Media:
    """An image."""
    rng = np.random.default_rng(seed)
    return image_of(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def flicker(frames: int, *, fps: float = 1.5, seed: int = 0) -> Media:
    """A film of frames of 112 x 84."""
    rng = np.random.default_rng(seed)
    return video_of(rng.integers(0, 256, (frames, 84, 112, 3), dtype=np.uint8), fps=fps)


def hiss(seconds: float, *, seed: int = 0) -> Media:
    """A sound."""
    rng = np.random.default_rng(seed)
    return audio_of((rng.standard_normal(round(16_000 * seconds)) * 0.1).astype(np.float32), rate=16_000)


def shown(*media: Media, user: str = "Compare this and that, then score.", system: str = "You see.") -> Prompt:
    """A prompt with its media at different places, the last two of three side by side."""
    places = (8, 13, 13)
    return Prompt(system=system, user=user, media=tuple(map(Placed, places, media)))
