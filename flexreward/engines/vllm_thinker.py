"""vLLM's Qwen2.5-Omni thinker, for checkpoints whose keys lack the prefix ``thinker.``: tuned alone and saved alone.

Imported in vLLM's processes only.
"""

from __future__ import annotations

from vllm.model_executor.models.qwen2_5_omni_thinker import Qwen2_5OmniThinkerForConditionalGeneration
from vllm.model_executor.models.utils import WeightsMapper


class OmniThinker(Qwen2_5OmniThinkerForConditionalGeneration):  # type: ignore[misc]  # vllm is not typed
    """Takes keys with the prefix or without."""

    hf_to_vllm_mapper = WeightsMapper(
        orig_to_new_prefix={
            **{f"{start}lm_head.": "language_model.lm_head." for start in ("thinker.", "")},
            **{f"{start}model.": "language_model.model." for start in ("thinker.", "")},
            "thinker.": "",
        }
    )
