"""The embedded engine: a causal language model of transformers in this process, batching whatever is waiting."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import torch
import transformers

from flexreward.engines.adapter import Adapter
from flexreward.engines.base import Prompt, Sampling
from flexreward.engines.batching import Job
from flexreward.engines.loading import Loaded, load
from flexreward.engines.patterns import Patterns
from flexreward.engines.reading import Inbox, Reader
from flexreward.engines.runner import Runner
from flexreward.engines.towers import Towers
from flexreward.engines.worker import Worker
from flexreward.media.decoder import Decoder
from flexreward.types import Reply


class TransformersEngine:
    """Runs a local folder or hub id; see the Engine protocol.

    Args:
        model: Folder that ``save_pretrained`` wrote, or hub id.
        device: ``auto`` is the GPU where there is one.
        dtype: ``auto`` is float32 on the CPU, bfloat16 on a GPU.
        attention: ``auto`` is flash-attention 2 where it is installed and there is a GPU, else SDPA.
        batch_size: Replies written side by side.
        prefill_size: Prompts read together; by default 8 on the CPU, where more gain nothing, 32 on a GPU.
        max_context: Tokens of prompt and reply together; by default what the model's config says.
        lora: Folder of an adapter that peft saved, merged into the weights as they are loaded.
        min_pixels: Smallest image that is shown as it is, smaller ones being enlarged; by default the checkpoint's.
        max_pixels: The largest; larger ones are made smaller.
        processor: Folder or hub id of a base model, for the settings of image and sound processors that a checkpoint
            came without.
        decoder: What decodes media, and within which limits; by default one that all engines share.
        threads: Threads of torch for the whole process; by default torch's own choice.

    Raises:
        JudgeError: The model cannot be loaded, or has no chat template.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        device: str = "auto",
        dtype: str = "auto",
        attention: str = "auto",
        batch_size: int = 32,
        prefill_size: int | None = None,
        max_context: int | None = None,
        lora: str | Path | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        processor: str | Path | None = None,
        decoder: Decoder | None = None,
        threads: int | None = None,
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        adapter = None if lora is None else Adapter(Path(lora))
        loaded = load(model, device=device, dtype=dtype, attention=attention)
        if adapter is not None:
            loaded = replace(loaded, model=adapter.merged(loaded.model).eval())
        limits = (max_context, getattr(loaded.model.config.get_text_config(), "max_position_embeddings", None))
        self.reader = Reader(
            loaded.config,
            loaded.tokenizer,
            loaded.folder,
            name=str(model),
            max_context=min((limit for limit in limits if limit), default=2**31),
            processor=processor,
            decoder=decoder,
            min_pixels=min_pixels,
            max_pixels=max_pixels,
        )
        self.can = self.reader.can(prompt_embeddings=True)
        self.identity = {
            "engine": "transformers",
            "version": transformers.__version__,
            "torch": torch.__version__,
            "model": loaded.name,
            "weights": loaded.digest,
            "dtype": loaded.dtype,
            "attention": loaded.attention,
            **({} if adapter is None else {"lora": adapter.digest}),
            **self.reader.identity,
        }
        self.model = loaded.model
        """Shared with the thread that runs it: for weights and settings, not for calls beside those of ``generate``."""
        self.ends = _ends(loaded)
        num_tokens = loaded.model.get_output_embeddings().weight.shape[0]
        self._patterns = Patterns(loaded.tokenizer, self.reader.encoder, num_tokens=num_tokens, ends=self.ends)
        senses = self.reader.senses
        self._worker = Worker(
            Runner(
                loaded.model,
                Towers(loaded.model, senses) if senses.kinds else None,
                silenced=loaded.model.generation_config.suppress_tokens or (),
            ),
            self.reader.encoder,
            self._patterns,
            ends=self.ends,
            batch_size=batch_size,
            prefill_size=prefill_size or (8 if loaded.model.device.type == "cpu" else 32),
        )
        # Also runs when the interpreter ends, so that no thread is inside the model by then.
        self._stop = weakref.finalize(self, self._worker.stop)

    @property
    def max_context(self) -> int:
        """Tokens of prompt and reply together."""
        return self.reader.max_context

    def count_tokens(self, prompt: Prompt) -> int:
        """How many tokens the model reads of it, those of its media included, which are decoded for it."""
        return self.reader.count_tokens(prompt)

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncIterator[Reply]:
        read = await self.reader.read(prompt)
        if sampling.pattern is not None:
            await asyncio.to_thread(self._patterns.check, sampling.pattern)
        inbox = Inbox()
        job = Job(
            prompt=read.encoded,
            shown=read.shown,
            prefix=prompt.prefix,
            sampling=sampling,
            max_tokens=min(sampling.max_tokens, read.room),
            deliver=inbox.put,
            pending=[],
        )
        jobs: list[Job] = []

        def begin(numbers: range) -> None:
            jobs.append(replace(job, pending=list(numbers)))
            self._worker.submit(jobs[-1])

        try:
            async for reply in inbox.replies(sampling, begin):
                yield reply
        finally:
            for job in jobs:
                job.aborted = True

    async def close(self) -> None:
        await asyncio.to_thread(self._stop)
        self.model = None


def _ends(loaded: Loaded) -> frozenset[int]:
    """The tokens that end a turn: what the generation config, the model's and the tokenizer each call so."""
    found = (
        loaded.model.generation_config.eos_token_id,
        loaded.model.config.get_text_config().eos_token_id,
        loaded.tokenizer.eos_token_id,
    )
    return frozenset(i for ids in found if ids is not None for i in (ids if isinstance(ids, list) else [ids]))
