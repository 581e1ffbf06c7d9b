"""What is known of a checkpoint before vLLM runs it: how prompts are read, and what vLLM is started with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flexreward.engines import vllm_start
from flexreward.engines.adapter import Adapter
from flexreward.engines.base import Capabilities
from flexreward.engines.checkpoint import Checkpoint, read_checkpoint
from flexreward.engines.reading import Reader
from flexreward.engines.vllm_models import View
from flexreward.media.decoder import Decoder


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A checkpoint that vLLM can be started with."""

    reader: Reader
    can: Capabilities
    identity: dict[str, str]
    ends: frozenset[int]
    """Tokens that end a turn."""
    silenced: tuple[int, ...]
    """Tokens that are never written."""
    options: dict[str, Any]
    """What vLLM is started with."""
    can_sleep: bool
    max_logprobs: int
    adapter: Adapter | None
    view: View
    """To be closed once vLLM has ended."""


def open_checkpoint(
    model: str | Path,
    *,
    dtype: str = "auto",
    quantization: str | None = None,
    tensor_parallel: int = 1,
    max_context: int | None = None,
    lora: str | Path | None = None,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    processor: str | Path | None = None,
    decoder: Decoder | None = None,
    prompt_embeddings: bool = False,
    engine_args: Mapping[str, Any] | None = None,
) -> Opened:
    """Read ``model``; the arguments are those of ``VLLMEngine``.

    Raises:
        JudgeError: vLLM is not installed, or the checkpoint cannot be used.
        RecipeError: ``engine_args`` holds what has a name here.
    """
    cpu = vllm_start.on_cpu()
    import vllm

    checkpoint = read_checkpoint(model)
    adapter = None if lora is None else Adapter(Path(lora))
    reader = Reader(
        checkpoint.config,
        checkpoint.tokenizer,
        checkpoint.folder,
        name=str(model),
        max_context=min(max_context or checkpoint.max_context, checkpoint.max_context),
        processor=processor,
        decoder=decoder,
        min_pixels=min_pixels,
        max_pixels=max_pixels,
    )
    further = dict(engine_args or {})
    max_logprobs = further.get("max_logprobs", 20)
    view = View(checkpoint, reader.settings)
    options = vllm_start.arguments(
        view.folder,
        cpu=cpu,
        dtype=("float32" if cpu else "bfloat16") if dtype == "auto" else dtype,
        quantization=quantization,
        tensor_parallel=tensor_parallel,
        max_context=reader.max_context,
        lora_rank=adapter.rank if adapter else None,
        lora_layers=adapter.layers if adapter and prompt_embeddings else (),
        prompt_embeddings=prompt_embeddings,
        sees=bool(reader.senses.kinds),
        further=further,
    )
    if checkpoint.silenced:  # which vLLM reports with the others
        options["max_logprobs"] = max_logprobs + len(checkpoint.silenced)
    return Opened(
        reader=reader,
        can=reader.can(prompt_embeddings=prompt_embeddings),
        identity={
            **_identity(checkpoint, vllm.__version__, options["dtype"], quantization, adapter, further),
            **reader.identity,
        },
        ends=checkpoint.ends,
        silenced=checkpoint.silenced,
        options=options,
        can_sleep=not cpu and bool(further.get("enable_sleep_mode")),
        max_logprobs=max_logprobs,
        adapter=adapter,
        view=view,
    )


def _identity(
    checkpoint: Checkpoint,
    version: str,
    dtype: str,
    quantization: str | None,
    adapter: Adapter | None,
    further: Mapping[str, Any],
) -> dict[str, str]:
    identity = {"engine": "vllm", "version": version, "model": checkpoint.name, "weights": checkpoint.digest}
    identity["dtype"] = dtype
    if quantization:
        identity["quantization"] = quantization
    if adapter:
        identity["lora"] = adapter.digest
    if further:
        # Which of them change a reply, vLLM alone knows.
        identity["engine_args"] = json.dumps(further, sort_keys=True, default=str)
    return identity
