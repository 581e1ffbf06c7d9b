"""Judges that give their memory up for a while: who sleeps, until when, and who has still to hear of it. Pure.

    AWAKE -> DROWSY -> FREEING -> ASLEEP -> WAKING -> AWAKE

One process owns the phases of all judges. Ingress copies and the copies of engines tell it how far they are, each time
with what they were last told, and are told where to go. So nothing is freed while somebody might still be let in, and
an owner that lost its memory learns from those who ask it who was asleep. A sleep is leased: when nobody renews it, it
ends by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from time import monotonic
from typing import NamedTuple
from uuid import uuid4

LAPSE_S = 10.0
"""Without a word for so long, a copy is waited for no more."""


class Phase(StrEnum):
    AWAKE = "awake"
    DROWSY = "drowsy"
    """Nothing new is let in; what was let in is answered."""
    FREEING = "freeing"
    """Nothing is at work, and the engine's copies give up their memory."""
    ASLEEP = "asleep"
    """They have done so."""
    WAKING = "waking"
    """They take it back, and answer a first prompt."""


class Stand(StrEnum):
    """What a copy of an engine has of its memory."""

    UP = "up"
    """All, and it has answered a first prompt."""
    MOVING = "moving"
    DOWN = "down"


class Rest(NamedTuple):
    """Where a judge is, as everybody is told."""

    phase: Phase = Phase.AWAKE
    turn: str = ""
    """Tells one sleep from the next."""
    left_s: float = 0.0
    """Of the lease."""

    @property
    def frees(self) -> bool:
        """Whether the copies of the engine are to be without memory."""
        return self.phase in (Phase.FREEING, Phase.ASLEEP)

    def same(self, other: Rest) -> bool:
        """Whether whoever knows the one knows the other."""
        return (self.phase, self.turn) == (other.phase, other.turn)


class At(NamedTuple):
    """What an ingress copy says of itself."""

    inside: Mapping[str, int]
    """Calls that it has let in and not yet answered, by judge."""
    rests: Mapping[str, Rest]
    """What it was told last, and acts on."""


@dataclass(slots=True)
class _Sleep:
    phase: Phase
    turn: str
    until: float
    waits_until: float = -math.inf
    """For the engine's copies, if none has been heard of: of a sleep that is older than this process."""


class _Door(NamedTuple):
    seen: float
    at: At


class _Copy(NamedTuple):
    seen: float
    known: Rest
    stand: Stand


class Phases:
    """The phases of all judges. Every method but ``step`` may be called again with nothing changed by it.

    Args:
        clock: Seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._sleeps: dict[str, _Sleep] = {}
        """Of judges that were ever asleep."""
        self._doors: dict[str, _Door] = {}
        self._copies: dict[str, dict[str, _Copy]] = {}

    def sleep(self, judge: str, lease_s: float) -> None:
        """Let a judge sleep until its lease ends; of one that does already the lease is renewed."""
        found = self._sleeps.get(judge)
        until = self._clock() + lease_s
        if found is None or found.phase in (Phase.AWAKE, Phase.WAKING):
            self._sleeps[judge] = _Sleep(Phase.DROWSY, uuid4().hex, until)
        else:
            found.until = until
        self.step()

    def wake(self, judge: str) -> None:
        """End its sleep, if it sleeps."""
        if judge in self._sleeps:
            self._sleeps[judge].until = self._clock()
        self.step()

    def door(self, name: str, at: At) -> dict[str, Rest]:
        """An ingress copy says where it stands.

        Returns:
            Of each judge that ever slept, where it is.
        """
        for judge, rest in at.rests.items():
            self._learn(judge, rest)
        self._doors[name] = _Door(self._clock(), at)
        self.step()
        return {judge: self.rest(judge) for judge in self._sleeps}

    def copy(self, judge: str, name: str, known: Rest, stand: Stand) -> Rest:
        """A copy of a judge's engine says how far it is; where the judge is."""
        self._learn(judge, known)
        self._copies.setdefault(judge, {})[name] = _Copy(self._clock(), known, stand)
        self.step()
        return self.rest(judge)

    def rest(self, judge: str) -> Rest:
        found = self._sleeps.get(judge)
        if found is None:
            return Rest()
        return Rest(found.phase, found.turn, max(found.until - self._clock(), 0.0))

    def all(self) -> dict[str, Phase]:
        """Of each judge that ever slept."""
        return {judge: sleep.phase for judge, sleep in self._sleeps.items()}

    def is_known(self, judge: str) -> bool:
        """Whether every ingress copy has heard where the judge is."""
        rest = self.rest(judge)
        return all(door.at.rests.get(judge, Rest()).same(rest) for door in self._doors.values())

    def step(self) -> None:
        """Go on where time or what was said allows."""
        now = self._clock()
        self._doors = {name: one for name, one in self._doors.items() if now - one.seen < LAPSE_S}
        for judge, copies in self._copies.items():
            self._copies[judge] = {name: one for name, one in copies.items() if now - one.seen < LAPSE_S}
        for judge, sleep in self._sleeps.items():
            while (phase := self._next(judge, sleep, now)) is not sleep.phase:
                sleep.phase = phase

    def _next(self, judge: str, sleep: _Sleep, now: float) -> Phase:
        copies = self._copies.get(judge, {}).values()
        is_heard = bool(copies) or now >= sleep.waits_until
        is_over = now >= sleep.until
        if sleep.phase is Phase.DROWSY:
            if is_over:
                return Phase.AWAKE
            return Phase.FREEING if self._is_empty(judge, sleep.turn) else Phase.DROWSY
        if sleep.phase is Phase.FREEING and not is_over:
            return Phase.ASLEEP if is_heard and all(one.stand is Stand.DOWN for one in copies) else Phase.FREEING
        if sleep.phase in (Phase.FREEING, Phase.ASLEEP):
            return Phase.WAKING if is_over else sleep.phase
        if sleep.phase is Phase.WAKING:
            # One that was up when it last spoke may be freeing its memory now: it must have heard of the waking.
            woken = Rest(Phase.WAKING, sleep.turn)
            is_up = all(one.stand is Stand.UP and one.known.same(woken) for one in copies)
            return Phase.AWAKE if is_heard and is_up else Phase.WAKING
        return sleep.phase

    def _is_empty(self, judge: str, turn: str) -> bool:
        """Whether every ingress copy lets nobody in, and has nobody inside."""
        if not self._doors:
            return False
        return all(
            door.at.rests.get(judge, Rest()).turn == turn and not door.at.inside.get(judge, 0)
            for door in self._doors.values()
        )

    def _learn(self, judge: str, rest: Rest) -> None:
        """Take up a sleep from before this process."""
        if judge not in self._sleeps and rest.phase is not Phase.AWAKE:
            now = self._clock()
            self._sleeps[judge] = _Sleep(rest.phase, rest.turn, now + rest.left_s, now + LAPSE_S)
