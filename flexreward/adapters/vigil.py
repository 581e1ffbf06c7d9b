"""Reward health in one training: what is asked beside its own completions, and what becomes of an alarm."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from flexreward.monitor import CANARIES, Health, Monitor, Seen
from flexreward.serving.contract import Rewarded, RewardItem
from flexreward.types import Completion, Media, Reason

log = logging.getLogger(__name__)
PROBES = 8
"""Completions of the first group that are asked again and again."""


class Vigil:
    """Watches the rewards of one training.

    Args:
        every: Steps between two rounds of canaries and probes; 0 is never.
        withholds: Whether no reward is given while an alarm is on.
        where: What lines in the log begin with.
    """

    def __init__(self, *, every: int, withholds: bool, where: str) -> None:
        self._monitor = Monitor()
        self._every = every
        self._withholds = withholds
        self._where = where
        self._probes: list[RewardItem] = []
        self._best: RewardItem | None = None
        """Beside which canaries are judged: judges that compare need somebody to lose to."""
        self._last = 0

    def extras(self, step: int) -> list[RewardItem]:
        """What is to be judged beside the batch of this step; mostly nothing."""
        if not self._every or self._best is None or step - self._last < self._every:
            return []
        self._last = step
        best = replace(self._best, step=step, id="best", group_size=2)
        canaries = [
            one
            for name, text in CANARIES.items()
            for one in (
                replace(best, group=f"canary.{step}.{name}"),
                replace(best, group=f"canary.{step}.{name}", completion=text, id=name),
            )
        ]
        probes = [
            replace(item, group=f"probe.{step}", group_size=len(self._probes), step=step, id=str(place))
            for place, item in enumerate(self._probes)
        ]
        return [*canaries, *probes]

    def hear(self, asked: Sequence[RewardItem], results: Sequence[Rewarded]) -> None:
        """What became of the extras."""
        if not asked:
            return
        found: dict[str, dict[str, float | None]] = {"canary": {}, "probe": {}}
        for item, result in zip(asked, results, strict=True):
            if item.id != "best":
                found[item.group.partition(".")[0]][item.id] = result.reward
        self._monitor.probe(found["canary"], found["probe"])

    def see(
        self, items: Sequence[RewardItem | None], results: Sequence[Rewarded]
    ) -> tuple[Mapping[str, float], list[Rewarded]]:
        """The figures of a batch, and its results, withheld where they must be."""
        shown = [(item, result) for item, result in zip(items, results, strict=True) if item is not None]
        self._remember(shown)
        health = self._monitor.see(
            [
                Seen(
                    group=item.group,
                    text=_text(item.completion),
                    reward=result.reward,
                    flipped=result.flipped,
                    reason=result.reason,
                )
                for item, result in shown
            ]
        )
        for alarm in health.new:
            log.warning("%s: reward health: %s", self._where, alarm.line)
        if not (self._withholds and health.alarms):
            return health.figures, list(results)
        return health.figures, [_withheld(result, health) for result in results]

    def _remember(self, shown: Sequence[tuple[RewardItem, Rewarded]]) -> None:
        scored = [(result.reward, item) for item, result in shown if result.reward is not None]
        if not scored:
            return
        self._best = max(scored, key=lambda one: one[0])[1]
        if not self._probes:
            group = scored[0][1].group
            self._probes = [item for _, item in scored if item.group == group][:PROBES]


def _withheld(result: Rewarded, health: Health) -> Rewarded:
    if result.reward is None:
        return result
    return replace(result, reward=None, reason=Reason.WITHHELD, detail=health.alarms[0].line)


def _text(completion: Completion) -> str:
    if isinstance(completion, str):
        return completion
    if isinstance(completion, Media):
        return ""
    parts = [
        part for turn in completion for part in ([turn.content] if isinstance(turn.content, str) else turn.content)
    ]
    return "\n".join(part for part in parts if isinstance(part, str))
