"""What every local engine does around its model: prompts in as token ids and media, replies out as they end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from flexreward.engines.base import Capabilities, Prompt, Sampling, begins
from flexreward.engines.encoding import Encoded, Encoder
from flexreward.engines.processors import find_processor, processor_identity
from flexreward.engines.senses import Shown, check_width, read_senses
from flexreward.errors import ContextError, EngineError
from flexreward.media.decoder import Decoder
from flexreward.types import Reply

Item: TypeAlias = Reply | EngineError
Deliver: TypeAlias = Callable[[Item], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A prompt as the model is shown it."""

    encoded: Encoded
    shown: tuple[Shown, ...]
    room: int
    """New tokens that the context leaves, at least 1."""


class Reader:
    """Reads prompts for one checkpoint.

    Args:
        config: transformers' config of the checkpoint.
        folder: The checkpoint's.
        name: What messages call it.
        max_context: Tokens of prompt and reply together.
        processor: Folder or hub id of a base model, for settings that the checkpoint came without.
        decoder: What decodes media; by default one that all engines share.
        bounds: ``min_pixels`` and ``max_pixels`` of an image, instead of the checkpoint's.

    Raises:
        JudgeError: The checkpoint lacks a token, a template or a file that this needs.
    """

    def __init__(
        self,
        config: Any,
        tokenizer: Any,
        folder: Path,
        *,
        name: str,
        max_context: int,
        processor: str | Path | None = None,
        decoder: Decoder | None = None,
        **bounds: int | None,
    ) -> None:
        self.settings = find_processor(folder, config, processor)
        """Where the settings of its image and sound processors are."""
        self.senses = read_senses(config, tokenizer, self.settings, decoder=decoder, **bounds)
        self.encoder = Encoder(tokenizer, name=name, slots=self.senses.slots)
        self.width = int(config.get_text_config().hidden_size)
        """Of a row of the model's input."""
        self.max_context = max_context
        self.identity = {**self.senses.identity, **processor_identity(folder, self.settings)}
        """What replies depend on besides the weights."""

    def can(self, *, prompt_embeddings: bool) -> Capabilities:
        """What an engine can do that reads by this."""
        return Capabilities(
            token_ids=True,
            prefix=True,
            logprobs=True,
            constrained=True,
            held_logprobs=True,
            counts=True,
            prompt_embeddings=prompt_embeddings,
            modalities=frozenset({"text"}) | self.senses.kinds,
        )

    def count_tokens(self, prompt: Prompt) -> int:
        """How many tokens the model reads of it, those of its media included, which are decoded for it."""
        shown = self.senses.shown_now(prompt.media)
        return len(self.encoder.encode(prompt, [one.width for one in shown]).ids)

    async def read(self, prompt: Prompt) -> Read:
        """Token ids, and media ready for the model's towers.

        Raises:
            ContextError: It leaves no room for a reply.
            RefusedError: A medium cannot be shown.
        """
        shown = await self.senses.shown(prompt.media)
        check_width(shown, self.width)
        encoded = self.encoder.encode(prompt, [one.width for one in shown])
        if (room := self.max_context - len(encoded.ids)) < 1:
            raise ContextError(f"the prompt has {len(encoded.ids)} tokens, the model reads {self.max_context}")
        return Read(encoded=encoded, shown=shown, room=room)


class Inbox:
    """Where a model's thread puts replies, for a generator on the event loop that made this."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Queue[Item] = asyncio.Queue()

    def put(self, item: Item) -> None:
        """From any thread."""
        with contextlib.suppress(RuntimeError):  # the caller's loop has ended, and nobody waits any more
            self._loop.call_soon_threadsafe(self._ended.put_nowait, item)

    async def replies(self, sampling: Sampling, begin: Callable[[range], None]) -> AsyncIterator[Reply]:
        """``sampling.n`` replies as they end.

        Args:
            begin: Starts those of these numbers; called when they are needed (see ``Sampling.at_once``).

        Raises:
            EngineError: One was put in.
        """
        # At temperature 0 all replies are one reply.
        num_drawn = sampling.n if sampling.temperature > 0 else 1
        for number in range(num_drawn):
            if begun := begins(number, sampling.at_once, num_drawn):
                begin(begun)
            item = await self._ended.get()
            if isinstance(item, EngineError):
                raise item
            if num_drawn == sampling.n:
                yield item
            else:
                for index in range(sampling.n):
                    yield replace(item, index=index)
