"""Rewards of items in groups, here or with what other calls bring, over the service that judges. No HTTP, no Ray.

items -> groups -> here, or with what other calls bring (see ``cohort``) -> judge_group -> [Rewarded]
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple, Protocol

from flexreward.fingerprint import digest
from flexreward.groups import GroupOutcome, Method, compares, judge_group, num_judgments
from flexreward.inflight import together
from flexreward.serving.cohort import Answer, Joining, State
from flexreward.serving.contract import Caller, Rewarded, RewardItem
from flexreward.serving.gathering import LEASE_S
from flexreward.serving.members import Group, groups_of, names_of
from flexreward.serving.service import JudgeService
from flexreward.types import JudgeRequest, Judgment, Reason, Verdict

POLL_S = 5.0
"""Longest wait in one call to the owner of the cohorts."""
GATHER = 0.5
"""Share of a call's time that it waits for the rest of its group; the rest is for judging."""
GATHER_S = 300.0


class CohortsLike(Protocol):
    """``Cohorts``, or a handle to the process that owns it."""

    async def join(self, joining: Joining, timeout_s: float) -> Answer: ...

    async def leave(self, key: str, seat: str) -> None: ...

    async def renew(self, key: str, lease: str) -> bool: ...

    async def release(self, key: str, lease: str, rewards: Sequence[Rewarded]) -> bool: ...


class Grouping:
    """How a ``JudgeService`` comes by rewards of groups: its ``group_rewards``.

    Args:
        cohorts: Where members of a group that come in different calls meet.
        method: How a reward comes about (see ``flexreward.groups``).
        others: The same of judges where it is another, by name.
        gather_s: Longest wait for the rest of a group, at most half of a call's time.
    """

    def __init__(
        self,
        cohorts: CohortsLike,
        *,
        method: Method,
        others: Mapping[str, Method] = MappingProxyType({}),
        gather_s: float = GATHER_S,
    ) -> None:
        self._cohorts = cohorts
        self._method = method
        self._others = others
        self._gather_s = gather_s
        self._leaving: set[asyncio.Future[None]] = set()

    async def __call__(
        self, service: JudgeService, items: Sequence[RewardItem], caller: Caller, judge: str, limit_s: float
    ) -> list[Rewarded]:
        """One result an item, in order (see ``contract.Service.rewards``)."""
        method = self._others.get(judge, self._method)
        call = _Call(service, caller, judge, method, service.judges.shown_at_once(judge, method), _now() + limit_s)
        for place, item in enumerate(items):
            service.judges.check(
                _alone(item, call.shown_at_once), caller=caller, judge=judge, where=f"completions[{place}]"
            )
        names = await asyncio.to_thread(lambda: [names_of(item) for item in items])  # media may have to be read
        groups = groups_of(items, names)
        count = sum(self._num_judgments(call, group) for group in groups)
        with service.admitted(judge, count, deadline_s=limit_s) as ended:
            call = call._replace(ended=ended)
            answers = await together(*(self._answered(call, group) for group in groups))
        found = {
            place: rewarded
            for group, rewards in zip(groups, answers, strict=True)
            for place, rewarded in zip(group.places, rewards, strict=True)
        }
        return [found[place] for place in range(len(items))]

    def _num_judgments(self, call: _Call, group: Group) -> int:
        """What the group's members in this call stand for of what the whole group takes."""
        whole = num_judgments(call.method, size=group.size, num_completions=call.shown_at_once)
        return math.ceil(whole * len(group.items) / group.size)

    async def _answered(self, call: _Call, group: Group) -> list[Rewarded]:
        whole = group.size == len(group.items)
        if whole or not compares(call.method, num_completions=call.shown_at_once):
            return await self._judged(call, group.shared, group.items, group.names)
        return await self._gathered(call, group)

    async def _gathered(self, call: _Call, group: Group) -> list[Rewarded]:
        """Rewards of members whose group comes in several calls."""
        joining = Joining(
            key=digest([call.caller.namespace, call.judge, *group.called]),
            shared=group.shared,
            title=f"group {group.title!r}",
            seat=secrets.token_hex(8),
            items=group.items,
            names=group.names,
            size=group.size,
            gather_s=self._gather_s,
            left_s=0.0,
        )
        state = State.UNKNOWN
        try:
            while (left := call.until - _now()) > 0:
                known = state is not State.UNKNOWN
                asked = replace(
                    joining,
                    items=() if known else group.items,
                    gather_s=min(self._gather_s, GATHER * left),
                    left_s=left,
                )
                answer = await self._cohorts.join(asked, min(POLL_S, left))
                state = answer.state
                if state is State.RELEASED:
                    return list(answer.rewards)
                if state is State.YOURS:
                    await self._lead(call, joining, answer)
            late = "its group was still being gathered or judged when time was up"
            return [Rewarded(reward=None, reason=Reason.DEADLINE, detail=late)] * len(group.items)
        finally:
            if state is not State.RELEASED:
                self._leave(joining)

    def _leave(self, joining: Joining) -> None:
        """Without waiting for it: a call that leaves may be cancelled, and one that cannot say so falls silent."""
        leaving = asyncio.ensure_future(self._cohorts.leave(joining.key, joining.seat))
        self._leaving.add(leaving)
        leaving.add_done_callback(self._left)

    def _left(self, leaving: asyncio.Future[None]) -> None:
        self._leaving.discard(leaving)
        if not leaving.cancelled():
            leaving.exception()  # has been seen

    async def _lead(self, call: _Call, joining: Joining, answer: Answer) -> None:
        """Judge the whole group, and release what became of it to all."""

        async def renew() -> None:
            while True:
                await asyncio.sleep(LEASE_S / 4)
                await self._cohorts.renew(joining.key, answer.lease)

        renewing = asyncio.create_task(renew())
        try:
            names = [names_of(item).member for item in answer.items]
            rewarded = await self._judged(call, joining.shared, answer.items, names, answer.num_missing)
        finally:
            renewing.cancel()
        await self._cohorts.release(joining.key, answer.lease, rewarded)

    async def _judged(
        self, call: _Call, shared: str, items: Sequence[RewardItem], names: Sequence[str], num_missing: int = 0
    ) -> list[Rewarded]:
        """Rewards of one group, in the order of its items, whatever that is: it is judged in the order of its names."""
        start = _now()
        order = sorted(range(len(items)), key=lambda place: names[place])
        first = items[order[0]]
        request = JudgeRequest(
            id=shared,
            prompt=first.prompt,
            completions=tuple(items[place].completion for place in order),
            media=first.media,
            rubric=first.rubric,
            reference=first.reference,
            molecules=first.molecules,
        )

        async def ask(request: JudgeRequest) -> Judgment:
            judgment = await call.service.ask(request, caller=call.caller, judge=call.judge, until=call.until)
            call.ended()
            return judgment

        outcome = await judge_group(ask, request, method=call.method, num_completions=call.shown_at_once)
        seconds = _now() - start
        found = [rewarded(outcome, member, num_missing=num_missing, seconds=seconds) for member in range(len(order))]
        return [found[order.index(place)] for place in range(len(items))]


