"""Which judged pairs become preference pairs. Rules are pure functions over what was judged: a new one calls no judge.

Always in force: both orders could be read, and both name the same strict winner. The rest is asked for:

    consistent          nothing more (the default)
    margin=2            the averaged scores are at least 2 apart
    widest=1            of each prompt, only the pair that is furthest apart
    ratio=2             the longer text is at most twice as long as the shorter
    first               the earlier of the two completions won: where that is the cooler sample, the published rule
    uncut               neither text was cut at its limit of tokens
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from flexreward.errors import RecipeError


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedPair:
    """Two completions of one prompt with what the judge said of them in each order."""

    id: str
    indices: tuple[int, int]
    """Of the completions in their sample."""
    scores: tuple[float, float] | None
    """Averaged over the orders; ``None`` where the pair is unscored."""
    orders: tuple[tuple[float, float] | None, ...]
    """The scores of each order, by completion; ``None`` where it could not be read."""
    lengths: tuple[int, int] = (0, 0)
    """Of the two texts, in characters."""
    cut: bool = False
    """Whether one of the two was cut at its limit of tokens."""

    @property
    def winners(self) -> list[int | None]:
        """Which of the two each readable order prefers, ``None`` for a tie."""
        return [None if s[0] == s[1] else int(s[1] > s[0]) for s in self.orders if s is not None]

    @property
    def readable(self) -> bool:
        """Whether both orders could be read."""
        return self.scores is not None and len(self.orders) == 2 and len(self.winners) == 2

    @property
    def margin(self) -> float:
        """How far the averaged scores are apart; 0 where there are none."""
        return abs(self.scores[0] - self.scores[1]) if self.scores else 0.0

    @property
    def chosen(self) -> int:
        """Which of the two, 0 or 1, has the better averaged score."""
        assert self.scores is not None
        return int(self.scores[1] > self.scores[0])


KEEP = "consistent, margin=NUMBER, widest=COUNT, ratio=NUMBER (1 or more), first or uncut"
Rule = Callable[[Sequence[JudgedPair]], list[str | None]]
"""For the pairs of one prompt that are still kept: why each is dropped, or ``None``."""


DISAGREEMENTS = frozenset(("unscored", "tied", "half_tied", "flipped"))


def disagreement(pair: JudgedPair) -> str | None:
    """Why the orders do not name one strict winner, or ``None`` if they do.

    ``unscored``: not both could be read. ``tied``: both tie. ``flipped``: each names another winner. ``half_tied``: one
    names a winner, the other ties.
    """
    if pair.scores is None or len(winners := pair.winners) != 2 or len(pair.orders) != 2:
        return "unscored"
    first, second = winners
    if first is None and second is None:
        return "tied"
    if first is None or second is None:
        return "half_tied"
    return None if first == second else "flipped"


def consistent(pairs: Sequence[JudgedPair]) -> list[str | None]:
    """Drops what has a disagreement."""
    return [disagreement(pair) for pair in pairs]


def margin(at_least: float) -> Rule:
    """Drops (``margin``) what is less than ``at_least`` apart."""
    return lambda pairs: [None if pair.margin >= at_least else "margin" for pair in pairs]


def widest(count: int) -> Rule:
    """Drops (``not_widest``) all but the ``count`` pairs of a prompt that are furthest apart, the earlier of equals."""

    def rule(pairs: Sequence[JudgedPair]) -> list[str | None]:
        order = sorted(range(len(pairs)), key=lambda i: (-pairs[i].margin, i))
        return [None if i in order[:count] else "not_widest" for i in range(len(pairs))]

    return rule


def ratio(at_most: float) -> Rule:
    """Drops (``ratio``) what differs in length by more than the factor ``at_most``."""

    def is_close(pair: JudgedPair) -> bool:
        shorter, longer = sorted(pair.lengths)
        return longer <= at_most * shorter

    return lambda pairs: [None if is_close(pair) else "ratio" for pair in pairs]


def first(pairs: Sequence[JudgedPair]) -> list[str | None]:
    """Drops (``not_first``) what the later of the two completions won.

    Of samples at temperatures 0.8 and 1.2, in this order, it keeps what the cooler one won.

    Source: FLEX-Judge, arXiv 2505.18601, appendix B.4.2.
    """
    return [None if pair.chosen == 0 else "not_first" for pair in pairs]


def uncut(pairs: Sequence[JudgedPair]) -> list[str | None]:
    """Drops (``cut``) what holds a text that was cut at its limit: a policy would learn to stop in mid-sentence."""
    return ["cut" if pair.cut else None for pair in pairs]


def parse_keep(text: str) -> tuple[Rule, ...]:
    """``--keep``: rules between commas, applied in their order, after ``consistent``."""
    rules: list[Rule] = [consistent]
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        try:
            match name:
                case "consistent" if not value:
                    pass
                case "margin" if float(value) > 0:
                    rules.append(margin(float(value)))
                case "widest" if int(value) > 0:
                    rules.append(widest(int(value)))
                case "ratio" if float(value) >= 1:
                    rules.append(ratio(float(value)))
                case "first" if not value:
                    rules.append(first)
                case "uncut" if not value:
                    rules.append(uncut)
                case _:
                    raise ValueError
        except ValueError as error:
            raise RecipeError(f"--keep {part!r}: expected {KEEP}") from error
    return tuple(rules)


def sort_out(pairs: Sequence[JudgedPair], rules: Sequence[Rule]) -> list[str | None]:
    """For the pairs of one prompt: why each is dropped, or ``None``. Each rule sees what the ones before it kept."""
    reasons: list[str | None] = [None] * len(pairs)
    for rule in rules:
        kept = [i for i, reason in enumerate(reasons) if reason is None]
        if not kept:
            break
        for i, reason in zip(kept, rule([pairs[i] for i in kept]), strict=True):
            reasons[i] = reason
    return reasons


@dataclass(slots=True)
class PairCounts:
    """What became of all pairs."""

    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    judged: int = 0
    readable: int = 0
    """Judged, and both orders could be read."""
    tied: int = 0
    half_tied: int = 0
    flipped: int = 0
    """Each order names another winner: the judge followed the place, not the completion."""
    flipped_to_slot_1: int = 0
    """Of these, how often it preferred whatever stood first."""

    def add(self, pair: JudgedPair, reason: str | None) -> None:
        """Count one judged pair and why it was dropped, if it was."""
        self.judged += 1
        self.readable += pair.readable
        match disagreement(pair):
            case "tied":
                self.tied += 1
            case "half_tied":
                self.half_tied += 1
            case "flipped":
                self.flipped += 1
                self.flipped_to_slot_1 += pair.winners[0] == 0
        if reason is None:
            self.kept += 1
        else:
            self.dropped[reason] += 1

    @property
    def flip_rate(self) -> float | None:
        """Share of the readable pairs whose orders name different strict winners; ties of one order count apart."""
        return self.flipped / self.readable if self.readable else None

    def summary(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "pairs": {
                "kept": self.kept,
                "dropped": dict(sorted(self.dropped.items(), key=lambda item: (-item[1], item[0]))),
                "tied": self.tied,
                "judged": self.judged,
                "readable": self.readable,
                "flipped_to_slot_1": self.flipped_to_slot_1,
            },
            "flip_rate": self.flip_rate,
            "half_tied_rate": self.half_tied / self.readable if self.readable else None,
        }
