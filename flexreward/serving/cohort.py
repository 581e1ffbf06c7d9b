"""Members of one group that come in different calls: brought together, judged once, and each told what became of it.

    join (again and again) -> WAITING -> YOURS, to one of them -> judge -> release -> RELEASED, to all

One process owns the cohorts of all, and judges nothing. A cohort closes when it is whole or when its time to gather is
over; what is missing then is missing, and what comes later begins the next one of the name. One of the calls that wait
judges it, and another does if that one goes away or falls silent. Results are kept for a while, so that a retry finds
them. Every method may be called again: an owner that lost its memory gathers anew from those who still ask.

A member is known by its name. Where that is only its completion, an equal one from another call is a member of its own
while the first call still waits, and the same one come back after that call has gone; whoever seems to wait is asked.

All that crosses is plain data, and no call lasts longer than it says. For one event loop.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from flexreward.errors import BusyError, UserError

if TYPE_CHECKING:
    from flexreward.serving.contract import Rewarded, RewardItem

LEASE_S = 10.0
"""After so long without a ``renew`` another may judge."""
SILENT_S = 2.0
"""Whoever does not ask again within this time has gone."""
STEP_S = 0.5


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
        keep_s: How long results are kept.
        max_kept: Groups whose results are kept; the oldest are forgotten first.
        max_open: Groups that gather or are judged at one time.
        now: Seconds that only rise.
    """

    def __init__(
        self,
        *,
        keep_s: float = 300.0,
        max_kept: int = 10_000,
        max_open: int = 10_000,
        now: Callable[[], float] | None = None,
    ) -> None:
        self.keep_s = keep_s
        self.max_kept = max_kept
        self.max_open = max_open
        self._now = now or (lambda: asyncio.get_running_loop().time())
        self._by_key: dict[str, list[_Cohort]] = {}  # of one key the newest last
        self._kept: dict[int, _Cohort] = {}  # by identity, the oldest first
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
                if (answer := cohort.answer(joining.seat, now)) is not None:
                    if answer.state is State.RELEASED:
                        del cohort.seats[joining.seat]
                    return answer
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

    def _leased(self, key: str, lease: str) -> _Cohort | None:
        return next((one for one in self._by_key.get(key, ()) if one.lease == lease and not one.released), None)

    def _has_seat(self, joining: Joining) -> bool:
        return any(joining.seat in cohort.seats for cohort in self._by_key.get(joining.key, ()))

    def _place(self, joining: Joining) -> _Cohort:
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
        cohort = _Cohort(joining.shared, joining.size, self._now() + joining.gather_s)
        cohort.take(joining, self._now())
        self._by_key.setdefault(joining.key, []).append(cohort)
        cohort.key = joining.key
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

    def _forget(self, cohort: _Cohort) -> None:
        self._kept.pop(id(cohort), None)
        cohorts = self._by_key[cohort.key]
        cohorts.remove(cohort)
        if not cohorts:
            del self._by_key[cohort.key]


@dataclass(eq=False)
class _Member:
    name: str
    item: RewardItem | None
    rewarded: Rewarded | None = None


@dataclass(eq=False)
class _Seat:
    members: list[_Member]
    until: float
    seen: float
    polling: int = 0


