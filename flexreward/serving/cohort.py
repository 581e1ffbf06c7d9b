"""Members of one group that come in different calls: brought together, judged once, and each told what became of it.

    join (again and again) -> WAITING -> YOURS, to one of them -> judge -> release -> RELEASED, to all

One process owns the cohorts of all, and judges nothing. A cohort closes when it is whole or when its time to gather is
over; what is missing then is missing, and what comes later begins the next one of the name. One of the calls that wait
judges it, and another does if that one goes away or falls silent. Results are kept for a while, so that a retry finds
them. Every method may be called again: an owner that lost its memory gathers anew from those who still ask.

All that crosses is plain data, and no call lasts longer than it says. For one event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from flexreward.errors import BusyError
from flexreward.serving.gathering import LEASE_S, Gathering

if TYPE_CHECKING:
    from flexreward.serving.contract import Rewarded, RewardItem


class State(StrEnum):
    WAITING = "waiting"
    """Ask again."""
    UNKNOWN = "unknown"
    """The call has no seat here: ask again, with its ``items``."""
    YOURS = "yours"
    """Whoever got this answer must judge ``items``, ``renew`` meanwhile, and ``release``."""
    RELEASED = "released"
    """The results are here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Joining:
    """Some members of one group, and who asks for them."""

    key: str
    """Whose group it is and which: those of one key meet."""
    shared: str
    """Digest of what all members must share: the prompt, and what is shown with it."""
    title: str
    """What a refusal calls the group."""
    seat: str
    """Of this call alone."""
    items: tuple[RewardItem, ...]
    """They may be large: a call that has its seat asks again without them."""
    names: tuple[str, ...]
    """One an item, by which members are known and ordered."""
    size: int
    """Members of the whole group."""
    gather_s: float
    """How long from now it can wait for the others."""
    left_s: float
    """How long from now anybody waits for its result; who has longest judges."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    state: State
    items: tuple[RewardItem, ...] = ()
    """All members, in an order that does not turn on who came when; where it is YOURS."""
    lease: str = ""
    num_missing: int = 0
    """Members that never came; where it is YOURS."""
    rewards: tuple[Rewarded, ...] = ()
    """One an item of the call, in its order; where it is RELEASED."""


WAITING = Answer(state=State.WAITING)
UNKNOWN = Answer(state=State.UNKNOWN)


class Cohorts:
    """All groups that are gathered, judged or kept in this process.

    Args:
        keep_s: How long results are kept. A member without an id that comes within this time and says the same is a
            retry; after it, one of the next group.
        max_kept: Groups whose results are kept; the oldest are forgotten first.
        max_open: Groups that gather or are judged at one time.
        now: Seconds that only rise.
    """

    def __init__(
        self,
        *,
        keep_s: float = 60.0,
        max_kept: int = 10_000,
        max_open: int = 10_000,
        now: Callable[[], float] | None = None,
    ) -> None:
        self.keep_s = keep_s
        self.max_kept = max_kept
        self.max_open = max_open
        self._now = now or (lambda: asyncio.get_running_loop().time())
        self._by_key: dict[str, list[Gathering]] = {}  # of one key the newest last
        self._kept: dict[int, Gathering] = {}  # by identity, the oldest first
        self.num_open = 0
        """Groups that gather or are judged."""
        self._swept = 0.0

    async def join(self, joining: Joining, timeout_s: float) -> Answer:
        """Take the members in, if they are not, and wait at most ``timeout_s`` for what becomes of their group.

        Raises:
            UserError: The group has another prompt or another size.
            BusyError: There are too many groups.
        """
        until = self._now() + timeout_s
        self._sweep()
        if not joining.items and not self._has_seat(joining):
            return UNKNOWN
        cohort = self._place(joining)
        seat = cohort.seats[joining.seat]
        seat.polling += 1
        cohort.believe(joining.seat)
        try:
            while True:
                now = seat.seen = self._now()
                cohort.settle(now)
                if joining.seat not in cohort.seats:  # it has left, or was silent for too long
                    return UNKNOWN
                if cohort.released:
                    return Answer(state=State.RELEASED, rewards=cohort.results_of(joining.seat))
                if cohort.may_lead(joining.seat, now):
                    items = cohort.lead(joining.seat, now)
                    missing = max(cohort.size - len(items), 0)
                    return Answer(state=State.YOURS, items=items, lease=cohort.lease, num_missing=missing)
                if now >= until or joining.seat in cohort.doubted:
                    return WAITING
                await _first(cohort.news, min(until, cohort.looks_again(now)) - now)
        finally:
            seat.polling -= 1

    async def leave(self, key: str, seat: str) -> None:
        """The call has gone. Its members stay, and are judged; if it was to judge, another will."""
        for cohort in self._by_key.get(key, ()):
            cohort.unseat(seat)

    async def renew(self, key: str, lease: str) -> bool:
        """Whether the group is still this one's to judge; it is for another while then."""
        cohort = self._leased(key, lease)
        if cohort is not None:
            cohort.leased_until = self._now() + LEASE_S
        return cohort is not None

    async def release(self, key: str, lease: str, rewards: Sequence[Rewarded]) -> bool:
        """Give each member its result, in the order of the ``items`` that were judged.

        Returns:
            Whether it was this one's to judge. If not, another judges: ``join`` again.
        """
        cohort = self._leased(key, lease)
        if cohort is None:
            return False
        cohort.release(rewards, self._now())
        self.num_open -= 1
        self._kept[id(cohort)] = cohort
        while len(self._kept) > self.max_kept:
            self._forget(next(iter(self._kept.values())))
        return True

    def _leased(self, key: str, lease: str) -> Gathering | None:
        return next((one for one in self._by_key.get(key, ()) if one.lease == lease and not one.released), None)

    def _has_seat(self, joining: Joining) -> bool:
        return any(joining.seat in cohort.seats for cohort in self._by_key.get(joining.key, ()))

    def _place(self, joining: Joining) -> Gathering:
        """The cohort in which the call has its seat."""
        cohorts = self._by_key.get(joining.key, [])
        for cohort in cohorts:
            if joining.seat in cohort.seats:
                return cohort
            if not cohort.released:
                cohort.check(joining)
        for cohort in reversed(cohorts):
            if cohort.closed and cohort.shared == joining.shared and cohort.found_again(joining, self._now()):
                return cohort
        for cohort in cohorts:
            if not cohort.closed and cohort.has_room(len(joining.items)):
                cohort.take(joining, self._now())
                return cohort
        if self.num_open >= self.max_open:
            raise BusyError(f"{self.num_open} groups are open already; try again later")
        cohort = Gathering(joining.key, joining.shared, joining.size, self._now() + joining.gather_s)
        cohort.take(joining, self._now())
        self._by_key.setdefault(joining.key, []).append(cohort)
        self.num_open += 1
        return cohort

    def _sweep(self) -> None:
        """Forget what was kept long enough, and what nobody waits for any more."""
        now = self._now()
        if now - self._swept < 1.0:
            return
        self._swept = now
        for cohort in list(self._kept.values()):
            if cohort.released_at > now - self.keep_s:
                break
            self._forget(cohort)
        stale = [
            cohort
            for cohorts in self._by_key.values()
            for cohort in cohorts
            if not cohort.released and cohort.is_deserted(now, self.keep_s)
        ]
        for cohort in stale:
            self.num_open -= 1
            self._forget(cohort)

    def _forget(self, cohort: Gathering) -> None:
        self._kept.pop(id(cohort), None)
        cohorts = self._by_key[cohort.key]
        cohorts.remove(cohort)
        if not cohorts:
            del self._by_key[cohort.key]


async def _first(event: asyncio.Event, timeout_s: float) -> None:
    """The event, or the time."""
    try:
        await asyncio.wait_for(event.wait(), max(timeout_s, 0.0))
    except TimeoutError:
        return
