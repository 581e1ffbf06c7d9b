"""vLLM, run from here: its model lives in processes of its own, gets token ids and is asked for whole replies."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from flexreward.engines import vllm_start
from flexreward.engines.base import Prompt, Sampling
from flexreward.engines.loops import LoopThread
from flexreward.engines.reading import Deliver, Inbox
from flexreward.engines.vllm_models import View
from flexreward.engines.vllm_opening import open_checkpoint
from flexreward.engines.vllm_writing import Writer
from flexreward.errors import EngineError, RefusedError
from flexreward.media.decoder import Decoder
from flexreward.types import Reply


class VLLMEngine:
    """Runs a local folder or hub id with vLLM's AsyncLLM; see the Engine protocol.

    Args:
        model: Folder that ``save_pretrained`` wrote, or hub id.
        dtype: ``auto`` is float32 on the CPU, bfloat16 on a GPU.
        quantization: vLLM's name of a method (``fp8``, ``awq`` ...); by default what the checkpoint says.
        tensor_parallel: GPUs that share the model.
        max_context: Tokens of prompt and reply together; by default what the model's config says.
        lora: Folder of an adapter that peft saved, applied to every reply.
        min_pixels: Smallest image that is shown as it is, smaller ones being enlarged; by default the checkpoint's.
        max_pixels: The largest; larger ones are made smaller.
        processor: Folder or hub id of a base model, for the settings of image and sound processors that a checkpoint
            came without.
        decoder: What decodes media, and within which limits; by default one that all engines share.
        prompt_embeddings: Whether prompts may hold rows that stand for no token (``Embeddings``).
        engine_args: Further arguments of vLLM's ``AsyncEngineArgs``, such as ``gpu_memory_utilization``.

    Raises:
        JudgeError: vLLM is not installed, or cannot run this model.
        RecipeError: ``engine_args`` holds what vLLM does not know or what has a name here.
    """

    def __init__(
        self,
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
    ) -> None:
        opened = open_checkpoint(
            model,
            dtype=dtype,
            quantization=quantization,
            tensor_parallel=tensor_parallel,
            max_context=max_context,
            lora=lora,
            min_pixels=min_pixels,
            max_pixels=max_pixels,
            processor=processor,
            decoder=decoder,
            prompt_embeddings=prompt_embeddings,
            engine_args=engine_args,
        )
        self.reader = opened.reader
        self.can = opened.can
        self.ends = opened.ends
        self.options = opened.options
        """What vLLM was started with."""
        self.identity = opened.identity
        self.can_sleep = opened.can_sleep
        """Whether ``sleep`` frees the GPU: with ``engine_args: {enable_sleep_mode: true}``, never on a CPU."""
        self._under_way: set[Deliver] = set()
        self._loop = LoopThread("flexreward-vllm")
        try:
            self._llm = self._loop.submit(_start(self.options)).result()
        except BaseException:
            self._loop.stop()
            opened.view.close()
            raise
        self._writer = Writer(opened, self._llm)
        # Also runs when the interpreter ends; orphans.py is for when it is not asked.
        self._stop = weakref.finalize(self, _shut_down, self._llm, self._loop, opened.view)

    @property
    def max_context(self) -> int:
        """Tokens of prompt and reply together."""
        return self.reader.max_context

    def count_tokens(self, prompt: Prompt) -> int:
        """How many tokens the model reads of it, those of its media included, which are decoded for it."""
        return self.reader.count_tokens(prompt)

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncIterator[Reply]:
        self._writer.check(sampling)
        read = await self.reader.read(prompt)
        inbox = Inbox()
        works: list[Future[None]] = []

        def begin(numbers: range) -> None:
            works.append(self._loop.submit(self._writer.write(prompt, read, sampling, numbers, inbox.put)))

        self._under_way.add(inbox.put)
        try:
            async for reply in inbox.replies(sampling, begin):
                yield reply
        finally:
            self._under_way.discard(inbox.put)
            for work in works:
                work.cancel()

    async def sleep(self) -> None:
        """Let what is under way end, then free the GPU: weights go to main memory, keys and values are forgotten.

        Raises:
            RefusedError: This engine cannot (see ``can_sleep``).
        """
        await self._on_loop("sleep")

    async def wake(self) -> None:
        """Bring the weights back. Raises RefusedError where it cannot sleep."""
        await self._on_loop("wake_up")

    async def close(self) -> None:
        for deliver in tuple(self._under_way):
            deliver(EngineError("the engine was closed"))
        await asyncio.to_thread(self._stop)

    async def _on_loop(self, what: str) -> None:
        if not self.can_sleep:
            raise RefusedError(
                "this vLLM cannot sleep: that needs a GPU and engine_args: {enable_sleep_mode: true}; close the engine "
                "to free its memory"
            )
        work = self._llm.sleep(mode="wait") if what == "sleep" else self._llm.wake_up()
        await asyncio.wrap_future(self._loop.submit(work))


async def _start(options: Mapping[str, Any]) -> Any:
    return vllm_start.start(options)


def _shut_down(llm: Any, loop: LoopThread, view: View) -> None:
    llm.shutdown(timeout=2)
    loop.stop()
    view.close()
