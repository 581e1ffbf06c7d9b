"""A vote over a handle: replies that it may not need are asked for when it needs them."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from types import SimpleNamespace

import pytest

from flexreward.engines.base import Capabilities, Prompt, Sampling
from flexreward.engines.ray import About, RayEngine
from flexreward.types import Reply

PROMPT = Prompt(system="", user="Which?")
VOTE = Sampling(temperature=1.0, n=5, at_once=3)

# Ray 2.60 asks of pydantic what pydantic 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Handle:
    """Of a copy that takes down the numbers that it is asked for, and writes them all at once, as Serve does."""

    def __init__(self):
        self.asked = []
        self.generate = SimpleNamespace(remote=self._stream)

    def options(self, **_):
        return self

    async def _stream(self, key, prompt, sampling, model, numbers=None):
        self.asked.append(numbers)
        for number in numbers or range(sampling.n):
            yield Reply(text=str(number), index=number)


async def taken(count, sampling=VOTE, *, parts=True):
    """The first replies of a vote, and what was asked for them."""
    handle, found = Handle(), []
    engine = RayEngine(handle, About(can=Capabilities(), identity={}, parts=parts))
    async with aclosing(engine.generate(PROMPT, sampling)) as replies:
        async for reply in replies:
            found.append(reply.index)
            if len(found) == count:
                break
    return found, handle.asked


async def test_a_vote_that_has_enough_asks_for_no_more():
    assert await taken(3) == ([0, 1, 2], [range(3)])


async def test_a_vote_that_needs_all_asks_for_the_rest_by_number():
    assert await taken(5) == ([0, 1, 2, 3, 4], [range(3), range(3, 5)])


@pytest.mark.parametrize(
    ("sampling", "parts"),
    [(VOTE, False), (Sampling(temperature=1.0, n=5), True), (Sampling(n=5, at_once=3), True)],
)
async def test_else_all_are_asked_for_together(sampling, parts):
    assert await taken(5, sampling, parts=parts) == ([0, 1, 2, 3, 4], [None])


@pytest.mark.vllm
async def test_a_copy_of_vllm_writes_the_numbers_that_it_is_asked_for():
    pytest.importorskip("vllm")
    from flexreward.serving.vllm_replica import VLLMReplica

    async def read(prompt):
        return prompt

    async def write(prompt, read, sampling, numbers, put):
        await asyncio.sleep(0)
        for number in reversed(numbers):
            put(Reply(text="", index=number))

    copy = SimpleNamespace(
        _writer=SimpleNamespace(check=lambda sampling: None, write=write),
        _opened=SimpleNamespace(reader=SimpleNamespace(read=read)),
    )

    async def indices(*numbers):
        return [reply.index async for reply in VLLMReplica._written(copy, PROMPT, VOTE, *numbers)]

    assert await indices(range(3, 5)) == [4, 3]
    assert sorted(await indices()) == [0, 1, 2, 3, 4]
