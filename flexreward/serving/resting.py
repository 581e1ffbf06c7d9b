"""What one copy of an engine does about sleep: it asks the owner of the phases where its judge is, and follows.

A copy asks in place of being called: so it is reached however it came to be, one that Serve starts anew while its judge
sleeps included, which takes no memory before its judge wakes.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from time import monotonic
from typing import Any, cast

from flexreward.engines.base import Prompt, Sampling
from flexreward.engines.ray import Failed
from flexreward.errors import EngineError
from flexreward.serving.phases import LAPSE_S, Rest, Stand
from flexreward.serving.remote_ledger import RemoteLedger
from flexreward.types import Reply

POLL_S = 5.0
"""Longest that one question waits for news."""
PAUSE_S = 0.5
DRAIN_S = 10.0
"""For what is still at work here when nobody waits for it any more."""
PROBE = Prompt(system="", user="Is this answer right? 2 + 2 = 4")
PROBED = Sampling(max_tokens=8)
log = logging.getLogger(__name__)


class Resting:
    """The sleep of one copy. For one event loop.

    Args:
        ledger: The owner, or a handle to it; without one, the copy never sleeps.
        judge: Whose engine it is.
        free: Gives up the memory.
        restore: Takes it back.
        say: What the engine says of itself and to ``PROBE``: it must say the same after a sleep as before.
    """

    def __init__(
        self,
        ledger: Any,
        judge: str,
        *,
        free: Callable[[], Awaitable[None]],
        restore: Callable[[], Awaitable[None]],
        say: Callable[[], Awaitable[object]],
    ) -> None:
        self._ledger = None if ledger is None else RemoteLedger(ledger)
        self._judge = judge
        self._free, self._restore, self._say = free, restore, say
        self._name = uuid.uuid4().hex
        self._rest = Rest()
        self._until = 0.0
        self._stand = Stand.DOWN
        self._said: object = None
        self._up = asyncio.Event()
        self._num_at_work = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._following: asyncio.Task[None] | None = None
        self.broken = ""
        """Why the copy must be started anew, if it must."""

    async def allowed(self) -> None:
        """Wait until memory may be taken for the first time."""
        while self._ledger is not None:
            await self._ask(0.0 if self._rest == Rest() else POLL_S)
            if not self._rest.frees:
                return

    def begin(self) -> None:
        """From now on the copy is up, and follows."""
        self._stand = Stand.UP
        self._up.set()
        if self._ledger is not None:
            self._following = asyncio.create_task(self._follow())

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Wait until the copy is up, and keep it so to the end of the block."""
        while not self._up.is_set():
            await self._up.wait()
        self._num_at_work += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._num_at_work -= 1
            if not self._num_at_work:
                self._idle.set()

    async def _follow(self) -> None:
        while not self.broken:
            await self._ask(POLL_S)
            try:
                if self._rest.frees and self._stand is Stand.UP:
                    await self._while_asking(self._lie_down())
                elif not self._rest.frees and self._stand is Stand.DOWN:
                    await self._while_asking(self._get_up())
            except Exception as error:
                log.exception("the copy of %s cannot go on", self._judge)
                self.broken = f"{type(error).__name__}: {error}"

    async def _while_asking(self, work: Awaitable[None]) -> None:
        """Do some work that may take minutes, and let the owner hear of this copy meanwhile."""
        self._stand = Stand.MOVING
        task = asyncio.ensure_future(work)
        while not task.done():
            await asyncio.wait([task], timeout=LAPSE_S / 4)
            if not task.done():
                await self._ask(0.0)
        await task

    async def _lie_down(self) -> None:
        self._up.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                await self._idle.wait()
        if self._said is None:
            try:
                self._said = await self._say()
            except EngineError as error:  # then nothing is there to be held against it
                log.warning("the copy of %s does not answer: %s", self._judge, error)
        await self._free()
        self._stand = Stand.DOWN

    async def _get_up(self) -> None:
        await self._restore()
        said = await self._say()
        if self._said not in (None, said):
            raise EngineError(f"it says {said!r} after its sleep, and said {self._said!r} before")
        self._stand = Stand.UP
        self._up.set()

    async def _ask(self, wait_s: float) -> None:
        assert self._ledger is not None
        try:
            self._rest = await self._ledger.ask(
                "copy", self._judge, self._name, self._rest, self._stand, wait_s, within_s=wait_s + LAPSE_S
            )
            self._until = monotonic() + self._rest.left_s
        except EngineError as error:
            log.error("%s", error)
            if self._rest.frees and monotonic() >= self._until:  # nobody is left who would wake it
                self._rest = Rest()
            await asyncio.sleep(PAUSE_S)


async def first_words(replies: AsyncIterator[Reply | Failed]) -> str:
    """The text of the first reply.

    Raises:
        EngineError: None came.
    """
    async with aclosing(cast(Any, replies)):
        async for reply in replies:
            if isinstance(reply, Failed):
                raise reply.error()
            return str(reply.text)
    raise EngineError("the engine ended without a reply")
