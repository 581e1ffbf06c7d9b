"""What is let in: no more than can be answered in time, so that whoever is let in is answered."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic

from flexreward.errors import BusyError

WEIGHT = 0.1
"""Of the newest judgment in the mean time that one takes; more while there were few."""
MARGIN = 0.8
"""Of a call's time, within which it must be expected to end: where a queue stands at its limit, half of what is let in
would come too late if the mean were all that counts."""
LONGEST_PAUSE_S = 60.0


class Admission:
    """Counts judgments that were accepted, lets so many work at once, and refuses what would end too late.

    A judgment waits for one of ``lanes``, then works for ``seconds`` on the average. So what is accepted takes
    ``accepted * seconds / lanes`` to work off and half a turn for lanes that do not end together, and one more would
    end after that. Only time spent in the engine counts: what was found in the store says nothing about the next one.

    Several processes may do so in front of one engine, which takes longer the more of them are busy: a time is counted
    as if this one had been alone. As many of them are expected to do as much as this one as are heard to be busy, and
    one more, for a crowd comes to all of them before any has heard of it.

    Args:
        lanes: Judgments at work at once.
        max_waiting: Judgments accepted and not yet answered.
        num: Processes in front of the engine.
    """

    def __init__(self, *, lanes: int, max_waiting: int, num: int = 1, clock: Callable[[], float] = monotonic) -> None:
        self.lanes = lanes
        self.max_waiting = max_waiting
        self.num = num
        self.num_busy = 1
        """Of those processes, this one included."""
        self.accepted = 0
        """Judgments accepted and not yet answered."""
        self.seconds: float | None = None
        """Mean time of one at work, had the engine been left to this process; ``None`` until one was."""
        self._counted = 0
        self._clock = clock
        self._room = asyncio.Semaphore(lanes)

    def wait_s(self, count: int) -> float:
        """When ``count`` more would be answered, in seconds from now, as far as that is known."""
        turns = (self.accepted + count) * min(self.num_busy + 1, self.num) / self.lanes
        return (self.seconds or 0.0) * (turns + 0.5 if turns > 1 else 1.0)

    def admit(self, count: int, *, deadline_s: float) -> None:
        """Accept ``count`` judgments; each must be given back by ``done``.

        Where nothing is accepted yet, everything is: a call that is too long for its own deadline would be refused for
        ever, and what is there by then is worth more.

        Raises:
            BusyError: They could not be answered in time; says when to come back.
        """
        if self.accepted:
            late_s = self.wait_s(count) - MARGIN * deadline_s
            if late_s > 0:
                raise _busy(f"{self.accepted} judgments wait already; {count} more would take too long", late_s)
            if self.accepted + count > self.max_waiting:
                waiting_s = self.wait_s(count - self.max_waiting)
                raise _busy(f"{self.accepted} judgments wait already, the limit max_waiting", waiting_s)
        self.accepted += count

    def done(self, count: int = 1) -> None:
        self.accepted -= count

    @asynccontextmanager
    async def lane(self) -> AsyncIterator[Callable[[], None]]:
        """Wait for room to work. Calling what it yields makes the time spent count."""
        async with self._room:
            began = self._clock()

            def count() -> None:
                self.count(self._clock() - began)

            yield count

    def count(self, took_s: float) -> None:
        """Let the time that one took enter the mean."""
        took_s /= self.num_busy
        self._counted += 1
        before = took_s if self.seconds is None else self.seconds
        self.seconds = before + max(WEIGHT, 1 / self._counted) * (took_s - before)


def _busy(why: str, after_s: float) -> BusyError:
    error = BusyError(why)
    error.retry_after_s = float(min(max(math.ceil(after_s), 1), LONGEST_PAUSE_S))
    return error
