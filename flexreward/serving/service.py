"""The judges of a server as its routes see them: rewards of items in groups, and judgments. No HTTP, no Ray.

items -> groups -> here, or with what other calls bring (see ``cohort``) -> judge_group -> [Rewarded]
"""

from __future__ import annotations

import asyncio
import secrets
from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from flexreward.errors import SampleError, UserError
from flexreward.fingerprint import digest
from flexreward.groups import GroupOutcome, Method, check_method, compares, judge_group
from flexreward.inflight import together
from flexreward.judge import Judge
from flexreward.serving.cohort import LEASE_S, Answer, Joining, State
from flexreward.serving.contract import Caller, Judged, Rewarded, RewardItem
from flexreward.templates import load_template
from flexreward.types import Completion, JudgeRequest, Judgment, Media, Message, Reason, Verdict

POLL_S = 5.0
"""Longest wait in one call to the owner of the cohorts."""
GATHER = 0.5
"""Share of a call's time that it waits for the rest of its group; the rest is for judging."""
DEADLINE_S = 300.0
FITTING = {1: "score", 2: "pair"}
LISTWISE = "batch"
VARIANTS = 1024
"""Of judges, by caller and template, that are kept."""


class CohortsLike(Protocol):
    """``Cohorts``, or a handle to the process that owns it."""

    async def join(self, joining: Joining, timeout_s: float) -> Answer: ...

    async def leave(self, key: str, seat: str) -> None: ...

    async def renew(self, key: str, lease: str) -> bool: ...

    async def release(self, key: str, lease: str, rewards: Sequence[Rewarded]) -> bool: ...


