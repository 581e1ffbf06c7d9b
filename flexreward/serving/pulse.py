"""Whether one copy of an engine still answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from flexreward.errors import EngineError


class Pulse:
    """How long a copy has had prompts at work since it last answered one.

    Only time with prompts at work counts, that of prompts whose callers have gone too: an engine that hangs is found
    out although every call ends at its deadline.

    Args:
        hang_s: Longest time for that, in seconds.
    """

    def __init__(self, hang_s: float, *, clock: Callable[[], float] = monotonic) -> None:
        self._hang_s = hang_s
        self._clock = clock
        self._num_at_work = 0
        self._quiet_s = 0.0
        """Up to ``_since``."""
        self._since = 0.0

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """A prompt is, to the end of the block."""
        self._add()
        self._num_at_work += 1
        try:
            yield
        finally:
            self._add()
            self._num_at_work -= 1

    def beat(self) -> None:
        """A prompt was answered, be it with an error."""
        self._add()
        self._quiet_s = 0.0

    def check(self) -> None:
        """
        Raises:
            EngineError: The copy must be started anew.
        """
        self._add()
        if self._quiet_s > self._hang_s:
            raise EngineError(f"no reply in {self._quiet_s:.0f} s with prompts at work, the limit hang_s")

    def _add(self) -> None:
        now = self._clock()
        if self._num_at_work:
            self._quiet_s += now - self._since
        self._since = now