def rewarded(outcome: GroupOutcome, member: int, *, num_missing: int = 0, seconds: float = 0.0) -> Rewarded:
    """What became of one member of a group.

    Args:
        num_missing: Members that never came to be judged.
    """
    of = outcome.of(member)
    scores: list[float] = []
    flips: list[bool] = []
    reasoning = ""
    for members, judgment in of:
        place = members.index(outcome.same[member])
        if isinstance(judgment.outcome, Verdict):
            scores.append(judgment.outcome.scores[place])
        if len(judgment.orders) > 1 and judgment.consistent is not None:
            flips.append(not judgment.consistent)
        reasoning = reasoning or next((vote.reply.text for one in judgment.orders for vote in one.votes), "")
    lost = outcome.reason(member)
    detail = lost.detail if lost else ""
    if lost and lost.reason is Reason.ALONE and num_missing:
        detail = f"{num_missing} other member(s) of its group never came, and there is nobody to compare it with"
    known = [reward for reward in outcome.rewards if reward is not None]
    return Rewarded(
        reward=outcome.rewards[member],
        group_mean=sum(known) / len(known) if known else None,
        score=sum(scores) / len(scores) if scores else None,
        reason=lost.reason if lost else None,
        detail=detail,
        reasoning=reasoning,
        flipped=any(flips) if flips else None,
        tokens=round(sum(judgment.completion_tokens / len(members) for members, judgment in of)),
        seconds=seconds,
    )


class _Call(NamedTuple):
    service: JudgeService
    caller: Caller
    judge: str
    method: Method
    shown_at_once: int | None
    """Completions in one judgment; ``None`` is any number."""
    until: float
    ended: Callable[[], None] = lambda: None
    """To be called when a judgment has ended."""


def _alone(item: RewardItem, count: int | None) -> JudgeRequest:
    """What the judge is shown of it, whatever else is in its group."""
    return JudgeRequest(
        prompt=item.prompt,
        completions=(item.completion,) * (count or 2),
        media=item.media,
        rubric=item.rubric,
        reference=item.reference,
        molecules=item.molecules,
    )


def _now() -> float:
    return asyncio.get_running_loop().time()
