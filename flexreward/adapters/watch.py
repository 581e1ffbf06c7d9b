"""What a trainer logs of a batch of rewards, and when a training has gone blind. Pure."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Sequence
from statistics import fmean, pstdev
from typing import NamedTuple

from flexreward.errors import UserError
from flexreward.serving.contract import Rewarded
from flexreward.types import Reason

WINDOW = 256
"""Completions that the correlation with length looks back on: one batch is too few."""


class Scored(NamedTuple):
    """One completion of a batch, and what became of it."""

    group: str
    length: int
    """Tokens, or characters where the trainer tells no tokens."""
    result: Rewarded


class BlindError(UserError):
    """A training without rewards learns nothing, and is stopped."""


class Figures:
    """Numbers of each batch, always under the same names, as processes that log together need it."""

    def __init__(self) -> None:
        self._recent: deque[tuple[float, float]] = deque(maxlen=WINDOW)

    def of(self, batch: Sequence[Scored], *, seconds: float) -> dict[str, float]:
        """Shares are of the batch; the scores' mean and spread are NaN where there is no score at all.

        Args:
            seconds: That the batch took.
        """
        scored = [one for one in batch if one.result.reward is not None]
        scores = [_score(one.result) for one in scored]
        self._recent.extend((_reward(one.result), float(one.length)) for one in scored)
        reasons = Counter(one.result.reason for one in batch if one.result.reward is None)
        count = max(len(batch), 1)
        return {
            "score_mean": fmean(scores) if scores else math.nan,
            "score_std": pstdev(scores) if scores else math.nan,
            "unscored": (len(batch) - len(scored)) / count,
            **{f"unscored/{reason.value}": reasons[reason] / count for reason in Reason},
            "flip_rate": sum(one.result.flipped is True for one in batch) / count,
            "latency_s": seconds,
            "tokens": sum(one.result.tokens for one in batch) / count,
            "length_correlation": correlation(self._recent),
            "zero_spread_groups": zero_spread(batch),
        }


class Patience:
    """Ends a training that has gone ``steps`` steps without a single score."""

    def __init__(self, steps: int) -> None:
        self._most = steps
        self._silent = 0
        self._last_scored: int | None = None
        self._last_silent: int | None = None

    def see(self, step: int, results: Sequence[Rewarded], *, where: str) -> None:
        """Take note of a batch; several batches may belong to one step.

        Raises:
            BlindError: It was one too many; one line with the reasons.
        """
        if not results:
            return
        if any(result.reward is not None for result in results):
            self._silent, self._last_scored = 0, step
            return
        if step in (self._last_scored, self._last_silent):
            return
        self._silent, self._last_silent = self._silent + 1, step
        if self._silent >= self._most:
            raise BlindError(f"{where}: nothing was scored in {self._silent} steps; stopped. {said_of(results)}")


def said_of(results: Sequence[Rewarded]) -> str:
    """Why results are unscored: counts, and the words of the most frequent reason."""
    reasons = Counter(result.reason for result in results if result.reward is None)
    counts = ", ".join(f"{reason.value} {count}" for reason, count in reasons.most_common() if reason is not None)
    most = reasons.most_common(1)[0][0] if reasons else None
    detail = next((result.detail for result in results if result.reason is most and result.detail), "")
    hints = {Reason.CUT_COMPLETION: "give the policy a larger max_completion_length, or set cut: judged"}
    detail = detail or (hints.get(most, "") if most is not None else "")
    return f"Unscored in the last: {counts}{f' ({detail})' if detail else ''}"


def correlation(points: Sequence[tuple[float, float]] | deque[tuple[float, float]]) -> float:
    """Pearson's, of pairs; 0 where one side does not vary."""
    if len(points) < 2:
        return 0.0
    mean_x, mean_y = fmean(x for x, _ in points), fmean(y for _, y in points)
    xx = sum((x - mean_x) ** 2 for x, _ in points)
    yy = sum((y - mean_y) ** 2 for _, y in points)
    if xx <= 1e-12 or yy <= 1e-12:
        return 0.0
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / math.sqrt(xx * yy)


def zero_spread(batch: Sequence[Scored]) -> float:
    """Share of the groups whose scored members, two or more, all have one reward: nothing can be learned from them."""
    groups: dict[str, list[float]] = {}
    for one in batch:
        group = groups.setdefault(one.group, [])
        if one.result.reward is not None:
            group.append(one.result.reward)
    flat = sum(len(rewards) > 1 and max(rewards) - min(rewards) < 1e-9 for rewards in groups.values())
    return flat / max(len(groups), 1)


def _score(result: Rewarded) -> float:
    """On the template's scale, or the reward where a judge gives no score."""
    return result.score if result.score is not None else _reward(result)


def _reward(result: Rewarded) -> float:
    assert result.reward is not None
    return result.reward
