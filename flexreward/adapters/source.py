"""Where rewards come from: a server, or a judge in this process. A trainer cannot tell the one from the other."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from flexreward.adapters.recipe import RewardRecipe
from flexreward.client import RewardClient
from flexreward.config import open_engine, resolve_judge
from flexreward.errors import FlexRewardError, UserError
from flexreward.serving.contract import Caller, Rewarded, RewardItem, Service
from flexreward.types import Reason

if TYPE_CHECKING:
    from flexreward.engines.loops import LoopThread


GRACE_S = 1.0
"""After the deadline, for an engine that watches over none itself."""


class Source(Protocol):
    """Rewards, in full and in time."""

    async def probe(self) -> None:
        """Make ready, and see that it works. Raises UserError with one line that says what to do."""
        ...

    async def rewards(self, items: Sequence[RewardItem]) -> list[Rewarded]:
        """One result an item, in order; never raises, never outlasts the recipe's deadline."""
        ...


def source_of(recipe: RewardRecipe) -> Source:
    """The one that the recipe names; nothing is opened yet."""
    return Served(recipe) if recipe.url is not None else InProcess(recipe)


class Served:
    """A flexreward server, by connections that last for one call: a trainer's loops come and go."""

    def __init__(self, recipe: RewardRecipe) -> None:
        assert recipe.url is not None
        self._recipe = recipe
        self._client = RewardClient(recipe.url, deadline_s=recipe.deadline_s)

    async def probe(self) -> None:
        await self._client.probe(judge=self._recipe.judge)

    async def rewards(self, items: Sequence[RewardItem]) -> list[Rewarded]:
        return await self._client.rewards(items, judge=self._recipe.judge)


class InProcess:
    """A judge of this process, on a loop of its own, whatever loops ask: the server's service without the server."""

    def __init__(self, recipe: RewardRecipe) -> None:
        self._recipe = recipe
        self._loop: LoopThread | None = None
        self._service: Service | None = None

    async def probe(self) -> None:
        if self._service is None:
            from flexreward.engines.loops import LoopThread

            self._loop = LoopThread("flexreward-judge")
            self._service = await asyncio.to_thread(service_of, self._recipe)

    async def rewards(self, items: Sequence[RewardItem]) -> list[Rewarded]:
        await self.probe()
        assert self._loop is not None
        return await asyncio.wrap_future(self._loop.submit(self._rewards(items)))

    async def _rewards(self, items: Sequence[RewardItem]) -> list[Rewarded]:
        limit_s = self._recipe.deadline_s
        try:
            async with asyncio.timeout(limit_s + GRACE_S):
                return await self._asked(items, asyncio.get_running_loop().time() + limit_s)
        except TimeoutError:
            failure = Rewarded(reward=None, reason=Reason.DEADLINE, detail="no judgment in time")
        except FlexRewardError as error:
            failure = Rewarded(reward=None, reason=Reason.ENGINE, detail=str(error))
        return [failure] * len(items)

    async def _asked(self, items: Sequence[RewardItem], until: float) -> list[Rewarded]:
        """Rewards; what one group has done is not held against the others."""
        assert self._service is not None
        left_s = max(until - asyncio.get_running_loop().time(), 0.001)
        try:
            return await self._service.rewards(items, caller=Caller(), deadline_s=left_s)
        except UserError as error:
            groups = list(dict.fromkeys(item.group for item in items))
            if len(groups) < 2:
                return [Rewarded(reward=None, reason=Reason.REFUSED, detail=str(error))] * len(items)
            first = set(groups[: len(groups) // 2])
            places = [i for i, item in enumerate(items) if item.group in first]
            places += [i for i, item in enumerate(items) if item.group not in first]
            count = sum(item.group in first for item in items)
            halves = [await self._asked([items[i] for i in half], until) for half in (places[:count], places[count:])]
            found = dict(zip(places, halves[0] + halves[1], strict=True))
            return [found[i] for i in range(len(items))]


def service_of(recipe: RewardRecipe) -> Service:
    """A service over the one judge that the recipe names, its model loaded. Everything is let in: a trainer asks for
    one batch at a time.

    Raises:
        UserError: The judge cannot be loaded, or does not go with the recipe's kind of reward.
    """
    from flexreward.ledger import Ledger
    from flexreward.serving.admission import Admission
    from flexreward.serving.cohort import Cohorts
    from flexreward.serving.grouping import Grouping
    from flexreward.serving.judges import OpenJudge
    from flexreward.serving.service import JudgeService

    found = resolve_judge(recipe.judge)
    admission = Admission(lanes=found.max_in_flight, max_waiting=sys.maxsize)
    opened = OpenJudge(recipe=found, engine=open_engine(found), admission=admission)
    grouping = Grouping(Cohorts(), method=recipe.group_reward)
    return JudgeService({"judge": opened}, ledger=Ledger(None), deadline_s=recipe.deadline_s, group_rewards=grouping)
