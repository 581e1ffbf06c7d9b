"""What a job will take, from a few of its rows judged for real."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from flexreward.jobs.progress import clock
from flexreward.types import Judgment, Unscored

NUM_ROWS = 32


T = TypeVar("T")


class Drawn(NamedTuple, Generic[T]):
    items: list[T]
    total: int


def draw(items: Iterable[T], *, count: int = NUM_ROWS, seed: int = 0) -> Drawn[T]:
    """``count`` items drawn evenly from a stream of unknown length, in their order, and that length."""
    rng = random.Random(seed)
    drawn: list[tuple[int, T]] = []
    total = 0
    for number, item in enumerate(items):
        total += 1
        if len(drawn) < count:
            drawn.append((number, item))
        elif (place := rng.randrange(total)) < count:
            drawn[place] = number, item
    return Drawn([item for _, item in sorted(drawn, key=lambda pair: pair[0])], total)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Means of the rows that were judged, times all of them."""

    num_measured: int
    num_requests: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float | None
    """``None`` where every measured row came from the store."""
    unscored_share: float

    def line(self) -> str:
        """For a person."""
        time = "time unknown (all measured rows came from the store)" if self.seconds is None else clock(self.seconds)
        return (
            f"about {time} for {self.num_requests} requests, {self.prompt_tokens} prompt tokens and "
            f"{self.completion_tokens} new tokens; {100 * self.unscored_share:.0f} % unscored; measured on "
            f"{self.num_measured} of them, judged for real, the loading of the model left out"
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "measured": self.num_measured,
            "requests": self.num_requests,
            "tokens": {"prompt": self.prompt_tokens, "completion": self.completion_tokens},
            "seconds": self.seconds,
            "unscored_share": self.unscored_share,
        }


def forecast(judgments: Sequence[Judgment], *, total: int, seconds: float) -> Forecast:
    """From the ``judgments`` of a few to all ``total``; ``seconds`` is the wall time that the few took together."""
    measured = len(judgments)
    bought = sum(not judgment.cached for judgment in judgments)
    scale = total / measured if measured else 0.0
    return Forecast(
        num_measured=measured,
        num_requests=total,
        prompt_tokens=round(scale * sum(j.prompt_tokens for j in judgments)),
        completion_tokens=round(scale * sum(j.completion_tokens for j in judgments)),
        seconds=total * seconds / bought if bought else None,
        unscored_share=sum(isinstance(j.outcome, Unscored) for j in judgments) / measured if measured else 0.0,
    )
