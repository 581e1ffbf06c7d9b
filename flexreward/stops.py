"""When a vote on a label may end before its last reply, and what it then says. Pure.

    stop = None      every vote is read
    stop = 0.0       lossless: end once no reply still to come can change the outcome
    stop = 0.05      statistical: end also where, for any judge, at most so many votes would end with another winner

Replies are counted in the order of their ``index``, whichever ended first. So what was read, and what it says, is the
same at every load and in every batch; and short replies, which may lean to one side, do not speak before long ones,
which the stated error would not survive. The price is the wait for a long one among the first.

A vote that may stop is a vote on a label: who wins, and by no margin. The winner gets the top of the scale and the rest
its bottom, for the mean of the winning side's scores would depend on which replies ended first, and with it the outcome
of both orders together. A tie keeps its scores, and so is never ended early. Where a template answers with labels this
is what ``majority`` says without a stop.

The quorum stays: no vote ends before more than half of all its replies were read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from math import comb

from flexreward.errors import RecipeError
from flexreward.types import Outcome, Unscored, Verdict, Vote
from flexreward.votes import aggregate

RULES = 2
"""Raised whenever the code stops elsewhere, so that no stopped vote outlives the rules that stopped it."""
MOST_ERROR = 0.25


def check_stop(stop: float | None, *, aggregate: str, num_completions: int | None) -> None:
    """Refuse a stop that nothing can be made of.

    Raises:
        RecipeError: The rate is no rate, the scores have no majority, or there is nobody to win.
    """
    if stop is None:
        return
    if not 0 <= stop <= MOST_ERROR:
        raise RecipeError(f"stop: an error of {stop:g} is none to work with, expected 0 to {MOST_ERROR:g}")
    if aggregate != "majority":
        raise RecipeError(f"stop: {aggregate} needs every vote; leave it out, or set aggregate: majority")
    if num_completions == 1:
        raise RecipeError("stop: one completion alone has no winner to vote for; leave it out, or take a pair template")


def name_of_stop(stop: float) -> str:
    """What a purchase that was ended by this rule is said to be."""
    return "lossless" if stop == 0 else f"error {stop:g}"


def decided(outcomes: Sequence[Outcome], total: int, stop: float) -> bool:
    """Whether the vote may end with these of its ``total`` outcomes: the first of them, in the order of ``index``."""
    counts = Counter(outcome.preferred for outcome in outcomes if isinstance(outcome, Verdict))
    if 2 * counts.total() <= total:
        return False
    leader = _leader(counts)
    if leader is None:
        return False
    most = counts.pop(leader)
    rest = total - len(outcomes)
    if most > max(counts.values(), default=0) + rest:
        return True
    return stop > 0 and most >= _bounds(total, stop)[len(outcomes)]


def ends_at(outcomes: Sequence[Outcome], total: int, stop: float) -> int | None:
    """How many of the first outcomes are the vote; ``None`` while it needs more than these."""
    for count in range(at_once(total), len(outcomes) + 1):
        if decided(outcomes[:count], total, stop):
            return count
    return total if len(outcomes) == total else None


def at_once(total: int) -> int:
    """Replies without which no vote of ``total`` ends: just more than half."""
    return total // 2 + 1


def label(votes: Sequence[Vote]) -> Outcome:
    """The outcome of a vote that may stop, whether or not it did."""
    outcome = aggregate(votes, "majority")
    if isinstance(outcome, Unscored):
        return outcome
    read = [vote.outcome for vote in votes if isinstance(vote.outcome, Verdict)]
    leader = _leader(Counter(verdict.preferred for verdict in read))
    if leader is None:
        return outcome
    low, high = outcome.scale.low, outcome.scale.high
    return replace(outcome, scores=tuple(high if i == leader else low for i in range(len(outcome.scores))))


def _leader(counts: Counter[int | None]) -> int | None:
    """Whom most prefer; ``None`` where most see a tie, or several have as many votes."""
    ranked = counts.most_common(2)
    if not ranked or (len(ranked) == 2 and ranked[0][1] == ranked[1][1]):
        return None
    return ranked[0][0]


@cache
def _bounds(total: int, error: float) -> tuple[int, ...]:
    """By number of replies that came: how many must prefer the leader.

    Whoever does not win the full vote outright has at most half of its replies. Let it have just half: a reply's number
    says nothing of what it says, so how many of the first m are its own is hypergeometric. The
    bound at m is the least count whose chance is below one level for all m, and that level is the highest at which the
    chance to meet any of the bounds, at any m, is at most half of ``error``: at most two can have half of the replies.
    """
    half = total // 2
    levels = sorted({chance for m in range(half + 1, total) for chance in _tails(total, half, m)})
    low, high = 0, len(levels)  # levels[:low] hold, levels[high:] do not
    while low < high:
        middle = (low + high) // 2
        if _chance_to_meet(total, half, _at_level(total, half, levels[middle])) <= error / 2:
            low = middle + 1
        else:
            high = middle
    return _at_level(total, half, levels[low - 1] if low else 0.0)


def _at_level(total: int, half: int, level: float) -> tuple[int, ...]:
    """The least counts whose chance is at most ``level``; out of reach before the quorum."""
    found = [total + 1] * (half + 1)
    for m in range(half + 1, total + 1):
        tails = _tails(total, half, m)
        found.append(next((x for x, chance in enumerate(tails) if chance <= level), total + 1))
    return tuple(found)


@cache
def _tails(total: int, half: int, m: int) -> tuple[float, ...]:
    """Chance that at least x of the first m replies are among ``half`` of ``total``, for x = 0 .. min(m, half)."""
    ways = [comb(half, x) * comb(total - half, m - x) if m >= x else 0 for x in range(min(m, half) + 1)]
    return tuple(sum(ways[x:]) / comb(total, m) for x in range(len(ways)))


def _chance_to_meet(total: int, half: int, bounds: Sequence[int]) -> float:
    """Chance that the count of ``half`` replies among all, in random order, meets a bound at any time."""
    under_way, met = {0: 1.0}, 0.0
    for m in range(1, total + 1):
        moved: dict[int, float] = {}
        for x, chance, step in _steps(under_way, total, half, m):
            if x + step >= bounds[m]:
                met += chance
            else:
                moved[x + step] = moved.get(x + step, 0.0) + chance
        under_way = moved
    return met


def _steps(under_way: dict[int, float], total: int, half: int, m: int) -> Iterator[tuple[int, float, int]]:
    """Where reply m may lead: the count before it, the chance of that way, and whether the count grows."""
    left = total - m + 1
    for x, chance in under_way.items():
        own = (half - x) / left
        yield x, chance * own, 1
        yield x, chance * (1 - own), 0
