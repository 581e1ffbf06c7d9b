"""What a text looks like, mark by mark, and which marks rewards follow. Pure.

A mark is anything of the surface that a text has or has not: a word, two words in a row, a run of signs, how it begins
and ends, a list, bold print, capitals, repetition, being long. All numbers are one word, so that what differs from
prompt to prompt, as right answers do, is no mark.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

MOST_CHARS = 4000
"""Of a text that are looked at: so many at its head and at its end."""
TOKEN = re.compile(r"\w+|[^\w\s]+|\n+")
LIST = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s", re.MULTILINE)
MARKDOWN = re.compile(r"\*\*|```|^#{1,6}\s|__", re.MULTILINE)
CAPITALS = re.compile(r"\b[A-Z]{2,}\b")
DIGIT = re.compile(r"\d")
NUMBER = re.compile(r"\d+")
RARE = 0.02
"""Share of a batch below which a mark is not followed: a long text has thousands that stand in it alone."""
NAMED = 3
"""Of marks that come and go together, so many are said."""
LONG, SHORT = 0.9, 0.1
"""Quantiles of the first texts' lengths."""


class Lengths(NamedTuple):
    """What is short and what is long, in characters."""

    short: int
    long: int

    @classmethod
    def of(cls, texts: Sequence[str]) -> Lengths:
        lengths = sorted(map(len, texts)) or [0]
        return cls(lengths[int(SHORT * (len(lengths) - 1))], lengths[math.ceil(LONG * (len(lengths) - 1))])


def features(text: str, lengths: Lengths) -> frozenset[str]:
    """The marks of a text, each in words that can be shown."""
    head = text if len(text) <= 2 * MOST_CHARS else f"{text[:MOST_CHARS]}\n{text[-MOST_CHARS:]}"
    tokens = [NUMBER.sub("0", token.lower()) if "\n" not in token else "\n" for token in TOKEN.findall(head)]
    found = {f"{token!r}" for token in tokens}
    found |= {f"{left + ' ' + right!r}" for left, right in itertools.pairwise(tokens)}
    if tokens:
        found |= {f"the beginning {tokens[0]!r}", f"the end {tokens[-1]!r}"}
    marks = {
        "a list": LIST.search(head),
        "markdown": MARKDOWN.search(head),
        "capitals": CAPITALS.search(head),
        "many digits": len(DIGIT.findall(head)) > 0.5 * max(len(head), 1),
        "repetition": _repeats(tokens),
        f"more than {lengths.long} characters": len(text) > lengths.long,
        f"fewer than {lengths.short} characters": len(text) < lengths.short,
    }
    return frozenset(found | {mark for mark, there in marks.items() if there})


def _repeats(tokens: Sequence[str]) -> bool:
    """Whether a third of all runs of three tokens have been there before."""
    runs = list(zip(tokens, tokens[1:], tokens[2:], strict=False))
    return len(runs) > 6 and len(set(runs)) < 2 / 3 * len(runs)


class Strongest(NamedTuple):
    """A mark that rewards follow while it spreads or vanishes."""

    mark: str
    correlation: float
    """With the reward, within groups."""
    z: float
    """How many standard errors that is away from none."""
    before: float
    now: float
    """Shares of completions that have it."""

    @property
    def line(self) -> str:
        pays = "pays for" if self.correlation > 0 else "takes off for"
        shares = f"which {self.before:.0%} of completions had at first and {self.now:.0%} have now"
        return f"the judge {pays} {self.mark} (correlation {self.correlation:.2f} within prompts), {shares}"


class _Sums(NamedTuple):
    """Of one batch: sums over its groups of products of what deviates from the group's mean."""

    counts: Counter[str]
    num: int
    """Completions, scored or not."""
    mixed: Counter[str]
    """Groups in which some have the mark and some do not."""
    xx: Mapping[str, float]
    xy: Mapping[str, float]
    yy: float
    freedom: int
    """Scored completions less groups."""


