"""What one ingress copy does about judges that sleep: it lets nobody in, or has them wait until the judge is awake."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

from flexreward.errors import AsleepError
from flexreward.serving.phases import At, Phase, Rest

SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 2.0, 60.0


class Gate:
    """In front of every judge. For one event loop.

    Args:
        waits: Whether callers wait for a judge that sleeps, in place of being refused.
    """

    def __init__(self, *, waits: bool = False) -> None:
        self._waits = waits
        self._rests: Mapping[str, Rest] = {}
        self._inside: Counter[str] = Counter()
        self._told = asyncio.Event()

    def tell(self, rests: Mapping[str, Rest]) -> None:
        """Act on what the owner of the phases says from now on."""
        self._rests = rests
        self._told.set()
        self._told = asyncio.Event()

    def at(self) -> At:
        """Where this copy stands, for the owner."""
        return At(inside=dict(self._inside), rests=dict(self._rests))

    def is_awake(self, judge: str) -> bool:
        return self._rests.get(judge, Rest()).phase is Phase.AWAKE

    @asynccontextmanager
    async def entered(self, judge: str, *, until: float) -> AsyncIterator[bool]:
        """Be let in, and count as inside to the end of the block; whether one was in time.

        Args:
            until: Time of the event loop after which nobody waits any more.

        Raises:
            AsleepError: The judge sleeps, and nobody waits here; says when to come back.
        """
        loop = asyncio.get_running_loop()
        while not self.is_awake(judge):
            if not self._waits:
                raise _asleep(judge, self._rests[judge])
            if loop.time() >= until:
                yield False
                return
            with suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await self._told.wait()
        self._inside[judge] += 1
        try:
            yield True
        finally:
            self._inside[judge] -= 1


def _asleep(judge: str, rest: Rest) -> AsleepError:
    error = AsleepError(f"the judge {judge} is {rest.phase}")
    error.retry_after_s = float(min(max(math.ceil(rest.left_s), SHORTEST_PAUSE_S), LONGEST_PAUSE_S))
    return error
