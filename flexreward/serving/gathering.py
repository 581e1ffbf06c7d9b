"""One cohort, from its first member to its results: who is in it, who still asks, who judges. No waiting here.

A member is known by its name. Where that is only its completion, an equal one from another call is a member of its own
while the first call still waits, and the same one come back after that call has gone; whoever seems to wait is asked.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flexreward.errors import UserError

if TYPE_CHECKING:
    from flexreward.serving.cohort import Joining
    from flexreward.serving.contract import Rewarded, RewardItem

LEASE_S = 10.0
"""After so long without a ``renew`` another may judge."""
SILENT_S = 2.0
"""Whoever does not ask again within this time has gone."""
STEP_S = 0.5
"""How often it is looked whether somebody has gone."""


@dataclass(eq=False)
class Member:
    name: str
    item: RewardItem | None
    rewarded: Rewarded | None = None


@dataclass(eq=False)
class Seat:
    members: list[Member]
    until: float
    seen: float
    polling: int = 0


@dataclass(eq=False)
class Gathering:
    """What is known of one cohort."""

    key: str
    shared: str
    size: int
    closes: float
    members: list[Member] = field(default_factory=list)
    seats: dict[str, Seat] = field(default_factory=dict)
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
        taken: list[Member] = []
        for item, name in zip(joining.items, joining.names, strict=True):
            equal = [one for one in self.members if one.name == name and one not in taken]
            back = [one for one in equal if item.id or id(one) not in attended]
            if back:
                taken.append(back[0])
                continue
            taken.append(Member(name, item))
            self.members.append(taken[-1])
            for seat_name, seat in self.seats.items():
                if any(one in equal for one in seat.members):
                    self.doubted.setdefault(seat_name, now)
        self._seat(joining, taken, now)
        self.closes = min(self.closes, now + joining.gather_s)
        self.tell()

    def found_again(self, joining: Joining, now: float) -> bool:
        """Whether all of the call's members are here already; then it gets a seat."""
        taken: list[Member] = []
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

    def may_lead(self, seat: str, now: float) -> bool:
        """Whether it is to judge: it is closed, nobody does, and nobody who is there waits longer."""
        if not self.closed or self.released or (self.leader and now < self.leased_until):
            return False
        return seat == self._next_leader(now)

    def lead(self, seat: str, now: float) -> tuple[RewardItem, ...]:
        """All members, for the seat to judge; the lease is a new one."""
        self.leader, self.lease, self.leased_until = seat, secrets.token_hex(8), now + LEASE_S
        return tuple(member.item for member in self.members if member.item is not None)

    def results_of(self, seat: str) -> tuple[Rewarded, ...]:
        """What its members were given; it has no more use for a seat."""
        members = self.seats.pop(seat).members
        return tuple(member.rewarded for member in members if member.rewarded is not None)

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

    def _seat(self, joining: Joining, members: list[Member], now: float) -> None:
        self.seats[joining.seat] = Seat(members, until=now + joining.left_s, seen=now)

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
