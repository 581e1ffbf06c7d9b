"""The embedded engine: a causal language model of transformers in this process, batching whatever is waiting."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import torch
import transformers

from flexreward.engines.base import Capabilities, Prompt, Sampling, begins
from flexreward.engines.batching import Job
from flexreward.engines.encoding import Encoder
from flexreward.engines.loading import Loaded, load
from flexreward.engines.patterns import Patterns
from flexreward.engines.processors import find_processor, processor_identity
from flexreward.engines.runner import Runner
from flexreward.engines.senses import check_width, read_senses
from flexreward.engines.towers import Towers
from flexreward.engines.worker import Worker
from flexreward.errors import ContextError, EngineError
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
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        processor: str | Path | None = None,
        decoder: Decoder | None = None,
        threads: int | None = None,
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        loaded = load(model, device=device, dtype=dtype, attention=attention)
        settings = find_processor(loaded.folder, loaded.config, processor)
        self.senses = read_senses(
            loaded.config,
            loaded.tokenizer,
            settings,
            decoder=decoder,
            min_pixels=min_pixels,
            max_pixels=max_pixels,
        )
        self.can = Capabilities(
            token_ids=True,
            prefix=True,
            logprobs=True,
            constrained=True,
            held_logprobs=True,
            counts=True,
            prompt_embeddings=True,
            modalities=frozenset({"text"}) | self.senses.kinds,
        )
        self.identity = {
            "engine": "transformers",
            "version": transformers.__version__,
            "torch": torch.__version__,
            "model": loaded.name,
            "weights": loaded.digest,
            "dtype": loaded.dtype,
            "attention": loaded.attention,
            **self.senses.identity,
            **processor_identity(loaded.folder, settings),
        }
        config = loaded.model.config.get_text_config()
        limits = (max_context, getattr(config, "max_position_embeddings", None))
        self.max_context = min((limit for limit in limits if limit), default=2**31)
        self.encoder = Encoder(loaded.tokenizer, name=str(model), slots=self.senses.slots)
        self.model = loaded.model
        """Shared with the thread that runs it: for weights and settings, not for calls beside those of ``generate``."""
        self.width = int(config.hidden_size)
        """Of a row of the model's input."""
        self.ends = _ends(loaded)
        num_tokens = loaded.model.get_output_embeddings().weight.shape[0]
        self._patterns = Patterns(loaded.tokenizer, self.encoder, num_tokens=num_tokens, ends=self.ends)
        self._worker = Worker(
            Runner(loaded.model, Towers(loaded.model, self.senses) if self.senses.kinds else None),
            self.encoder,
            self._patterns,
            ends=self.ends,
            batch_size=batch_size,
            prefill_size=prefill_size or (8 if loaded.model.device.type == "cpu" else 32),
        )
        # Also runs when the interpreter ends, so that no thread is inside the model by then.
        self._stop = weakref.finalize(self, self._worker.stop)

    def count_tokens(self, prompt: Prompt) -> int:
        """How many tokens the model reads of it, those of its media included, which are decoded for it."""
        shown = self.senses.shown_now(prompt.media)
        return len(self.encoder.encode(prompt, [one.width for one in shown]).ids)

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncIterator[Reply]:
        shown = await self.senses.shown(prompt.media)
        check_width(shown, self.width)
        encoded = self.encoder.encode(prompt, [one.width for one in shown])
        room = self.max_context - len(encoded.ids)
        if room < 1:
            raise ContextError(f"the prompt has {len(encoded.ids)} tokens, the model reads {self.max_context}")
        if sampling.pattern is not None:
            await asyncio.to_thread(self._patterns.check, sampling.pattern)
        loop = asyncio.get_running_loop()
        ended: asyncio.Queue[Reply | EngineError] = asyncio.Queue()

        def deliver(item: Reply | EngineError) -> None:
            with contextlib.suppress(RuntimeError):  # the caller's loop has ended, and nobody waits any more
                loop.call_soon_threadsafe(ended.put_nowait, item)

        # At temperature 0 all replies are one reply.
        num_drawn = sampling.n if sampling.temperature > 0 else 1
        job = Job(
            prompt=encoded,
            shown=shown,
            prefix=prompt.prefix,
            sampling=sampling,
            max_tokens=min(sampling.max_tokens, room),
            deliver=deliver,
            pending=[],
        )
        jobs = []
        try:
            for number in range(num_drawn):
                if begun := begins(number, sampling.at_once, num_drawn):
                    jobs.append(replace(job, pending=list(begun)))
                    self._worker.submit(jobs[-1])
                item = await ended.get()
                if isinstance(item, EngineError):
                    raise item
                if num_drawn == sampling.n:
                    yield item
                else:
                    for index in range(sampling.n):
                        yield replace(item, index=index)
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
