"""What is waiting, what is under way, and which prompts are read together. Pure but for the two records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from flexreward.engines.base import Sampling
from flexreward.engines.encoding import Encoded
from flexreward.engines.patterns import Progress
from flexreward.engines.sampling import Odds
from flexreward.engines.senses import Shown
from flexreward.errors import EngineError
from flexreward.types import Reply


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """One request: a prompt, and the replies still to be written."""

    prompt: Encoded
    prefix: str
    sampling: Sampling
    max_tokens: int
    """The request's limit, or the room that the prompt leaves in the model's context."""
    deliver: Callable[[Reply | EngineError], None]
    """Called from the model's thread."""
    pending: list[int]
    """Numbers of the replies not delivered yet."""
    aborted: bool = False
    """Set by the caller who went away: its rows are freed before the next step."""
    shown: tuple[Shown, ...] = ()
    """The media of the prompt."""
    offset: int = 0
    """What is added to a place of the reply for its position; known once the prompt was read."""
    retried: bool = False
    """Whether it was once put back for want of memory."""


@dataclass(slots=True, kw_only=True, eq=False)
class Row:
    """One reply being written."""

    job: Job
    reply: int
    tokens: list[int] = field(default_factory=list)
    odds: list[Odds] = field(default_factory=list)
    progress: Progress | None = None
    """Of a reply that is held to a pattern."""

    @property
    def position(self) -> int:
        """Where the last token stands, counted from the start of the prompt."""
        return len(self.job.prompt.ids) + len(self.tokens) - 1


def admissible(waiting: Sequence[int], *, under_way: int, batch_size: int) -> int:
    """How many of the waiting jobs, first come first, may start, given how many rows each needs.

    A job that needs more rows than a batch has starts alone, so that nothing waits for ever.
    """
    for count, rows in enumerate(waiting):
        if under_way and under_way + rows > batch_size:
            return count
        under_way += rows
    return len(waiting)


def groups(lengths: Sequence[int], *, largest: int, waste: float = 0.1) -> list[list[int]]:
    """Indices of prompts to be read together: of similar length, so that at most ``waste`` of a batch is padding."""
    together: list[list[int]] = []
    tokens = 0
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i], reverse=True):
        if together and len(together[-1]) < largest:
            width = lengths[together[-1][0]]
            padded = width * (len(together[-1]) + 1)
            if padded - (tokens + lengths[i]) <= waste * padded:
                together[-1].append(i)
                tokens += lengths[i]
                continue
        together.append([i])
        tokens = lengths[i]
    return together
