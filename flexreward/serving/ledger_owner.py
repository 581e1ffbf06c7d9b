"""One ledger for all ingress copies: its owner, in a process of its own (``flexreward.serving.keeper``).

A claim belongs to whoever made it, and lapses when that one is heard of no more: a killed copy holds up nobody.
The owner may be killed too. What is settled comes back from its store; what is in flight it learns again from those who
hold it, and whoever waits asks again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import monotonic, time
from typing import Any, NamedTuple

from flexreward.errors import BusyError, UserError
from flexreward.ledger import Claim, Ledger, State
from flexreward.ledger.store import Store
from flexreward.serving.board import Board, Crowd, Delta
from flexreward.serving.cohort import Cohorts
from flexreward.serving.phases import At, Phases, Rest, Stand

BEAT_S = 0.5
"""Between two signs of life of a holder."""
LAPSE_S = 10.0
"""Without any, after which its claims are others'."""


class Holder(NamedTuple):
    name: str
    claim: str
    """Tells a claim that was asked for twice, because its answer was lost, from two claims."""


class Call(NamedTuple):
    """Of a method of the owner."""

    method: str
    arguments: tuple[Any, ...]


class Refused(NamedTuple):
    """What a cohort did not take."""

    is_busy: bool
    message: str


class Door(NamedTuple):
    """What an ingress copy is told with each sign of life."""

    closing: bool
    rests: dict[str, Rest]
    """Where each judge is that ever slept."""


class Whereabouts(NamedTuple):
    """Of a judge."""

    rest: Rest
    is_known: bool
    """Whether every ingress copy has heard of it."""


NOWHERE = At({}, {})


