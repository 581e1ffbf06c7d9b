"""Model families that are shown media: their tokens, the parts of their configs, the layouts of their checkpoints.

A checkpoint of Qwen2.5-Omni comes whole (thinker, talker, vocoder; keys begin with ``thinker.``) or as its thinker
alone, with that prefix or without. Only the thinker judges, and nothing else is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flexreward.engines.encoding import Slot
from flexreward.errors import JudgeError


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Models of one architecture."""

    kinds: tuple[str, ...]
    """What they are shown besides text."""
    around: Mapping[str, tuple[str, str]]
    """The tokens before and after a medium, by kind."""
    base: str
    """Hub id of the model that others are tuned from: its processor is theirs."""
    model_class: str
    """Of transformers."""

    def thinker(self, config: Any) -> Any:
        """The part of a config that describes the towers and the text model."""
        return getattr(config, "thinker_config", config)

    def slots(self, config: Any, tokenizer: Any, *, name: str) -> dict[str, Slot]:
        """The tokens of each kind.

        Raises:
            JudgeError: The tokenizer lacks one of them.
        """
        return {kind: self._slot(kind, config, tokenizer, name) for kind in self.kinds}

    def _slot(self, kind: str, config: Any, tokenizer: Any, name: str) -> Slot:
        pad = getattr(self.thinker(config), f"{kind}_token_id")
        known = tokenizer.added_tokens_decoder
        around = tuple(tokenizer.convert_tokens_to_ids(token) for token in self.around[kind])
        for i, what in zip((*around, pad), (*self.around[kind], f"the pad of an {kind}"), strict=True):
            if i not in known:
                raise JudgeError(f"{name}: its tokenizer has no token for {what}; take the base model's tokenizer")
        return Slot((around[0],), pad, (around[1],))


VISION, OMNI_VISION = ("<|vision_start|>", "<|vision_end|>"), ("<|vision_bos|>", "<|vision_eos|>")
VL = Family(
    kinds=("image", "video"),
    around={"image": VISION, "video": VISION},
    base="Qwen/Qwen2.5-VL-7B-Instruct",
    model_class="Qwen2_5_VLForConditionalGeneration",
)
OMNI = Family(
    kinds=("image", "video", "audio"),
    around={"image": OMNI_VISION, "video": OMNI_VISION, "audio": ("<|audio_bos|>", "<|audio_eos|>")},
    base="Qwen/Qwen2.5-Omni-7B",
    model_class="Qwen2_5OmniThinkerForConditionalGeneration",
)
FAMILIES = {"qwen2_5_vl": VL, "qwen2_5_omni": OMNI, "qwen2_5_omni_thinker": OMNI}
"""By the ``model_type`` of a config."""


def family_of(config: Any) -> Family | None:
    """The family of a config's model; ``None`` for a model of text."""
    return FAMILIES.get(config.model_type)
