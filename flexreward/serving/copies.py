"""What every copy of an engine does in the same way: it answers single replies, by themselves or many in one call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from contextlib import aclosing
from functools import cached_property
from typing import Any, cast

from flexreward.engines.base import Prompt, Sampling
from flexreward.engines.ray import Failed, Other
from flexreward.types import Reply

Found = Reply | Failed | Other
Placed = tuple[int, Found]


class Copy:
    """Base of the copies, which differ in how they ``generate``. ``key`` is for the router alone
    (``flexreward.serving.router``)."""

    def generate(self, key: str, prompt: Prompt, sampling: Sampling, model: str) -> AsyncIterator[Found]:
        """Replies of the model of this name (``About.name``), and of no other."""
        raise NotImplementedError

    async def reply(self, key: str, prompt: Prompt, sampling: Sampling, model: str) -> Found:
        """The one reply that ``sampling`` asks for."""
        async with aclosing(cast(Any, self.generate(key, prompt, sampling, model))) as replies:
            async for reply in replies:
                return cast(Found, reply)
        return Failed(kind="EngineError", message="the engine ended without a reply")

    async def replies(
        self, key: str, asked: Sequence[tuple[Prompt, Sampling]], model: str, call: str
    ) -> AsyncIterator[list[Placed]]:
        """``reply`` to each, as they end.

        Args:
            call: Names this call to ``leave``.
        """
        tasks = self._calls[call] = [asyncio.ensure_future(self.reply(key, *one, model)) for one in asked]
        try:
            async with aclosing(as_they_end(tasks)) as found:
                async for some in found:
                    yield some
        finally:
            del self._calls[call]

    async def leave(self, call: str, places: Sequence[int]) -> None:
        """Write these replies of a call no further: nobody waits for them, and somebody for the rest. Told to all
        copies, of which one has the call."""
        if call in self._calls:
            for place in places:
                self._calls[call][place].cancel()

    @cached_property
    def _calls(self) -> dict[str, list[asyncio.Task[Found]]]:
        """What is being written for each call, in the order in which it was asked."""
        return {}


async def as_they_end(replies: Sequence[Awaitable[Found]]) -> AsyncGenerator[list[Placed], None]:
    """Replies with their places: those that have ended by the time that they are looked for, in one list. What was
    cancelled is left out."""
    tasks = {asyncio.ensure_future(reply): place for place, reply in enumerate(replies)}
    try:
        while tasks:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            ended = [(tasks.pop(task), task) for task in done]
            if found := [(place, task.result()) for place, task in ended if not task.cancelled()]:
                yield found
    finally:
        for task in tasks:
            task.cancel()
