"""Single elimination: lists of completions are judged, the best of each goes on, until one is left. Pure.

Lists of two are a knockout; longer ones are what a listwise prompt holds. Who stands where is drawn from the seed and
the prompt's id. A list is decided, in this order:

    clear       the judge names one best, in every order
    averaged    the orders differ, and their averaged scores name one best
    expected    the averaged scores tie, and the expected scores (``--ties expected``) name one best
    drawn       they tie: a seeded draw among those that share the best score
    unread      no verdict: who was read in an earlier round goes on, and among several of those, or none, a seeded draw
    alone       nothing to judge: one completion, or equal ones, which are not held against each other

So what cannot be read beats nobody that was read, and nothing is said of it: it has no score at the end.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from flexreward.types import Judgment, Scale, Verdict

Members: TypeAlias = tuple[int, ...]
"""Whom a judgment showed: indices of completions, ascending; of equal ones the first."""
How: TypeAlias = Literal["clear", "averaged", "expected", "drawn", "unread", "alone"]


NO_SCALE = Scale(low=0, high=1)


class Found(NamedTuple):
    """What became of a judgment."""

    scores: tuple[float, ...] | None
    """In the order of its members, the mean of its orders; ``None`` is unscored."""
    scale: Scale
    flipped: bool = False
    """Whether its orders name different winners."""
    expected: tuple[float, ...] | None = None
    """The same by expected scores, where they were asked for and are known."""

    @property
    def shares(self) -> tuple[float, ...] | None:
        """The scores as shares of the scale."""
        return self.scores and tuple(map(self.scale.fraction, self.scores))

    @property
    def expected_shares(self) -> tuple[float, ...] | None:
        return self.expected and tuple(map(self.scale.fraction, self.expected))

    @classmethod
    def of(cls, judgment: Judgment, *, expected: tuple[float, ...] | None = None) -> Found:
        """Of a judgment that was just made."""
        flipped = judgment.consistent is False
        if isinstance(outcome := judgment.outcome, Verdict):
            return cls(outcome.scores, outcome.scale, flipped, expected)
        return cls(None, NO_SCALE, flipped)


Known: TypeAlias = Mapping[Members, Found]


class Match(NamedTuple):
    """One list, decided."""

    entrants: tuple[int, ...]
    leaves: tuple[int, ...]
    """All completions that it, and the lists below it, were about."""
    shown: Members
    winner: int
    how: How


@dataclass(frozen=True, slots=True, kw_only=True)
class Bracket:
    """How far it has come."""

    rounds: tuple[tuple[Match, ...], ...]
    """Those that are decided."""
    open: tuple[Members, ...]
    """What must be judged before it goes on; empty when one is left."""
    read: frozenset[int]
    """Completions that stood in a list with a verdict."""


def play(count: int, *, size: int, same: Sequence[int], known: Known, id: str, seed: int) -> Bracket:
    """The bracket of ``count`` completions as far as it is known.

    Args:
        size: Longest list.
        same: For each completion the first that is equal to it.
        id: The prompt's.
    """
    leaves: dict[int, tuple[int, ...]] = {i: (i,) for i in _seeded(f"{seed} {id}").sample(range(count), count)}
    left = tuple(leaves)
    rounds: list[tuple[Match, ...]] = []
    read: set[int] = set()
    while len(left) > 1:
        parts = split(left, size)
        shown = [tuple(sorted({same[i] for i in part})) for part in parts]
        if missing := tuple(dict.fromkeys(s for s in shown if len(s) > 1 and s not in known)):
            return Bracket(rounds=tuple(rounds), open=missing, read=frozenset(read))
        matches = []
        for part, members in zip(parts, shown, strict=True):
            winner, how = _decide(part, members, known, same, read, f"{seed} {id} {part}")
            below = tuple(leaf for i in part for leaf in leaves[i])
            matches.append(Match(part, below, members, winner, how))
            leaves[winner] = below
        for match in matches:
            if match.how not in ("alone", "unread"):
                read.update(match.entrants)
        rounds.append(tuple(matches))
        left = tuple(match.winner for match in matches)
    return Bracket(rounds=tuple(rounds), open=(), read=frozenset(read))


def split(entrants: tuple[int, ...], size: int) -> list[tuple[int, ...]]:
    """As few lists of at most ``size`` as there can be, of nearly equal length, the longer first."""
    num_lists = -(-len(entrants) // size)
    short, longer = divmod(len(entrants), num_lists)
    if size == 2:  # two by two, so that sizes of choices are powers of two
        return [entrants[i : i + 2] for i in range(0, len(entrants), 2)]
    bounds = [i * short + min(i, longer) for i in range(num_lists + 1)]
    return [entrants[start:end] for start, end in itertools.pairwise(bounds)]


def sizes(count: int, *, size: int) -> frozenset[int]:
    """The N of which a bracket of ``count`` holds a choice among N: within a list of the first round, or below one."""
    found = {1}
    widths = [1] * count
    while len(widths) > 1:
        parts = split(tuple(range(len(widths))), size)
        if len(widths) == count:
            found.update(range(1, max(map(len, parts)) + 1))
        widths = [sum(widths[i] for i in part) for part in parts]
        found.update(widths)
    return frozenset(found)


def top(members: Members, found: Found, texts: Sequence[int]) -> tuple[list[int], How]:
    """Which of ``texts`` share the best score of a judgment that has one, and how that came."""
    assert found.scores is not None
    scores = dict(zip(members, found.scores, strict=True))
    best = [text for text in texts if scores[text] == max(scores[one] for one in texts)]
    if len(best) == 1:
        return best, "averaged" if found.flipped else "clear"
    if found.expected is not None:
        weighed = dict(zip(members, found.expected, strict=True))
        best = [text for text in best if weighed[text] == max(weighed[one] for one in best)]
    return best, "expected" if len(best) == 1 else "drawn"


def _decide(
    part: tuple[int, ...], members: Members, known: Known, same: Sequence[int], read: set[int], draw: str
) -> tuple[int, How]:
    if len(members) == 1:
        return part[0], "alone"
    found = known[members]
    if found.scores is None:
        return _seeded(draw).choice([i for i in part if i in read] or list(part)), "unread"
    texts, how = top(members, found, members)
    best = [i for i in part if same[i] in texts]
    return (_seeded(draw).choice(best) if how == "drawn" else best[0]), how


def _seeded(text: str) -> random.Random:
    # Bytes, which seed as their text does: half a character in an id is no reason to end.
    return random.Random(text.encode("utf-8", "surrogatepass"))
