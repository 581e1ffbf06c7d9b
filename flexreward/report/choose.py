"""Which cards a page shows when there are too many to show all."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from flexreward.report.words import plural

T = TypeVar("T")


def choose(items: Sequence[T], *, limit: int, is_failure: Callable[[T], bool], seed: int = 0) -> list[T]:
    """At most ``limit`` items in their order: failures first, up to two thirds of the page, the rest drawn at random.

    Where the others do not fill the page, more failures are shown.
    """
    rng = random.Random(seed)
    failures = [i for i, item in enumerate(items) if is_failure(item)]
    others = [i for i, item in enumerate(items) if not is_failure(item)]
    room = max(limit * 2 // 3, limit - len(others))
    shown = failures if len(failures) <= room else rng.sample(failures, room)
    shown = shown + rng.sample(others, min(len(others), limit - len(shown)))
    return [items[i] for i in sorted(shown)]


def choice_in_words(noun: str, failure: str, *, shown: int, failures: int, total: int, all_failures: int) -> str:
    """One sentence that says what a reader does not see."""
    if shown == total:
        return ""
    which = f"all {failures:,}" if failures == all_failures else f"{failures:,} of the {all_failures:,}"
    return (
        f"This page shows {shown:,} of {plural(total, noun)}: {which} {failure} and "
        f"{shown - failures:,} others, drawn at random with a fixed seed. The files hold them all."
    )