class JudgeService:
    """A ``contract.Service``.

    Args:
        judges: By name; the first answers where none is named.
        cohorts: Where members of a group that come in different calls meet.
        method: How a reward comes about (see ``flexreward.groups``).
        fitting: Judges that read a request by the template that fits its number of completions, where theirs does not.
        deadline_s: Longest time for one call.
        gather_s: Longest wait for the rest of a group, at most half of a call's time.
        share_verdicts: Whether what was bought under one key answers the same request under another.
        max_in_flight: Judgments at work at once.

    Raises:
        RecipeError: The method does not go with a judge's template.
    """

    def __init__(
        self,
        judges: Mapping[str, Judge],
        cohorts: CohortsLike,
        *,
        method: str = "score",
        fitting: Sequence[str] = (),
        deadline_s: float = DEADLINE_S,
        gather_s: float = DEADLINE_S,
        share_verdicts: bool = False,
        max_in_flight: int = 256,
    ) -> None:
        assert judges
        self._judges = dict(judges)
        self._cohorts = cohorts
        self._methods: dict[str, Method] = {
            name: check_method(method, num_completions=judge.template.num_completions, template=judge.template.id)
            for name, judge in judges.items()
        }
        self._fitting = frozenset(fitting)
        self._deadline_s = deadline_s
        self._gather_s = gather_s
        self._share_verdicts = share_verdicts
        self._slots = asyncio.Semaphore(max_in_flight)
        self._variants: dict[tuple[str, str, str], Judge] = {}
        self._leaving: set[asyncio.Future[None]] = set()

    async def rewards(
        self, items: Sequence[RewardItem], *, caller: Caller, judge: str = "", deadline_s: float | None = None
    ) -> list[Rewarded]:
        """See ``contract.Service``."""
        until = self._until(deadline_s)
        name, used = self._judge(judge, caller)
        for place, item in enumerate(items):
            _check_shown(used, item, f"items[{place}]")
        names = await asyncio.to_thread(lambda: [_names(item) for item in items])  # media may have to be read
        groups = _groups(items, names)
        call = _Call(name, used, caller.namespace, until)
        answers = await together(*(self._answered(call, group) for group in groups))
        found = {
            place: rewarded
            for group, rewards in zip(groups, answers, strict=True)
            for place, rewarded in zip(group.places, rewards, strict=True)
        }
        return [found[place] for place in range(len(items))]

    async def judge(
        self,
        requests: Sequence[JudgeRequest],
        *,
        caller: Caller,
        judge: str = "",
        template: str = "",
        deadline_s: float | None = None,
    ) -> AsyncGenerator[Judged, None]:
        """See ``contract.Service``. Closing it cancels what runs."""
        until = self._until(deadline_s)
        name, used = self._judge(judge, caller, template)
        shown = [template or self._template_for(name, used, len(request.completions)) for request in requests]
        judges = [self._judge(name, caller, one)[1] for one in shown]
        for place, (one, request) in enumerate(zip(judges, requests, strict=True)):
            _rendered(one, request, f"requests[{place}]")

        async def judged(place: int) -> Judged:
            return Judged(index=place, judgment=await self._ask(judges[place], requests[place], until))

        tasks = [asyncio.create_task(judged(place)) for place in range(len(requests))]
        try:
            for ended in asyncio.as_completed(tasks):
                yield await ended
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _until(self, deadline_s: float | None) -> float:
        return _now() + (self._deadline_s if deadline_s is None else min(deadline_s, self._deadline_s))

    def _judge(self, name: str, caller: Caller, template: str = "") -> tuple[str, Judge]:
        """The judge that is meant, with a template or its own, for this caller."""
        if not name:
            name = next(iter(self._judges))
        if name not in self._judges:
            raise UserError(f"judge: {name!r} is unknown, expected one of {', '.join(self._judges)}")
        judge = self._judges[name]
        namespace = None if self._share_verdicts else caller.namespace
        if not namespace and not template:
            return name, judge
        key = (name, namespace or "", template)
        if key not in self._variants:
            if len(self._variants) >= VARIANTS:
                self._variants.clear()
            shown = load_template(template) if template else None
            self._variants[key] = judge.variant(template=shown, namespace=namespace)
        return name, self._variants[key]

    def _template_for(self, name: str, judge: Judge, count: int) -> str:
        """The one that fits so many completions, where the judge's own does not; empty where it stays."""
        own = judge.template.num_completions
        if name not in self._fitting or count == own or (own is None and count > 1):
            return ""
        return FITTING.get(count, LISTWISE)

    async def _ask(self, judge: Judge, request: JudgeRequest, until: float) -> Judgment:
        """A judgment by then; whoever gets no slot in time is unscored, as the judge says it."""
        limit = asyncio.timeout_at(until)
        try:
            async with limit:
                await self._slots.acquire()
        except TimeoutError:
            return await judge.judge(request, until=until)
        try:
            return await judge.judge(request, until=until)
        finally:
            self._slots.release()

    async def _answered(self, call: _Call, group: _Group) -> list[Rewarded]:
        method = self._methods[call.name]
        whole = group.size == len(group.items)
        if whole or not compares(method, num_completions=call.judge.template.num_completions):
            return await self._judged(call, group.shared, group.items, group.names)
        return await self._gathered(call, group)

    async def _gathered(self, call: _Call, group: _Group) -> list[Rewarded]:
        """Rewards of members whose group comes in several calls."""
        left = call.until - _now()
        joining = Joining(
            key=digest([call.namespace, call.name, *group.called]),
            shared=group.shared,
            title=f"group {group.title!r}",
            seat=secrets.token_hex(8),
            items=group.items,
            names=group.names,
            size=group.size,
            gather_s=min(self._gather_s, GATHER * left),
            left_s=left,
        )
        state = State.WAITING
        try:
            while (left := call.until - _now()) > 0:
                answer = await self._cohorts.join(joining, min(POLL_S, left))
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
            names = [_names(item).member for item in answer.items]
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
            return await self._ask(call.judge, request, call.until)

        outcome = await judge_group(
            ask, request, method=self._methods[call.name], num_completions=call.judge.template.num_completions
        )
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
    return Rewarded(
        reward=outcome.rewards[member],
        score=sum(scores) / len(scores) if scores else None,
        reason=lost.reason if lost else None,
        detail=detail,
        reasoning=reasoning,
        flipped=any(flips) if flips else None,
        tokens=round(sum(judgment.completion_tokens / len(members) for members, judgment in of)),
        seconds=seconds,
    )