@dataclass(eq=False)
class _Cohort:
    shared: str
    size: int
    closes: float
    key: str = ""
    members: list[_Member] = field(default_factory=list)
    seats: dict[str, _Seat] = field(default_factory=dict)
    doubted: dict[str, float] = field(default_factory=dict)
    """Seats that must ask again, for one may have come back in their place; since when."""
    closed: bool = False
    lease: str = ""
    leader: str = ""
    leased_until: float = 0.0
    released: bool = False
    released_at: float = 0.0
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def check(self, joining: Joining) -> None:
        """That it is the same group, by all that a caller says of it."""
        if self.shared != joining.shared:
            raise UserError(
                f"{joining.title}: its members have different prompts; give each prompt a group of its own, or leave "
                "the name out"
            )
        if not self.closed and self.size != joining.size:
            raise UserError(f"{joining.title}: has group_size {self.size} in one call and {joining.size} in another")

    def has_room(self, count: int) -> bool:
        # While somebody is doubted, one too many may be here.
        return bool(self.doubted) or len(self.members) + count <= self.size

    def take(self, joining: Joining, now: float) -> None:
        """Give the call a seat; its members are new, or come back."""
        attended = {id(member) for seat in self.seats.values() for member in seat.members}
        taken: list[_Member] = []
        for item, name in zip(joining.items, joining.names, strict=True):
            equal = [one for one in self.members if one.name == name and one not in taken]
            back = [one for one in equal if item.id or id(one) not in attended]
            if back:
                taken.append(back[0])
                continue
            taken.append(_Member(name, item))
            self.members.append(taken[-1])
            for seat_name, seat in self.seats.items():
                if any(one in equal for one in seat.members):
                    self.doubted.setdefault(seat_name, now)
        self._seat(joining, taken, now)
        self.closes = min(self.closes, now + joining.gather_s)
        self.tell()

    def found_again(self, joining: Joining, now: float) -> bool:
        """Whether all of the call's members are here already; then it gets a seat."""
        taken: list[_Member] = []
        for name in joining.names:
            known = next((one for one in self.members if one.name == name and one not in taken), None)
            if known is None:
                return False
            taken.append(known)
        self._seat(joining, taken, now)
        return True

    def believe(self, seat: str) -> None:
        """It asks, so it is there."""
        if self.doubted.pop(seat, None) is not None:
            self.tell()

    def unseat(self, seat: str) -> None:
        if self.seats.pop(seat, None) is None:
            return
        self._settle_doubt(seat)
        if self.leader == seat:
            self.leader = self.lease = ""
        self.tell()

    def settle(self, now: float) -> None:
        """What the time that has passed decides."""
        if not self.closed:
            for seat, since in list(self.doubted.items()):
                if now >= since + SILENT_S:
                    self.unseat(seat)
            if (len(self.members) >= self.size and not self.doubted) or now >= self.closes:
                self.closed = True
                self.doubted.clear()
                self.members.sort(key=lambda member: member.name)
                self.tell()

    def answer(self, seat: str, now: float) -> Answer | None:
        """What the seat is told now, if anything."""
        if self.released:
            rewards = tuple(member.rewarded for member in self.seats[seat].members if member.rewarded is not None)
            return Answer(state=State.RELEASED, rewards=rewards)
        if not self.closed or (self.leader and now < self.leased_until) or seat != self._next_leader(now):
            return None
        self.leader, self.lease, self.leased_until = seat, secrets.token_hex(8), now + LEASE_S
        items = tuple(member.item for member in self.members if member.item is not None)
        missing = max(self.size - len(items), 0)
        return Answer(state=State.YOURS, items=items, lease=self.lease, num_missing=missing)

    def release(self, rewards: Sequence[Rewarded], now: float) -> None:
        for member, rewarded in zip(self.members, rewards, strict=True):
            member.rewarded, member.item = rewarded, None  # what was judged may be large
        self.released, self.released_at = True, now
        self.tell()

    def looks_again(self, now: float) -> float:
        """When time alone may have changed the answer."""
        if self.closed or self.doubted:
            return now + STEP_S
        return self.closes

    def is_deserted(self, now: float, keep_s: float) -> bool:
        there = any(seat.polling for seat in self.seats.values())
        last = max((seat.seen for seat in self.seats.values()), default=self.closes)
        return not there and now >= max(last, self.closes, self.leased_until) + keep_s

    def tell(self) -> None:
        """Wake all who wait."""
        self.news.set()
        self.news = asyncio.Event()

    def _seat(self, joining: Joining, members: list[_Member], now: float) -> None:
        self.seats[joining.seat] = _Seat(members, until=now + joining.left_s, seen=now)

    def _next_leader(self, now: float) -> str:
        there = [name for name, seat in self.seats.items() if seat.polling or now < seat.seen + SILENT_S]
        return max(there, key=lambda name: (self.seats[name].until, name), default="")

    def _settle_doubt(self, seat: str) -> None:
        """The seat has gone: whom an equal member was taken for has come back as that one."""
        if self.doubted.pop(seat, None) is None or self.closed:
            return
        attended = {id(member) for one in self.seats.values() for member in one.members}
        for member in [one for one in self.members if id(one) not in attended]:
            twins = [one for one in self.members if one.name == member.name and id(one) in attended]
            if twins:
                self.members.remove(member)


async def _first(event: asyncio.Event, timeout_s: float) -> None:
    """The event, or the time."""
    try:
        await asyncio.wait_for(event.wait(), max(timeout_s, 0.0))
    except TimeoutError:
        return
