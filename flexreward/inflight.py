"""Many at once, bounded, in order: what keeps an engine busy without holding the whole input."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 4
"""Items taken and not yet yielded, as a multiple of those running: one slow item does not idle the rest."""


async def map_in_order(
    function: Callable[[T], Awaitable[R]], items: Iterable[T] | AsyncIterable[T], *, max_in_flight: int
) -> AsyncIterator[R]:
    """``function`` of each item, in the order of ``items``, at most ``max_in_flight`` running.

    Items are taken one at a time as there is room: a stream is never held whole, and a result is yielded as soon as it
    and all before it are there. What the input or ``function`` raises is raised in its place, after the results before
    it, and nothing more is taken. Closing the iterator cancels what runs, and returns when it has ended.
    """
    if max_in_flight < 1:
        raise ValueError(f"max_in_flight is {max_in_flight}, expected at least 1")
    take = _taker(items)
    done: dict[int, tuple[R | None, BaseException | None]] = {}
    taken = yielded = 0
    ended = False
    taking, room, news = asyncio.Lock(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        nonlocal taken, ended
        while True:
            async with taking:
                while not ended and taken - yielded >= AHEAD * max_in_flight:
                    room.clear()
                    await room.wait()
                if ended:
                    return
                number = taken
                try:
                    item = await take()
                except Exception as error:
                    ended = True
                    if not isinstance(error, _End):
                        taken += 1
                        done[number] = None, error
                    news.set()
                    return
                taken += 1
            try:
                done[number] = await function(item), None
            except (Exception, asyncio.CancelledError) as error:
                ended = True
                room.set()
                done[number] = None, error
            if number == yielded:
                news.set()

    workers = [asyncio.create_task(work()) for _ in range(max_in_flight)]
    try:
        while not (ended and yielded == taken):
            if yielded not in done:
                news.clear()
                await news.wait()
                continue
            result, error = done.pop(yielded)
            if error is not None:
                raise error
            yielded += 1
            room.set()
            yield result  # type: ignore[misc]  # None only beside an error
    finally:
        await _end(workers)


async def read_ahead(items: Iterable[T], *, size: int) -> AsyncIterator[T]:
    """The items, taken in a thread of their own, so that reading and decoding them never holds up the event loop.

    At most ``size`` of them wait to be asked for. What the input raises is raised in its place. Closing the iterator
    returns when the item that is being read is there.
    """
    loop = asyncio.get_running_loop()
    ready: asyncio.Queue[tuple[T | None, Exception | None]] = asyncio.Queue()
    room = threading.Semaphore(size)
    stopped = threading.Event()

    def put(item: T | None, error: Exception | None) -> None:
        with suppress(RuntimeError):  # the loop has ended, and nobody asks any more
            loop.call_soon_threadsafe(ready.put_nowait, (item, error))

    def read() -> None:
        try:
            for item in items:
                room.acquire()
                if stopped.is_set():
                    return
                put(item, None)
            put(None, _End())
        except Exception as error:
            put(None, error)

    thread = threading.Thread(target=read, name="flexreward-rows", daemon=True)
    thread.start()
    try:
        while True:
            item, error = await ready.get()
            if isinstance(error, _End):
                return
            if error is not None:
                raise error
            room.release()
            yield item  # type: ignore[misc]  # None only beside an error
    finally:
        stopped.set()
        room.release()
        thread.join()


async def together(*coroutines: Coroutine[Any, Any, R]) -> list[R]:
    """All results in order; the first failure cancels the rest, and is raised when they have ended."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        await _end(tasks)
        raise


class _End(Exception):
    """The input has no more items. (StopIteration cannot leave a coroutine.)"""


def _taker(items: Iterable[T] | AsyncIterable[T]) -> Callable[[], Awaitable[T]]:
    if isinstance(items, AsyncIterable):
        stream = aiter(items)

        async def take() -> T:
            try:
                return await anext(stream)
            except StopAsyncIteration:
                raise _End from None

    else:
        iterator = iter(items)

        async def take() -> T:
            for item in iterator:
                return item
            raise _End

    return take


async def _end(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
