"""Rewards of one group, the completions of one prompt: each on its own, or by comparing them with each other.

    score           each judged alone; by a template of pairs the mean of its scores over all others, and by a listwise
                    one its score among all
    win_rate        every two compared: the share of the others that it beats
    bradley_terry   some compared, the most telling first: the share of the others that it is expected to beat
    listwise        all shown at once, forward and reversed

Rewards follow from the judge and the order of the group alone. Equal completions are members of their own and get equal
rewards; they are never compared with each other, for that is a tie whatever a judge makes of it. What is unscored is
left out of every mean; a member without any scored comparison is ``None``.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal, NamedTuple, TypeAlias

from flexreward.bradley_terry import Pair, Result, expected_wins, next_pairs, parts, won
from flexreward.inflight import together
from flexreward.reward import Game, rewards, win_rates
from flexreward.types import Completion, JudgeRequest, Judgment, Reason, Scale, Unscored, Verdict

Method: TypeAlias = Literal["score", "win_rate", "bradley_terry", "listwise"]
Ask: TypeAlias = Callable[[JudgeRequest], Awaitable[Judgment]]
"""``Judge.judge``, or it with a limit of time and of how many run."""

SHARE = 0.5
"""Of all pairs, that Bradley-Terry compares at most."""
TIE = Verdict(scores=(0.5, 0.5), scale=Scale(low=0, high=1))


class Asked(NamedTuple):
    """One judgment, and whom it showed."""

    members: tuple[int, ...]
    """Of the group, by index, in the order of the judgment's scores. Of equal ones, the first."""
    judgment: Judgment


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupOutcome:
    """What became of one group."""

    rewards: tuple[float | None, ...]
    """In the order of the group, each in [0, 1]; ``None`` is unscored."""
    asked: tuple[Asked, ...]
    """All that was judged, in the order in which it was asked."""
    same: tuple[int, ...]
    """For each member the first that is equal to it, under whose index it is found in ``asked``."""

    def of(self, member: int) -> tuple[Asked, ...]:
        """The judgments that showed it."""
        return tuple(one for one in self.asked if self.same[member] in one.members)

    def reason(self, member: int) -> Unscored | None:
        """Why it has no reward: what befell most of its judgments; ``None`` where it has one."""
        if self.rewards[member] is not None:
            return None
        lost = [one.judgment.outcome for one in self.of(member)]
        lost_for = Counter(outcome.reason for outcome in lost if isinstance(outcome, Unscored))
        if not lost_for:
            return Unscored(reason=Reason.ALONE, detail="there is no other completion in its group to compare it with")
        commonest = lost_for.most_common(1)[0][0]
        return next(one for one in lost if isinstance(one, Unscored) and one.reason is commonest)


def compares(method: Method, *, num_completions: int | None) -> bool:
    """Whether a reward depends on the rest of the group."""
    return method != "score" or num_completions != 1


async def judge_group(
    ask: Ask, group: JudgeRequest, *, method: Method, num_completions: int | None, share: float = SHARE
) -> GroupOutcome:
    """Rewards of the completions of ``group``.

    Args:
        num_completions: As the template has it: 1, 2, or ``None`` for any number.
        share: Most of the pairs that Bradley-Terry compares; at least as many as connect all members.

    Raises:
        UserError: As ``Judge.judge``.
    """
    same = first_equals(group.completions)
    if len(same) == 1 and compares(method, num_completions=num_completions):
        return GroupOutcome(rewards=(None,), asked=(), same=same)
    distinct = sorted(set(same))
    if num_completions is None:
        everyone = tuple(range(len(same)))  # equal ones are shown too
        judgment = await ask(group)
        return GroupOutcome(rewards=rewards(judgment), asked=(Asked(everyone, judgment),), same=everyone)
    if num_completions == 1:
        asked = await _ask_all(ask, group, [(i,) for i in distinct])
        return GroupOutcome(rewards=_mean_rewards(asked, same), asked=tuple(asked), same=same)
    if method == "score":
        pairs = list(combinations(distinct, 2)) or [(0, 0)]
        asked = await _ask_all(ask, group, pairs)
        return GroupOutcome(rewards=_mean_rewards(asked, same), asked=tuple(asked), same=same)
    if method == "win_rate":
        asked = await _ask_all(ask, group, list(combinations(distinct, 2)))
        return GroupOutcome(rewards=_win_rates(asked, same), asked=tuple(asked), same=same)
    asked, expected = await _tournament(ask, group, distinct, share)
    wins = dict(zip(distinct, expected, strict=True)) if len(distinct) > 1 else {0: 0.5}
    return GroupOutcome(rewards=tuple(wins[i] for i in same), asked=tuple(asked), same=same)


