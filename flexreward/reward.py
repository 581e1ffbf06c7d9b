"""Outcome to float | None: the last step of the road. Pure.

A reward lies in [0, 1]. What could not be scored is ``None``, never 0.0 and never a middle: what a trainer makes of it
is decided, and counted, on the trainer's side.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from flexreward.types import Judgment, Outcome, Unscored


def reward(outcome: Outcome | Judgment, index: int = 0) -> float | None:
    """Where the score of completion ``index`` lies on the template's scale, from 0.0 (low) to 1.0 (high).

    For a judgment of a calibrated judge, a probability: see ``flexreward.calibrator``.
    """
    calibrator = None
    if isinstance(outcome, Judgment):
        calibrator = outcome.calibrator
        outcome = outcome.outcome
    if isinstance(outcome, Unscored):
        return None
    if calibrator is not None:
        return calibrator.rewards(outcome.scores)[index]
    return outcome.scale.fraction(outcome.scores[index])


def rewards(judgment: Judgment) -> tuple[float | None, ...]:
    """One reward a completion, in the order of the request; all ``None`` when it is unscored."""
    num_completions = len(judgment.orders[0].order)
    return tuple(reward(judgment, index) for index in range(num_completions))


class Game(NamedTuple):
    """Two completions of a group, by their index in it, and what became of comparing them."""

    first: int
    second: int
    outcome: Outcome


def win_rates(games: Iterable[Game], *, group_size: int) -> tuple[float | None, ...]:
    """Share of the scored games that each completion of a group won, a tie counting half to both.

    ``None`` for a completion without a single scored game.
    """
    won: list[list[float]] = [[] for _ in range(group_size)]
    for first, second, outcome in games:
        if isinstance(outcome, Unscored):
            continue
        wins = {None: 0.5, 0: 1.0, 1: 0.0}[outcome.preferred]
        won[first].append(wins)
        won[second].append(1.0 - wins)
    return tuple(sum(points) / len(points) if points else None for points in won)
