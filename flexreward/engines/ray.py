"""A model behind a Ray Serve handle: prompts go out, replies come back as they end, whichever copy writes them."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, cast

from flexreward import errors
from flexreward.engines.base import Capabilities, Prompt, Sampling
from flexreward.engines.together import Together, Which
from flexreward.errors import EngineError
from flexreward.fingerprint import digest
from flexreward.types import Reply

TRIES = 6
"""Copies that may die under one request before it fails."""
PAUSE_S, LONGEST_PAUSE_S = 0.1, 1.0
"""Before the next try; it grows with each."""
FORMER_TRIES = 60
"""Copies that run what was there before, and may be on their way out, before what they run counts again."""
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
    parts: bool = False
    """Whether it can be asked for some of the replies, by their numbers."""

    @property
    def name(self) -> str:
        """Tells this model from any other."""
        return digest(self.identity)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """What came in place of replies from a copy that runs another model than was asked."""

    about: About


class RayEngine:
    """An ``Engine`` over the copies behind a handle (see ``flexreward.serving.replica``).

    A request whose copy dies goes to another, and only what had not come yet is passed on: each reply is drawn from its
    seed and number alone, so a repetition writes the same.

    Each request names the model that it is for, and a copy that runs another refuses it. So while copies are replaced
    nothing is answered under the name of another model: the engine ends with EngineError, and ``successor`` is what
    stands there now.

    Args:
        handle: Of the deployment.
        about: What a copy has said of itself.
        former: Names of the models that ran there before. Copies of those are on their way out, and passed over.
        together: Prompts for single replies that may go in one call.
    """

    def __init__(
        self, handle: Any, about: About, *, former: frozenset[str] = frozenset(), together: Which = "key"
    ) -> None:
        self.can = about.can
        self.identity = about.identity
        self._name = about.name
        self._former = former
        self._successor: About | None = None
        self._max_context = about.max_context
        self._parts = about.parts
        self._handle = handle
        self._stream = handle.options(stream=True)
        self._which = together
        self._together = Together(handle, about.name, which=together)
        self.num_repeated = 0
        """Requests that went to another copy because theirs had died."""

    def successor(self) -> RayEngine | None:
        """The same copies, under the name of the model that they run now; ``None`` where that is still this one."""
        if self._successor is None:
            return None
        former = (self._former | {self._name}) - {self._successor.name}
        return RayEngine(self._handle, self._successor, former=former, together=self._which)

    async def look(self) -> None:
        """See what a copy runs now, whichever answers."""
        about: About = await self._handle.about.remote()
        if about.name != self._name:
            self._successor = about

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
        """See the Engine protocol. A stream through Serve does not wait for whoever reads it, so replies that are to
        begin later (``Sampling.at_once``) are asked for later, of copies that can be."""
        first, parts = sampling.at_once, [range(sampling.n)]
        if self._parts and first is not None and first < sampling.n and sampling.temperature > 0:
            parts = [range(first), range(first, sampling.n)]
        for numbers in parts:
            async with aclosing(cast(Any, self._some(prompt, sampling, numbers))) as replies:
                async for reply in replies:
                    yield reply

    async def _some(self, prompt: Prompt, sampling: Sampling, numbers: range) -> AsyncIterator[Reply]:
        """Replies of these numbers. Single ones that are asked for at once go in one call."""
        from ray.exceptions import RayActorError, RayError
        from ray.serve.exceptions import BackPressureError

        passed: set[int] = set()
        num_dead = num_former = 0
        while True:
            # A copy that runs what was there before is not met again under the same key.
            key = key_of(prompt) if not num_former else f"{key_of(prompt)}/{num_former}"
            # Whatever is closed here is cancelled there, so that nobody writes what nobody waits for.
            asked: Any
            if sampling.n == 1:
                asked = asyncio.ensure_future(self._together.reply(key, prompt, sampling))
            elif len(numbers) == sampling.n:
                asked = self._stream.generate.remote(key, prompt, sampling, self._name)
            else:
                asked = self._stream.generate.remote(key, prompt, sampling, self._name, numbers)
            whole = False
            try:
                async for found in _each(asked, sampling):
                    if isinstance(found, Failed):
                        whole = True
                        raise found.error()
                    if isinstance(found, Other):
                        self._meet(found.about, is_last=num_former == FORMER_TRIES)
                        break
                    if found.index not in passed:
                        passed.add(found.index)
                        yield found
                else:
                    whole = True
                    return
                num_former += 1
            except BackPressureError as error:
                raise EngineError("every copy of the engine has its queue full") from error
            except RayActorError as error:
                num_dead += 1
                if num_dead == TRIES:
                    raise EngineError(f"{TRIES} copies of the engine died under the request") from error
                self.num_repeated += 1
                log.warning("a copy of the engine died under a request, which goes to another")
            except RayError as error:
                raise EngineError(f"the engine failed: {_line(error)}") from error
            finally:
                if not whole:
                    with suppress(Exception):
                        asked.cancel()
            await asyncio.sleep(min(PAUSE_S * (num_dead + num_former), LONGEST_PAUSE_S))

    def _meet(self, about: About, *, is_last: bool) -> None:
        """Pass over a copy of a model that was there before.

        Raises:
            EngineError: It is none of those, or they stay.
        """
        if about.name in self._former and not is_last:
            return
        self._successor = about
        raise EngineError("the engine runs another model now")

    async def close(self) -> None:
        """The copies are others' too: they stay."""


async def _each(asked: Any, sampling: Sampling) -> AsyncIterator[Reply | Failed | Other]:
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
