import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import aclosing

import pytest

from flexreward.bench.overlap import idle_share, write_rows
from flexreward.inflight import map_in_order, read_ahead


async def test_items_come_in_order_from_another_thread():
    threads = set()

    def items() -> Iterator[int]:
        for number in range(100):
            threads.add(threading.get_ident())
            yield number

    assert [item async for item in read_ahead(items(), size=3)] == list(range(100))
    assert len(threads) == 1
    assert threading.get_ident() not in threads


async def test_no_more_are_taken_than_may_wait():
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(100):
            taken += 1
            yield number

    async with aclosing(read_ahead(items(), size=5)) as stream:
        async for item in stream:
            await asyncio.sleep(0.01)
            assert taken <= item + 1 + 5 + 1  # what was asked for, what waits, and the one being read
            if item == 10:
                break
    assert taken < 20


async def test_what_the_input_raises_is_raised_after_the_items_before_it():
    def items() -> Iterator[int]:
        yield from range(3)
        raise ValueError("row 4 is broken")

    stream = read_ahead(items(), size=10)
    assert [await anext(stream) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="row 4"):
        await anext(stream)


async def test_closing_ends_the_thread():
    def items() -> Iterator[int]:
        yield from range(10**9)

    before = threading.active_count()
    stream = read_ahead(items(), size=2)
    assert await anext(stream) == 0
    assert threading.active_count() == before + 1
    await stream.aclose()
    assert threading.active_count() == before


async def test_a_cancelled_reader_ends_the_thread_too():
    gate = threading.Event()

    def items() -> Iterator[int]:
        yield 0
        gate.wait()
        yield 1

    async def read() -> None:
        async for _ in map_in_order(asyncio.sleep, read_ahead(items(), size=2), max_in_flight=2):
            pass

    before = threading.active_count()
    task = asyncio.create_task(read())
    await asyncio.sleep(0.02)
    threading.Timer(0.02, gate.set).start()  # closing waits for the row that is being read
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for _ in range(100):
        if threading.active_count() <= before:
            break
        await asyncio.sleep(0.01)
    assert threading.active_count() <= before


async def test_slow_rows_hold_up_nobody_else():
    def items() -> Iterator[int]:
        for number in range(3):
            time.sleep(0.1)
            yield number

    longest, last = 0.0, time.perf_counter()

    async def beat() -> None:
        nonlocal longest, last
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now

    heart = asyncio.create_task(beat())
    assert [item async for item in read_ahead(items(), size=2)] == list(range(3))
    heart.cancel()
    assert longest < 0.08


@pytest.mark.slow
@pytest.mark.alone
def test_an_engine_hardly_waits_for_rows_that_are_read_while_it_works(tmp_path):
    source = tmp_path / "rows.jsonl"
    write_rows(source, 320)
    together = min(idle_share(source, tmp_path / f"{i}.jsonl", ahead=False) for i in range(3))
    apart = min(idle_share(source, tmp_path / f"apart-{i}.jsonl", ahead=True) for i in range(3))
    # Read in the event loop it was nine tenths; a busy machine slows both alike.
    assert together < 0.7 * apart
