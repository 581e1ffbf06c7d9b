"""How healthy the judging was: counts by reason, and the numbers with a sentence on each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from flexreward.report.folder import Fact, Folder
from flexreward.report.page import Count, Gauge
from flexreward.report.why import disagreement
from flexreward.report.words import in_words, listed, number, percent, sentence

UNJUDGED = "duplicate"
"""Pairs of equal texts: there are many, no judge sees them, and they say nothing of the judging."""


def built_pairs(folder: Folder) -> bool:
    """Whether pairs were kept and dropped, or completions only compared."""
    return bool(folder.dropped) or "pairs" in folder.summary


def counts_of(folder: Folder, statuses: Sequence[tuple[str, str]]) -> tuple[Count, ...]:
    """What became of the pairs; where none were built, of all requests.

    Args:
        statuses: Status and reason of each comparison.
    """
    if built_pairs(folder):
        return _pair_counts(folder, statuses)
    facts = [*folder.pointwise, *folder.compared]
    unscored = Counter(fact.reason or "unscored" for fact in facts if fact.scores is None)
    scored = len(facts) - sum(unscored.values())
    return (Count("scored", scored, "a verdict was read", "good"), *_bad(unscored))


def _pair_counts(folder: Folder, statuses: Sequence[tuple[str, str]]) -> tuple[Count, ...]:
    """Kept, tied, and dropped by reason: from the summary, else counted here."""
    found = folder.summary.get("pairs")
    found = found if isinstance(found, dict) else {}
    tally = Counter(reason if status == "dropped" else status for status, reason in statuses)
    dropped = found.get("dropped") or tally
    return (
        Count("kept", int(found.get("kept", tally["kept"])), "both orders name the same winner", "good"),
        Count("tied", int(found.get("tied", tally["tied"])), in_words("tied"), "plain"),
        *_bad({name: int(num) for name, num in dropped.items() if name not in ("kept", "tied", UNJUDGED)}),
    )


def _bad(counts: Mapping[str, int]) -> list[Count]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [Count(name, num, in_words(name), "bad") for name, num in ordered]


def gauges_of(folder: Folder, counts: Sequence[Count]) -> tuple[Gauge, ...]:
    """The numbers that the summary holds, else as counted here."""
    facts, summary = [*folder.pointwise, *folder.compared], folder.summary
    parsed = summary.get("parse_rate", sum(f.num_read for f in facts) / max(1, sum(f.num_replies for f in facts)))
    gauges = [Gauge("parse rate", percent(parsed), PARSE_RATE)]
    if (flip_rate := summary.get("flip_rate", _flip_rate(folder.compared))) is not None:
        gauges.append(Gauge("flip rate", percent(flip_rate), FLIP_RATE))
    if built_pairs(folder):
        kept, tied, *dropped = counts
        reasons = listed([f"{count.num:,} {count.name.replace('_', ' ')}" for count in dropped])
        words = f"{sentence(reasons)} {DROPPED}" if dropped else DROPPED
        gauges += [
            Gauge("pairs kept", f"{kept.num:,}", KEPT),
            Gauge("pairs dropped", f"{sum(count.num for count in dropped):,}", words),
            Gauge("pairs tied", f"{tied.num:,}", TIED),
        ]
    if (speed := summary.get("judgments_per_s")) is not None:
        gauges.append(Gauge("judgments a second", number(float(speed)), SPEED))
    return tuple(gauges)


def _flip_rate(facts: Sequence[Fact]) -> float | None:
    readable = [fact.winners for fact in facts if len(fact.orders) > 1 and all(fact.orders)]
    return sum(disagreement(winners) == "flipped" for winners in readable) / len(readable) if readable else None


PARSE_RATE = (
    "Replies of the judge that could be read. The rest is unscored: set aside with a reason, never counted as a zero, "
    "a middle score or a tie."
)
FLIP_RATE = (
    "Comparisons in which the winner changed when the same completions were shown in the other order. "
    "A flip means that the judge followed the place and not the content."
)
KEPT = "Both orders agree on the winner. Only these become training pairs."
DROPPED = "A pair on which the judge disagrees with itself would teach noise, so it is left out."
TIED = "Equal scores. A tie is a real verdict, but it leaves nothing to prefer, so no pair is made of it."
SPEED = "How fast the judge worked on this machine, thinking included."
