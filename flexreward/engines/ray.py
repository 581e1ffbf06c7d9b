"""A model behind a Ray Serve handle: prompts go out, replies come back as they end, whichever copy writes them."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from flexreward import errors
from flexreward.engines.base import Capabilities, Prompt, Sampling
from flexreward.errors import EngineError
from flexreward.types import Reply

TRIES = 6
"""Copies that may die under one request before it fails."""
PAUSE_S = 0.1
"""Before the next try; it grows with each."""
KEY_CHARS = 256
SHARED: ContextVar[str] = ContextVar("flexreward-shared", default="")
"""What the prompts of one task have in common, such as the digest of a policy's prompt and its media: they go to one
copy, as far as its load allows, which has read the beginning already."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a copy says of the model that it runs."""

    can: Capabilities
    identity: dict[str, str]
    max_context: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """What came in place of further replies. A value: an exception would come back with a foreign traceback."""

    kind: str
    """Name of the class in ``flexreward.errors``."""
    message: str

    def error(self) -> EngineError:
        found = getattr(errors, self.kind, EngineError)
        assert issubclass(found, EngineError)
        return found(self.message)


class RayEngine:
    """An ``Engine`` over the copies behind a handle (see ``flexreward.serving.replica``).

    A request whose copy dies goes to another, and only what had not come yet is passed on: each reply is drawn from its
    seed and number alone, so a repetition writes the same.

    Args:
        handle: Of the deployment.
        about: What a copy has said of itself.
    """

    def __init__(self, handle: Any, about: About) -> None:
        self.can = about.can
        self.identity = about.identity
        self._max_context = about.max_context
        self._handle = handle
        self._stream = handle.options(stream=True)
        self.num_repeated = 0
        """Requests that went to another copy because theirs had died."""

    @property
    def max_context(self) -> int:
        """Tokens of prompt and reply together, of an engine that counts."""
        assert self._max_context is not None
        return self._max_context

    def count_tokens(self, prompt: Prompt) -> int:
        """As a copy counts them. Called off the event loop."""
        found: int | Failed = self._handle.count_tokens.remote(key_of(prompt), prompt).result(timeout_s=60)
        if isinstance(found, Failed):
            raise found.error()
        return found

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncIterator[Reply]:
        """See the Engine protocol. A single reply is the answer to a call, which costs Serve less than a stream."""
        from ray.exceptions import RayActorError, RayError
        from ray.serve.exceptions import BackPressureError

        passed: set[int] = set()
        for tries in range(1, TRIES + 1):
            # Whatever is closed here is cancelled there, so that nobody writes what nobody waits for.
            asked: Any
            if sampling.n == 1:
                asked = self._handle.reply.remote(key_of(prompt), prompt, sampling)
            else:
                asked = self._stream.generate.remote(key_of(prompt), prompt, sampling)
            whole = False
            try:
                async for found in _each(asked, sampling):
                    if isinstance(found, Failed):
                        whole = True
                        raise found.error()
                    if found.index not in passed:
                        passed.add(found.index)
                        yield found
                whole = True
                return
            except BackPressureError as error:
                raise EngineError("every copy of the engine has its queue full") from error
            except RayActorError as error:
                if tries == TRIES:
                    raise EngineError(f"{TRIES} copies of the engine died under the request") from error
                self.num_repeated += 1
                log.warning("a copy of the engine died under a request, which goes to another")
            except RayError as error:
                raise EngineError(f"the engine failed: {_line(error)}") from error
            finally:
                if not whole:
                    with suppress(Exception):
                        asked.cancel()
            await asyncio.sleep(PAUSE_S * tries)

    async def close(self) -> None:
        """The copies are others' too: they stay."""


async def _each(asked: Any, sampling: Sampling) -> AsyncIterator[Reply | Failed]:
    if sampling.n == 1:
        yield await asked
        return
    async for found in asked:
        yield found


def key_of(prompt: Prompt) -> str:
    """What requests with much in common share: the copy that has read one of them reads the next one faster."""
    shared = SHARED.get()
    if not shared:
        media = [placed.media.digest for placed in prompt.media]
        shared = repr((prompt.system, media or prompt.user[:KEY_CHARS]))
    return hashlib.blake2b(shared.encode("utf-8", "replace"), digest_size=16).hexdigest()


def _line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else type(error).__name__