def first_equals(completions: Sequence[Completion]) -> tuple[int, ...]:
    """For each completion the index of the first that is equal to it."""
    first: dict[Completion, int] = {}
    return tuple(first.setdefault(completion, i) for i, completion in enumerate(completions))


def num_pairs(size: int, *, share: float = SHARE) -> int:
    """How many pairs of ``size`` members Bradley-Terry compares: ``share`` of all, and as many as connect them."""
    return max(size - 1, int(share * (size * (size - 1) // 2)))


def num_judgments(method: Method, *, size: int, num_completions: int | None) -> int:
    """How many a group of different completions takes."""
    if num_completions is None:
        return 1
    if num_completions == 1:
        return size
    return num_pairs(size) if method == "bradley_terry" else size * (size - 1) // 2


async def _ask_all(ask: Ask, group: JudgeRequest, shown: Sequence[tuple[int, ...]]) -> list[Asked]:
    judgments = await together(*(_asked(ask, group, members) for members in shown))
    return [Asked(members, judgment) for members, judgment in zip(shown, judgments, strict=True)]


async def _asked(ask: Ask, group: JudgeRequest, members: tuple[int, ...]) -> Judgment:
    name = f"{group.id}#{'-'.join(map(str, members))}"
    return await ask(replace(group, completions=tuple(group.completions[i] for i in members), id=name))


async def _tournament(
    ask: Ask, group: JudgeRequest, distinct: Sequence[int], share: float
) -> tuple[list[Asked], list[float | None]]:
    """Rounds of comparisons, each member at most once in a round, the pairs of a round at the same time.

    Where unscored pairs leave the group in parts, at most one more a member is asked to connect them.
    """
    size = len(distinct)
    asked: list[Asked] = []
    known: set[Pair] = set()
    results: list[Result] = []
    total = num_pairs(size, share=share)
    while True:
        left = total - len(known)
        if left <= 0 and len(parts(results, size=size)) > 1:
            left = total + size - len(known)
        # Off the event loop: a large group takes tens of milliseconds.
        pairs = await asyncio.to_thread(next_pairs, results, size=size, asked=known, count=left)
        if not pairs:
            break
        known.update(pairs)
        shown = [(distinct[first], distinct[second]) for first, second in pairs]
        for pair, one in zip(pairs, await _ask_all(ask, group, shown), strict=True):
            asked.append(one)
            if isinstance(outcome := one.judgment.outcome, Verdict):
                results.append(Result(*pair, won(outcome)))
    return asked, await asyncio.to_thread(expected_wins, results, size=size)


def _mean_rewards(asked: Sequence[Asked], same: Sequence[int]) -> tuple[float | None, ...]:
    """The mean over all judgments that showed it, by the place on the template's scale."""
    found: dict[int, list[float]] = {i: [] for i in same}
    for members, judgment in asked:
        for i, value in zip(members, rewards(judgment), strict=True):
            if value is not None:
                found[i].append(value)
    return tuple(sum(found[i]) / len(found[i]) if found[i] else None for i in same)


def _win_rates(asked: Sequence[Asked], same: Sequence[int]) -> tuple[float | None, ...]:
    """Equal ones tie with each other, wherever anything is known of them."""
    of_pair = {members: judgment.outcome for members, judgment in asked}
    scored = {i for members, outcome in of_pair.items() if isinstance(outcome, Verdict) for i in members}
    games: list[Game] = []
    for first, second in combinations(range(len(same)), 2):
        one, other = same[first], same[second]
        if one != other:
            (low, high) = (first, second) if one < other else (second, first)
            games.append(Game(low, high, of_pair[same[low], same[high]]))
        elif one in scored or not asked:
            games.append(Game(first, second, TIE))
    return win_rates(games, group_size=len(same))