class LedgerOwner:
    """The ledger itself, in the one process that owns it.

    Args:
        store: File of its store; the user's cache directory where ``None``, and ``none`` keeps nothing.
    """

    def __init__(self, store: str | None = None, *, clock: Callable[[], float] = monotonic) -> None:
        opened = None if store == "none" else Store(None if store is None else Path(store))
        self.ledger = Ledger(opened)
        self._held: dict[str, Holder] = {}
        self._since: dict[str, float] = {}
        """When each was claimed."""
        self._seen: dict[str, float] = {}
        self._open: dict[str, int] = {}
        self._told: set[str] = set()
        """Holders that know that the door closes."""
        self._closing = False
        self._board = Board()
        self._cohorts = Cohorts()
        self._phases = Phases(clock=clock)
        self._moved = asyncio.Event()
        """Set, and replaced, when a judge may have changed its phase."""
        self._clock = clock
        self._sweeper: asyncio.Task[None] | None = None

    async def several(self, calls: Sequence[Call]) -> list[Any]:
        """What each of them answers; what one raises stands in its place."""
        return await asyncio.gather(
            *(getattr(self, call.method)(*call.arguments) for call in calls), return_exceptions=True
        )

    async def find(self, key: str) -> bytes | None:
        return await self.ledger.find(key)

    async def claim(self, key: str, holder: Holder) -> Claim:
        self._watch()
        self._seen[holder.name] = self._clock()
        if self._held.get(key) == holder:
            return Claim(State.MINE)
        claim = await self.ledger.claim(key)
        if claim.state is State.MINE:
            self._take(key, holder)
        return claim

    async def settle(self, key: str, value: bytes) -> bytes:
        """Whoever bought it first stands, whether or not the claim is still theirs."""
        if key in self._held:
            del self._held[key], self._since[key]
            return await self.ledger.settle(key, value)
        return value if self.ledger.store is None else self.ledger.store.put(key, value)

    async def release(self, key: str, failed: bytes | None, name: str) -> None:
        if key in self._held and self._held[key].name == name:
            await self._give_up(key, failed)

    async def wait(self, key: str, timeout_s: float) -> Claim:
        self._watch()
        return await self.ledger.wait(key, timeout_s)

    async def alive(self, name: str, held: dict[str, str], num_open: int, at: At = NOWHERE) -> Door:
        """A sign of life.

        Args:
            held: Its claims by key. One that is not known is from before this process, and is taken up.
            num_open: HTTP requests that it has open.
            at: What it does about judges that sleep.
        """
        self._watch()
        self._seen[name] = self._clock()
        self._open[name] = num_open
        for key, claim in held.items():
            if key not in self._held and (await self.ledger.claim(key)).state is State.MINE:
                self._take(key, Holder(name, claim))
        # One that its holder gave up, and of which no word came: a call may be cancelled while it says so.
        for key in [key for key, holder in self._held.items() if holder.name == name and key not in held]:
            if self._clock() - self._since[key] >= LAPSE_S:
                await self._give_up(key)
        if self._closing:
            self._told.add(name)
        rests = self._phases.door(name, at)
        self._nudge()
        return Door(closing=self._closing, rests=rests)

    async def sleep(self, judge: str, lease_s: float) -> Whereabouts:
        """Begin a sleep, or renew its lease (see ``Phases``)."""
        self._watch()
        self._phases.sleep(judge, lease_s)
        self._nudge()
        return await self.where(judge)

    async def wake(self, judge: str) -> Whereabouts:
        self._phases.wake(judge)
        self._nudge()
        return await self.where(judge)

    async def where(self, judge: str) -> Whereabouts:
        return Whereabouts(self._phases.rest(judge), self._phases.is_known(judge))

    async def copy(self, judge: str, name: str, known: Rest, stand: Stand, wait_s: float) -> Rest:
        """Where a judge is, once that is not what a copy of its engine knows, or after so long."""
        self._watch()
        until = monotonic() + wait_s
        rest = self._phases.copy(judge, name, known, stand)
        self._nudge()
        while rest.same(known) and (left := until - monotonic()) > 0:
            if self._closing:  # no question is to hold up the end, and none is to be asked again at once
                await asyncio.sleep(min(left, BEAT_S))
                break
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._moved.wait()
            rest = self._phases.rest(judge)
        return rest

    async def count(self, name: str, delta: Delta) -> Crowd:
        """What a holder has done since it last said so."""
        self._board.add(name, delta, now=time())
        return self._board.crowd()

    async def board(self) -> Board:
        """All that was done since this process began, and which judges sleep."""
        return replace(self._board, phases=self._phases.all())

    async def cohort(self, method: str, *arguments: Any) -> Any:
        """A method of ``Cohorts``; what it refuses comes back as a value, without a traceback of this process."""
        try:
            return await getattr(self._cohorts, method)(*arguments)
        except (UserError, BusyError) as error:
            return Refused(isinstance(error, BusyError), str(error))

    async def close_door(self) -> int:
        """Let no more requests in; how many are still open, as far as is known. To be asked until it is 0."""
        self._closing = True
        self._nudge()
        living = [name for name, seen in self._seen.items() if self._clock() - seen < LAPSE_S]
        return sum(self._open.get(name, 1) if name in self._told else 1 + self._open.get(name, 0) for name in living)

    async def num_claims(self) -> int:
        return len(self._held)

    async def num_inside(self) -> int:
        """Claims that are held, and requests that are open at those who are heard of."""
        living = [name for name, seen in self._seen.items() if self._clock() - seen < LAPSE_S]
        return len(self._held) + sum(self._open.get(name, 0) for name in living)

    async def sweep(self) -> None:
        """Give up the claims of those who are heard of no more."""
        lost = {name for name, seen in self._seen.items() if self._clock() - seen >= LAPSE_S}
        for key, holder in list(self._held.items()):
            if holder.name in lost:
                await self._give_up(key)
        for name in lost:
            self._seen.pop(name, None)
            self._open.pop(name, None)
        self._phases.step()
        self._nudge()

    def _nudge(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

    def _take(self, key: str, holder: Holder) -> None:
        self._held[key] = holder
        self._since[key] = self._clock()

    async def _give_up(self, key: str, failed: bytes | None = None) -> None:
        del self._held[key], self._since[key]
        await self.ledger.release(key, failed)

    def _watch(self) -> None:
        if self._sweeper is None:
            self._sweeper = asyncio.create_task(self._sweep())

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            await self.sweep()