class _Names(NamedTuple):
    shared: str
    """Digest of what all members of a group share."""
    member: str
    """By which a member is known."""


class _Call(NamedTuple):
    name: str
    judge: Judge
    namespace: str
    until: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """Items of one call that are of one group."""

    places: tuple[int, ...]
    """In the call."""
    items: tuple[RewardItem, ...]
    names: tuple[str, ...]
    shared: str
    called: tuple[str | int | None, ...]
    """What tells it from other groups, in whatever call."""
    title: str
    size: int


def _groups(items: Sequence[RewardItem], names: Sequence[_Names]) -> list[_Group]:
    """The groups of a call.

    Raises:
        UserError: One mixes prompts or sizes, or is larger than it says.
    """
    by_name: dict[tuple[str | int | None, ...], list[int]] = defaultdict(list)
    for place, (item, named) in enumerate(zip(items, names, strict=True)):
        # A name says which group it is, whatever its prompt; without one the prompt does.
        which = ("named", item.group) if item.group else ("prompt", named.shared)
        by_name[(item.run, item.step, *which)].append(place)
    found: list[_Group] = []
    for called, places in by_name.items():
        title = items[places[0]].group or f"of items[{places[0]}]"
        if other := next((i for i in places if names[i].shared != names[places[0]].shared), None):
            raise UserError(
                f"items[{other}]: the group {title!r} mixes prompts, or what is shown with them; give each prompt a "
                "group of its own, or leave the name out"
            )
        sizes = {items[place].group_size for place in places}
        if len(sizes) > 1:
            raise UserError(f"items[{places[0]}]: the group {title!r} has several group_size, expected one")
        size = sizes.pop()
        if size is not None and len(places) > size and items[places[0]].group:
            raise UserError(f"items[{places[0]}]: the group {title!r} has {len(places)} members and group_size {size}")
        step = len(places) if size is None else size  # several groups of one prompt follow each other
        for start in range(0, len(places), step):
            own = tuple(places[start : start + step])
            found.append(
                _Group(
                    places=own,
                    items=tuple(items[place] for place in own),
                    names=tuple(names[place].member for place in own),
                    shared=names[own[0]].shared,
                    called=called,
                    title=title,
                    size=len(own) if size is None else size,
                )
            )
    return found


def _names(item: RewardItem) -> _Names:
    shared = [_plain(item.prompt), [_plain(one) for one in item.media], item.rubric, item.reference, item.molecules]
    return _Names(digest(shared), f"{digest(_plain(item.completion))}:{item.id}")


def _plain(value: Completion) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, Media):
        return [value.kind, value.digest, value.size]
    return [[turn.role, _content(turn)] for turn in value]


def _content(turn: Message) -> Any:
    return turn.content if isinstance(turn.content, str) else [_plain(piece) for piece in turn.content]


def _check_shown(judge: Judge, item: RewardItem, where: str) -> None:
    """That the judge's template can show the item, whatever else is in its group."""
    request = JudgeRequest(
        prompt=item.prompt,
        completions=(item.completion,) * (judge.template.num_completions or 2),
        media=item.media,
        rubric=item.rubric,
        reference=item.reference,
        molecules=item.molecules,
    )
    _rendered(judge, request, where)


def _rendered(judge: Judge, request: JudgeRequest, where: str) -> None:
    try:
        judge.template.render(request, prefill=judge.prefill)
    except SampleError as error:
        raise type(error)(f"{where}: {error}") from error


def _now() -> float:
    return asyncio.get_running_loop().time()