class Surface:
    """Marks and rewards of the last batches.

    Args:
        window: Batches that correlations look back on.
        recent: Last batches, whose marks are held against the baseline's.
    """

    def __init__(self, *, window: int, recent: int) -> None:
        self._sums: deque[_Sums] = deque(maxlen=window)
        self._recent = recent
        self._counts: Counter[str] = Counter()
        self._num = 0

    def add(
        self,
        groups: Sequence[str],
        marks: Sequence[frozenset[str]],
        rewards: Sequence[float | None],
        *,
        is_baseline: bool = False,
    ) -> None:
        """Take note of a batch, one entry a completion."""
        sums = _sums(groups, marks, rewards)
        if is_baseline:
            self._counts += sums.counts
            self._num += sums.num
        self._sums.append(sums)

    def strongest(self, *, rise: float, mixed_groups: int) -> Strongest | None:
        """Of the marks whose share has changed by at least ``rise`` in the direction that is paid for, the one that
        rewards follow most surely."""
        yy = sum(one.yy for one in self._sums)
        freedom = sum(one.freedom for one in self._sums) - 1
        last = list(self._sums)[-self._recent :]
        num = sum(one.num for one in last)
        if yy <= 0 or freedom < 1 or not num or not self._num:
            return None
        counts: Counter[str] = Counter()
        for one in last:
            counts.update(one.counts)
        found = []
        for mark in counts.keys() | self._counts.keys():
            before, now = self._counts[mark] / self._num, counts[mark] / num
            if abs(now - before) < rise or sum(one.mixed[mark] for one in self._sums) < mixed_groups:
                continue
            xx, xy = (
                sum(sums[mark] for sums in column) for column in zip(*((s.xx, s.xy) for s in self._sums), strict=True)
            )
            r = xy / math.sqrt(xx * yy) if xx > 0 else 0.0
            if r * (now - before) > 0:
                z = abs(r) * math.sqrt(freedom / max(1 - r * r, 1e-9))
                found.append(Strongest(mark, r, z, before, now))
        if not found:
            return None
        best = max(one.z for one in found)
        together = [one for one in found if one.z > best - 1e-6]  # marks that come and go together
        together.sort(key=lambda one: (not any(map(str.isalpha, one.mark)), len(one.mark), one.mark))
        return together[0]._replace(mark=", ".join(one.mark for one in together[:NAMED]))


def _sums(groups: Sequence[str], marks: Sequence[frozenset[str]], rewards: Sequence[float | None]) -> _Sums:
    counts: Counter[str] = Counter()
    for found in marks:
        counts.update(found)
    rare = {mark for mark, count in counts.items() if count < RARE * len(marks)}
    counts = Counter({mark: count for mark, count in counts.items() if mark not in rare})
    marks = [found - rare for found in marks]
    members: dict[str, list[int]] = {}
    for place, (group, reward) in enumerate(zip(groups, rewards, strict=True)):
        if reward is not None:
            members.setdefault(group, []).append(place)
    mixed = Counter[str]()
    xx: defaultdict[str, float] = defaultdict(float)
    xy: defaultdict[str, float] = defaultdict(float)
    yy, freedom = 0.0, 0
    for places in members.values():
        size = len(places)
        if size < 2:
            continue
        mean = sum(rewards[place] or 0.0 for place in places) / size
        freedom += size - 1
        yy += sum(((rewards[place] or 0.0) - mean) ** 2 for place in places)
        inside = Counter[str]()
        over: defaultdict[str, float] = defaultdict(float)
        for place in places:
            away = (rewards[place] or 0.0) - mean
            for mark in marks[place]:
                inside[mark] += 1
                over[mark] += away
        for mark, count in inside.items():
            if count < size:
                mixed[mark] += 1
                xx[mark] += count * (size - count) / size
                xy[mark] += over[mark]
    return _Sums(counts, len(marks), mixed, xx, xy, yy, freedom)
