"""Bounded loads: a request goes to the first copy on its ring that is not busier than the others allow. Pure."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

BOUND = 1.25
"""Times the mean of what all copies have at work, the new request included; above it a copy is passed over.

Source: Mirrokni, Thorup, Zadimoghaddam, Consistent Hashing with Bounded Loads, arXiv 1608.01350.
"""
Copy = TypeVar("Copy", bound=Hashable)


def ordered(ring: Sequence[Copy], loads: Mapping[Copy, int], *, bound: float = BOUND) -> list[Copy]:
    """Copies in the order in which they are to be asked: those with room as the ring has them, then the least busy.

    Args:
        ring: All copies, the one that the request's key belongs to first.
        loads: Requests that each has at work.
    """
    most = math.ceil(bound * (sum(loads[one] for one in ring) + 1) / len(ring))
    free = [one for one in ring if loads[one] < most]
    return free + sorted((one for one in ring if loads[one] >= most), key=lambda one: loads[one])
