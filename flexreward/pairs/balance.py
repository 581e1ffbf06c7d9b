"""As many pairs whose winner is the longer text as pairs whose winner is the shorter, and the like: over all prompts.

A judge that likes length picks longer winners, and a policy trained on them learns length. Dropping the surplus leaves
as few such hints as the pairs allow.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import defaultdict
from collections.abc import Callable, Sequence

from flexreward.errors import RecipeError
from flexreward.pairs.keep import JudgedPair

Trait = Callable[[JudgedPair], int | None]
"""On which of two sides a kept pair is, 0 or 1; ``None`` on neither."""


def longer_won(pair: JudgedPair) -> int | None:
    """``None`` where both are equally long."""
    won, lost = pair.lengths[pair.chosen], pair.lengths[1 - pair.chosen]
    return None if won == lost else int(won > lost)


def earlier_won(pair: JudgedPair) -> int:
    """Whether the completion won that stands first in the sample."""
    return 1 - pair.chosen


TRAITS: dict[str, Trait] = {"length": longer_won, "position": earlier_won}


def parse_balance(text: str) -> tuple[Trait, ...]:
    """``--balance``: traits between commas.

    Raises:
        RecipeError: One is none.
    """
    names = [name.strip() for name in text.split(",")] if text.strip() else []
    for name in names:
        if name not in TRAITS:
            raise RecipeError(f"--balance {name!r}: expected {' or '.join(TRAITS)}, or both between a comma")
    return tuple(TRAITS[name] for name in dict.fromkeys(names))


class Balance:
    """Drops as few pairs as leave each trait's sides equal, drawn by (seed, id). To be shown all pairs first.

    With the sides of every trait turned around, a kind of pairs becomes its opposite: of both as many are kept as there
    are of the rarer.

    Args:
        traits: Without any, nothing is dropped.
    """

    def __init__(self, traits: Sequence[Trait] = (), *, seed: int = 0) -> None:
        self._traits = traits
        self._seed = seed
        self._ranks: dict[tuple[int | None, ...], array[int]] = defaultdict(lambda: array("Q"))
        self._last: dict[tuple[int | None, ...], int] = {}

    def show(self, pair: JudgedPair) -> None:
        """One that is kept by all else."""
        self._ranks[self._kind(pair)].append(self._rank(pair))
        self._last.clear()

    def reason(self, pair: JudgedPair) -> str | None:
        """``unbalanced``, or ``None`` where it is kept."""
        if not self._traits:
            return None
        kind = self._kind(pair)
        if kind not in self._last:
            opposite = tuple(None if side is None else 1 - side for side in kind)
            count = min(len(self._ranks[kind]), len(self._ranks[opposite]))
            self._last[kind] = sorted(self._ranks[kind])[count - 1] if count else -1
        return None if self._rank(pair) <= self._last[kind] else "unbalanced"

    def _kind(self, pair: JudgedPair) -> tuple[int | None, ...]:
        return tuple(trait(pair) for trait in self._traits)

    def _rank(self, pair: JudgedPair) -> int:
        return int.from_bytes(hashlib.blake2b(f"{self._seed}:{pair.id}".encode(), digest_size=8).digest())
