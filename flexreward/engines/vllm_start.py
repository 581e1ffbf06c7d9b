"""How vLLM is started: its arguments, for a GPU and for its CPU build, and what goes wrong in one line."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flexreward.engines import orphans, vllm_models
from flexreward.errors import JudgeError, RecipeError

GIB = 2**30
OURS = {"model": "model", "tokenizer": "model", "max_model_len": "max_context", "dtype": "dtype"} | {
    "quantization": "quantization",
    "tensor_parallel_size": "tensor_parallel",
    "enable_lora": "lora",
    "enable_prompt_embeds": "prompt_embeddings",
    "trust_remote_code": "a checkpoint in a format that vLLM knows: no code that one brings is run",
}
"""vLLM's arguments that have a name of their own here."""


def on_cpu() -> bool:
    """Whether this vLLM is a CPU build.

    Raises:
        JudgeError: vLLM is not installed, or cannot be imported.
    """
    # Read once, when vLLM is imported: its own lines are many, and commands print theirs.
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    try:
        from vllm.platforms import current_platform
    except ImportError as error:
        from flexreward.health import extra_command

        if error.name == "vllm":
            raise JudgeError(f"engine vllm: vLLM is not installed; {extra_command('vllm')}") from error
        raise JudgeError(f"engine vllm: vLLM cannot be imported ({error}); flexreward doctor looks for why") from error
    return bool(current_platform.is_cpu())


def arguments(
    folder: Path,
    *,
    cpu: bool,
    dtype: str,
    quantization: str | None,
    tensor_parallel: int,
    max_context: int,
    lora_rank: int | None,
    lora_layers: Sequence[str] = (),
    prompt_embeddings: bool = False,
    sees: bool = False,
    further: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything that ``AsyncEngineArgs`` is told. ``further`` is the user's own and goes before what we would choose.

    Raises:
        RecipeError: ``further`` holds what has a name here, or what the CPU build would die of.
    """
    for name in further:
        if name in OURS:
            raise RecipeError(f"engine vllm: engine_args: {name} is set another way here: {OURS[name]}")
    chosen: dict[str, Any] = {
        "enable_prefix_caching": True,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        # How replies are drawn is ours to say, not the checkpoint's.
        "generation_config": "vllm",
        # The library that holds replies to patterns in the embedded engine too, so that both write the same tokens.
        "structured_outputs_config": {"backend": "guidance"},
        "max_num_batched_tokens": None,
    }
    if cpu:
        # A seeded request whose prefill is cut into chunks takes the whole CPU engine down with it (vLLM 0.29): prompts
        # are read whole, so a batch must have room for the longest.
        chosen |= {
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(max_context, 8192),
            "enforce_eager": True,
            "block_size": 32,
        }
        if not os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
            chosen["kv_cache_memory_bytes"] = cache_bytes(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
        if further.get("enable_chunked_prefill"):
            raise RecipeError(
                "engine vllm: engine_args: enable_chunked_prefill kills the CPU build on a seeded request; leave it out"
            )
    if sees:
        # Room for the largest image that a checkpoint allows is hardly ever needed; a run of it takes minutes on a CPU.
        chosen["skip_mm_profiling"] = cpu
    if prompt_embeddings:
        chosen["enable_prompt_embeds"] = True
    if lora_rank is not None:
        chosen |= {"enable_lora": True, "max_lora_rank": _rank(lora_rank), "max_loras": 1}
        if prompt_embeddings:
            # Of a prompt with rows, vLLM 0.29 embeds the tokens alone, fewer than its adapted embedding layer
            # counts on, and dies of it. So only what the adapter adapts is wrapped.
            chosen["lora_target_modules"] = list(lora_layers)
    fixed = {
        "model": str(folder),
        "tokenizer": str(folder),
        "dtype": dtype,
        "quantization": quantization,
        "tensor_parallel_size": tensor_parallel,
        "max_model_len": max_context,
        "trust_remote_code": False,
    }
    return {**chosen, **further, **fixed}


def cache_bytes(memory: int) -> int:
    """Memory for keys and values on a CPU: an eighth of the machine's, from 1 to 8 GiB, in whole GiB."""
    return min(max(memory // 8 // GIB, 1), 8) * GIB


def prepare() -> None:
    """What must hold in a process before it starts vLLM, whoever starts it.

    Raises:
        JudgeError: vLLM's processes would not know our models.
    """
    if not vllm_models.installed():
        raise JudgeError(
            "engine vllm: flexreward runs from a folder that was not installed, so vLLM would not know its models; "
            "pip install -e that folder"
        )
    # A forked child would hold locks of threads that it does not have.
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"


def start(options: Mapping[str, Any]) -> Any:
    """An ``AsyncLLM`` that is ready, whose processes end with this one. Called on the loop that it will belong to.

    Raises:
        RecipeError: vLLM has no such argument.
        JudgeError: It cannot run this model here.
    """
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.async_llm import AsyncLLM

    prepare()
    known = AsyncEngineArgs.__dataclass_fields__
    if unknown := [name for name in options if name not in known]:
        raise RecipeError(f"engine vllm: engine_args: vLLM knows no argument {unknown[0]!r}")
    name = Path(options["model"]).name
    try:
        with orphans.owned(), vllm_models.allowed():
            # What vLLM chooses by itself it chooses for work that waits in plenty, as a judge's does.
            return AsyncLLM.from_engine_args(AsyncEngineArgs(**options), usage_context=UsageContext.LLM_CLASS)
    except (ValueError, RuntimeError, OSError, ImportError, NotImplementedError) as error:
        raise JudgeError(f"{name}: vLLM does not start with this model: {_one_line(error)}") from error


def _rank(rank: int) -> int:
    """The least rank that vLLM has kernels for and that holds the adapter's."""
    return next((known for known in (8, 16, 32, 64, 128, 256, 320, 512) if rank <= known), rank)


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # pydantic begins with a count of errors and the name of a class; what was wrong comes after.
    found = next((line for line in lines if "rror, " in line), lines[0] if lines else type(error).__name__)
    return found[:300]
