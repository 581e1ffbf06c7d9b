"""Replies that are written in several rounds: all begin from one prefill, and each goes on by itself."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing

from flexreward.errors import EngineError
from flexreward.types import Reply


async def in_rounds(
    first: AsyncIterator[Reply], go_on: Callable[[Reply], Awaitable[Reply]], *, n: int
) -> AsyncIterator[Reply]:
    """What ``go_on`` makes of each of ``n`` replies, which begins as soon as the first round of that reply has ended.

    They come as they end. Closing the iterator aborts all rounds; an error in one ends all.
    """
    ended: asyncio.Queue[Reply | BaseException] = asyncio.Queue()

    async def begin() -> None:
        async with asyncio.TaskGroup() as rounds, aclosing(first):  # type: ignore[type-var]  # a generator
            async for reply in first:
                rounds.create_task(further(reply))

    async def further(reply: Reply) -> None:
        ended.put_nowait(await go_on(reply))

    work = asyncio.create_task(begin())
    work.add_done_callback(lambda task: ended.put_nowait(_error(task)))
    try:
        for _ in range(n):
            item = await ended.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def only(stream: AsyncIterator[Reply]) -> Reply:
    """The one reply of a round."""
    async with aclosing(stream):  # type: ignore[type-var]  # a generator
        async for reply in stream:
            return reply
    raise EngineError("the engine ended without a reply")


def seed_of(seed: int, index: int, left: int) -> int:
    """Another for each reply and each round, 53 bits as every seed has."""
    drawn = hashlib.sha256(f"{seed} {index} {left}".encode())
    return int.from_bytes(drawn.digest()[:8]) >> 11


def _error(task: asyncio.Task[None]) -> BaseException:
    """Why no further reply will come."""
    if task.cancelled():
        return asyncio.CancelledError()
    error = task.exception()
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error or EngineError("the engine ended before all replies had come")
