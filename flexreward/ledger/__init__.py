"""Who buys what: of all that ask for one key at a time, one buys and the others wait.

A key is claimed, then settled with its value or released without one. What is settled goes to the store, if there is
one, and is never bought again; without a store it goes to those who wait, and is forgotten. A release can hand on a
failed purchase: those who wait fail with it, so that a dead engine is asked once and not once for each of them. A
release with nothing (the buyer was cancelled, or only its own time ran out) lets the next of them buy.

Keys are strings and values bytes, and every method is async, so that one process can own the ledger for many. It is not
made for several threads: one event loop at a time. Processes that share only the store's file may buy a key twice when
they ask at the same moment; the first to settle wins, and the other is given what stands.
"""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import NamedTuple

from flexreward.ledger.store import Store


class State(StrEnum):
    SETTLED = "settled"
    """The value is here."""
    MINE = "mine"
    """Whoever got this answer must settle or release the key."""
    PENDING = "pending"
    """Someone else is buying it: wait."""
    FAILED = "failed"
    """The purchase that was waited for failed; the value says how."""
    FREE = "free"
    """It was released with nothing: claim it again."""


class Claim(NamedTuple):
    state: State
    value: bytes | None = None


_MINE = Claim(State.MINE)
_PENDING = Claim(State.PENDING)
_FREE = Claim(State.FREE)


class Ledger:
    """Claim, settle, wait by key, in this process; ``Ledger(None)`` joins what is in flight and keeps nothing."""

    def __init__(self, store: Store | None = None) -> None:
        self.store = store
        self._flights: dict[str, asyncio.Future[Claim] | None] = {}  # a future only where someone waits

    async def find(self, key: str) -> bytes | None:
        """What is settled under ``key``, which is left to others to buy."""
        return None if self.store is None or key in self._flights else self.store.get(key)

    async def claim(self, key: str) -> Claim:
        """SETTLED with its value, PENDING, or MINE: then the caller must ``settle`` or ``release``."""
        if key in self._flights:
            return _PENDING
        if self.store is not None and (value := self.store.get(key)) is not None:
            return Claim(State.SETTLED, value)
        self._flights[key] = None
        return _MINE

    async def settle(self, key: str, value: bytes) -> bytes:
        """Keep ``value`` and wake those who wait.

        Returns:
            The value that stands: what another process settled first, if one did.

        Raises:
            OutputError: The store cannot be written. Those who wait get the value all the same.
        """
        try:
            if self.store is not None:
                value = self.store.put(key, value)
        finally:
            self._end(key, Claim(State.SETTLED, value))
        return value

    async def release(self, key: str, failed: bytes | None = None) -> None:
        """Give the key up: with ``failed``, those who wait now get that; without, the next of them may buy."""
        self._end(key, Claim(State.FAILED, failed) if failed is not None else _FREE)

    async def wait(self, key: str, timeout_s: float | None = None) -> Claim:
        """SETTLED or FAILED with a value, FREE if there is nothing to wait for, or PENDING when the time is over."""
        if key not in self._flights:
            return _FREE
        flight = self._flights[key]
        if flight is None:
            flight = self._flights[key] = asyncio.get_running_loop().create_future()
        await asyncio.wait((flight,), timeout=timeout_s)
        return flight.result() if flight.done() else _PENDING

    def _end(self, key: str, claim: Claim) -> None:
        if flight := self._flights.pop(key):
            flight.set_result(claim)
