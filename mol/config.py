"""Sizes of Mol-LLaMA and of its parts. The defaults are those of the published weights.

Source: DongkiKim95/Mol-LLaMA at 8544da0, configs of its hub model; widths as read from the shapes of its tensors.
"""

from __future__ import annotations

from typing import Any, Self

from transformers import Blip2QFormerConfig, LlamaConfig, PreTrainedConfig

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers of every LLaMA layer, which carry LoRA."""


class MoleculeSTMConfig(PreTrainedConfig):
    """The 2D encoder (GIN of MoleculeSTM)."""

    model_type = "moleculestm"

    hidden_size: int = 300
    num_hidden_layers: int = 5


class UniMolConfig(PreTrainedConfig):
    """The 3D encoder (Uni-Mol, the weights without hydrogens of 2022-08-16)."""

    model_type = "unimol"

    hidden_size: int = 512
    intermediate_size: int = 2048
    num_hidden_layers: int = 15
    num_attention_heads: int = 64
    num_gaussians: int = 128
    num_symbols: int = 31
    """Lines of the dictionary and ``[MASK]``."""
    layer_norm_eps: float = 1e-5


class BlendingConfig(PreTrainedConfig):
    """Cross-attention between the tokens of both encoders."""

    model_type = "mol_llama_blending"

    hidden_size: int = 512
    """The larger width of the two encoders in the published weights."""
    num_hidden_layers: int = 4
    num_attention_heads: int = 8
    layer_norm_eps: float = 1e-5


class QFormerConfig(Blip2QFormerConfig):
    """The Q-Former (SciBERT's sizes). ``encoder_hidden_size`` is the width of what blending hands over."""

    model_type = "mol_llama_qformer"

    encoder_hidden_size: int = 512
    num_queries: int = 8


class LoraSettings(PreTrainedConfig):
    """LoRA on the LLaMA, by PEFT, under the adapter name ``default``."""

    model_type = "mol_llama_lora"

    r: int = 8
    alpha: int = 32
    dropout: float = 0.1

    @property
    def scale(self) -> float:
        """What ``B @ A`` is multiplied by before it is added to a weight."""
        return self.alpha / self.r


def _llama_3_1_8b() -> LlamaConfig:
    """Llama-3.1-8B-Instruct with the rows of ``[PAD]`` and ``<mol>``."""
    return LlamaConfig(
        vocab_size=128258,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=131072,
        rms_norm_eps=1e-5,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        bos_token_id=128000,
        eos_token_id=128009,
        pad_token_id=128256,
        tie_word_embeddings=False,
    )


PARTS: dict[str, Any] = {
    "moleculestm": MoleculeSTMConfig,
    "unimol": UniMolConfig,
    "blending": BlendingConfig,
    "qformer": QFormerConfig,
    "llm": LlamaConfig,
    "lora": LoraSettings,
}


class MolLlamaConfig(PreTrainedConfig):
    """All of Mol-LLaMA. Each part is a config of its own, or the dictionary of one; ``lora`` may be ``None``.

    Raises:
        ValueError: Two parts do not fit together; names both.
    """

    model_type = "mol_llama"
    sub_configs = PARTS

    moleculestm: dict[str, Any] | PreTrainedConfig | None = None
    unimol: dict[str, Any] | PreTrainedConfig | None = None
    blending: dict[str, Any] | PreTrainedConfig | None = None
    qformer: dict[str, Any] | PreTrainedConfig | None = None
    llm: dict[str, Any] | PreTrainedConfig | None = None
    lora: dict[str, Any] | PreTrainedConfig | None = None
    use_lora: bool = True
    """Whether there is an adapter; ``lora`` is ``None`` where not."""
    mol_token_id: int = 128257
    pad_token_id: int | None = 128256

    def __post_init__(self, **kwargs: Any) -> None:
        for name, kind in PARTS.items():
            given = getattr(self, name)
            if given is None:
                setattr(self, name, _llama_3_1_8b() if name == "llm" else kind())
            elif isinstance(given, dict):
                setattr(self, name, kind(**{k: v for k, v in given.items() if k != "model_type"}))
        if not self.use_lora:
            self.lora = None
        super().__post_init__(**kwargs)
        self._check()

    def _check(self) -> None:
        if self.qformer.encoder_hidden_size != self.blending.hidden_size:
            raise ValueError(
                f"qformer.encoder_hidden_size is {self.qformer.encoder_hidden_size}, expected the "
                f"{self.blending.hidden_size} of blending.hidden_size"
            )
        rows = self.llm.vocab_size
        for name in ("mol_token_id", "pad_token_id"):
            if getattr(self, name) is None or not 0 <= getattr(self, name) < rows:
                raise ValueError(f"{name} is {getattr(self, name)}, expected one of the {rows} of llm.vocab_size")

    def get_text_config(self, *args: Any, **kwargs: Any) -> PreTrainedConfig:
        """The LLaMA's: caches and trainers ask for it."""
        return self.llm

    @property
    def num_queries(self) -> int:
        """Rows of the LLaMA's input that stand for one molecule."""
        return self.qformer.num_queries

    @property
    def silenced(self) -> tuple[int, ...]:
        """Ids that are never written and never counted: their rows in the LM head were never trained."""
        return (self.pad_token_id, self.mol_token_id)

    @classmethod
    def tiny(cls, *, vocab_size: int = 512, lora: bool = True, **llm: Any) -> Self:
        """The real architecture at widths that a test can afford; ``[PAD]`` and ``<mol>`` are the last two ids.

        Args:
            llm: Fields of the LLaMA's config to set otherwise.
        """
        sizes: dict[str, Any] = {
            "vocab_size": vocab_size,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 1024,
            "rms_norm_eps": 1e-5,
            "initializer_range": 0.2,
            "tie_word_embeddings": False,
            "bos_token_id": None,
            "eos_token_id": None,
            "pad_token_id": vocab_size - 2,
        }
        return cls(
            moleculestm=MoleculeSTMConfig(hidden_size=12, num_hidden_layers=2),
            unimol=UniMolConfig(
                hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=4, num_gaussians=8
            ),
            blending=BlendingConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2),
            qformer=QFormerConfig(
                hidden_size=24,
                num_hidden_layers=3,
                num_attention_heads=2,
                intermediate_size=48,
                encoder_hidden_size=16,
                vocab_size=8,
            ),
            llm=LlamaConfig(**(sizes | llm)),
            lora=LoraSettings() if lora else None,
            use_lora=lora,
            mol_token_id=vocab_size - 1,
            pad_token_id=vocab_size - 2,
        )
