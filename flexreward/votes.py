"""Several replies to one prompt become one outcome: quorum first, then an aggregate. Pure.

The order of the votes never matters, one vote is itself, and a plurality shared by several winners is a tie: a verdict,
not a coin toss.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence

from flexreward.errors import RecipeError
from flexreward.types import Outcome, Reason, Unscored, Verdict, Vote

AGGREGATES = ("mean", "median", "majority")


def aggregate(votes: Sequence[Vote], how: str) -> Outcome:
    """One outcome of all votes, provided that more than half of them can be read.

    Args:
        votes: At least one, all of one prompt in one order.
        how: ``mean`` and ``median`` go by completion. ``majority`` counts whom each vote prefers, a tie being a choice
            like any other, and takes the mean over the votes of the winning side; with a single completion there is
            nothing to prefer, and all votes count.
    """
    if how not in AGGREGATES:
        raise RecipeError(f"unknown aggregate {how!r}, expected one of {', '.join(AGGREGATES)}")
    outcomes = [vote.outcome for vote in votes]
    if len(outcomes) == 1:
        return outcomes[0]
    verdicts = [outcome for outcome in outcomes if isinstance(outcome, Verdict)]
    if 2 * len(verdicts) <= len(outcomes):
        return no_quorum(outcomes)
    if how == "majority":
        scores = _majority(verdicts)
    else:
        scores = by_completion(mean if how == "mean" else statistics.median, verdicts)
    return Verdict(scores=scores, scale=verdicts[0].scale)


def no_quorum(outcomes: Sequence[Outcome]) -> Unscored:
    """Why too few of ``outcomes`` are verdicts: the reason that all share, else QUORUM.

    A failure of the infrastructure comes before both, since trying again may help there and only there.
    """
    counts = Counter(outcome.reason for outcome in outcomes if isinstance(outcome, Unscored))
    passing = [reason for reason in Reason if reason.is_infrastructure and reason in counts]
    if passing:
        reason = passing[0]
    elif counts.total() == len(outcomes) and len(counts) == 1:
        (reason,) = counts
    else:
        reason = Reason.QUORUM
    found = ", ".join(f"{counts[reason]} {reason}" for reason in Reason if reason in counts)
    return Unscored(reason=reason, detail=f"{len(outcomes) - counts.total()} of {len(outcomes)} readable; {found}")


def mean(values: Sequence[float]) -> float:
    """The mean, never outside of the values by a rounding error and the same in whatever order they come."""
    return min(max(math.fsum(values) / len(values), min(values)), max(values))


def by_completion(summary: Callable[[Sequence[float]], float], verdicts: Sequence[Verdict]) -> tuple[float, ...]:
    """``summary`` of each completion's scores over the verdicts."""
    return tuple(summary(scores) for scores in zip(*(verdict.scores for verdict in verdicts), strict=True))


def _majority(verdicts: Sequence[Verdict]) -> tuple[float, ...]:
    counts = Counter(verdict.preferred for verdict in verdicts)
    most = max(counts.values())
    side = [verdict for verdict in verdicts if counts[verdict.preferred] == most]
    scores = by_completion(mean, side)
    winners = {i for verdict in side for i, score in enumerate(verdict.scores) if score == max(verdict.scores)}
    if len(winners) == 1:
        return scores
    # A tie, or several winners with as many votes: they share one score, and nobody else gets above it.
    shared = mean([scores[i] for i in sorted(winners)])
    return tuple(shared if i in winners else min(score, shared) for i, score in enumerate(scores))
