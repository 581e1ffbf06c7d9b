"""How replies to a prompt are come by: found in the ledger, joined while in flight, or bought from the engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import NamedTuple, cast

from flexreward.engines.base import Engine, Prompt, Sampling
from flexreward.errors import DeadlineError, EngineError
from flexreward.fingerprint import source_digest
from flexreward.ledger import Ledger, State
from flexreward.ledger.purchase import Purchase, decode, encode, name_of, name_of_vote
from flexreward.types import Reason, Reply, Unscored


class Bought(NamedTuple):
    purchase: Purchase
    kept: bool
    """Whether it was settled before it was asked for."""


class Stopping(NamedTuple):
    """When a vote may end before its last reply."""

    name: str
    """The rule's, kept with what it ended."""
    reading: str
    """Digest of the template that it reads replies by."""
    at_once: int
    """Replies that are needed in any case."""
    ends_at: Callable[[Sequence[Reply]], int | None]
    """Given all replies that have come, in any order: how many of the first, by ``index``, are the vote, if it ends."""


class Buyer:
    """One engine and one way of sampling, behind a ledger.

    A vote that may end early has a key of its own beside the full vote's, under which it is kept as what it is. It
    takes a full vote where one is settled; the other way round nothing is found, and all replies are bought: the same
    again and the rest, since an engine draws them from one prefill and each from its own seed.
    """

    def __init__(self, engine: Engine, sampling: Sampling, ledger: Ledger, *, namespace: str) -> None:
        self._engine = engine
        self._sampling = sampling
        self.ledger = ledger
        self.namespace = namespace
        self.source = source_digest(engine.identity, sampling)

    async def replies(self, prompt: Prompt, until: float | None, stopping: Stopping | None = None) -> Bought:
        """The replies to ``prompt``, the same whoever asks and whenever; ``failure`` says why some are missing.

        Args:
            until: Time of the event loop after which nobody waits any more.
            stopping: End the vote once its first replies are enough, which are then all that is kept. The engine is
                closed, which aborts the rest.

        Raises:
            OutputError: They were bought and cannot be stored.
        """
        full, seed = name_of(prompt, source=self.source, namespace=self.namespace)
        sampling = replace(self._sampling, seed=seed, at_once=stopping and stopping.at_once)
        key = full if stopping is None else name_of_vote(full, stop=stopping.name, reading=stopping.reading)
        while True:
            state, value = await self.ledger.claim(key)
            if state is State.MINE:
                if key != full and (value := await self._instead(key, full)) is not None:
                    return Bought(decode(value), kept=True)
                return Bought(await self._buy(key, prompt, sampling, until, stopping), kept=False)
            if state is State.SETTLED and value is not None:
                return Bought(decode(value), kept=True)
            state, value = await self.ledger.wait(key, None if until is None else until - _now())
            if state is State.PENDING:
                late = DeadlineError("the same request, asked before, was still being answered")
                return Bought(self._purchase(prompt, sampling, [], late), kept=False)
            if value is not None:
                return Bought(decode(value), kept=False)

    async def _instead(self, key: str, full: str) -> bytes | None:
        """The full vote, if one is settled; then the claim on ``key`` is released."""
        try:
            value = await self.ledger.find(full)
        except BaseException:
            await self.ledger.release(key)
            raise
        if value is not None:
            await self.ledger.release(key)
        return value

    async def _buy(
        self, key: str, prompt: Prompt, sampling: Sampling, until: float | None, stopping: Stopping | None
    ) -> Purchase:
        """Replies from the engine; whatever happens, the claim on ``key`` is settled or released."""
        try:
            replies, error = await self._draw(prompt, sampling, until, stopping)
        except asyncio.CancelledError:
            await self.ledger.release(key)
            raise
        except BaseException as bug:  # raised here; those who wait fail, so that they do not meet it one by one
            failed = EngineError(f"{type(bug).__name__}: {bug}")
            await self.ledger.release(key, encode(self._purchase(prompt, sampling, [], failed)))
            raise
        purchase = self._purchase(prompt, sampling, replies, error)
        if error is None:
            if stopping is not None and len(replies) < sampling.n:
                purchase = replace(purchase, stopped=stopping.name)
            value = encode(purchase)
            stands = await self.ledger.settle(key, value)
            return purchase if stands is value else decode(stands)
        # A buyer that ran out of its own time says nothing of the engine: the next may have longer.
        await self.ledger.release(key, None if error.reason is Reason.DEADLINE else encode(purchase))
        return purchase

    async def _draw(
        self, prompt: Prompt, sampling: Sampling, until: float | None, stopping: Stopping | None
    ) -> tuple[list[Reply], EngineError | None]:
        """What the engine writes until it ends, fails, it is enough, or time is up: closing it aborts the rest."""
        replies: list[Reply] = []
        failure: EngineError | None = None
        limit = asyncio.timeout_at(until)
        try:
            async with limit:
                stream = cast(AsyncGenerator[Reply, None], self._engine.generate(prompt, sampling))
                async with aclosing(stream):
                    async for reply in stream:
                        replies.append(reply)
                        if stopping is not None and (count := stopping.ends_at(replies)) is not None:
                            return sorted(replies, key=_index)[:count], None
        except EngineError as error:
            failure = error
        except TimeoutError:
            if not limit.expired():
                raise
        if len(replies) >= sampling.n:
            return replies, None  # all that was asked for is here, however it ended
        if limit.expired():
            return replies, DeadlineError(f"{len(replies)} of {sampling.n} replies had come when time was up")
        return replies, failure or EngineError(f"the engine ended after {len(replies)} of {sampling.n} replies")

    def _purchase(
        self, prompt: Prompt, sampling: Sampling, replies: list[Reply], error: EngineError | None
    ) -> Purchase:
        return Purchase(
            engine=self._engine.identity,
            prompt=prompt,
            sampling=replace(sampling, at_once=None),
            replies=tuple(sorted(replies, key=_index))[: sampling.n],
            failure=Unscored(reason=error.reason, detail=str(error)) if error else None,
        )


def _index(reply: Reply) -> int:
    return reply.index


def _now() -> float:
    return asyncio.get_running_loop().time()
