"""Where rewards come from: a server, or a judge in this process. A trainer cannot tell the one from the other."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from flexreward.adapters.recipe import RewardRecipe
from flexreward.client import RewardClient
from flexreward.config import open_judge, resolve_judge
from flexreward.errors import EngineError, UserError
from flexreward.reward import reward
from flexreward.serving.contract import Rewarded, RewardItem
from flexreward.types import JudgeRequest, Judgment, Reason, Unscored, Verdict

if TYPE_CHECKING:
    from flexreward.engines.loops import LoopThread
    from flexreward.judge import Judge


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
    """A judge that lives on a loop of its own, whatever loops ask."""

    def __init__(self, recipe: RewardRecipe) -> None:
        self._recipe = recipe
        self._loop: LoopThread | None = None
        self._judge: Judge | None = None

    async def probe(self) -> None:
        from flexreward.engines.loops import LoopThread

        if self._judge is None:
            found = resolve_judge(self._recipe.judge)
            self._judge = await asyncio.to_thread(open_judge, found, template=found.template or "score")
            self._loop = LoopThread("flexreward-judge")

    async def rewards(self, items: Sequence[RewardItem]) -> list[Rewarded]:
        await self.probe()
        assert self._loop is not None
        return await asyncio.wrap_future(self._loop.submit(self._all(items)))

    async def _all(self, items: Sequence[RewardItem]) -> list[Rewarded]:
        slots = asyncio.Semaphore(64)
        until = asyncio.get_running_loop().time() + self._recipe.deadline_s

        async def one(item: RewardItem) -> Rewarded:
            try:
                async with asyncio.timeout_at(until), slots:
                    assert self._judge is not None
                    return _rewarded(await self._judge.judge(_request(item)))
            except TimeoutError:
                return Rewarded(reward=None, reason=Reason.DEADLINE, detail="no judgment in time")
            except UserError as error:
                return Rewarded(reward=None, reason=Reason.REFUSED, detail=str(error))
            except EngineError as error:
                return Rewarded(reward=None, reason=error.reason, detail=str(error))

        return list(await asyncio.gather(*(one(item) for item in items)))


def _request(item: RewardItem) -> JudgeRequest:
    return JudgeRequest(
        id=item.id,
        prompt=item.prompt,
        completions=(item.completion,),
        media=item.media,
        rubric=item.rubric,
        reference=item.reference,
        molecules=item.molecules,
    )


def _rewarded(judgment: Judgment) -> Rewarded:
    outcome = judgment.outcome
    votes = [vote for order in judgment.orders for vote in order.votes]
    return Rewarded(
        reward=reward(judgment),
        score=outcome.scores[0] if isinstance(outcome, Verdict) else None,
        reason=outcome.reason if isinstance(outcome, Unscored) else None,
        detail=outcome.detail if isinstance(outcome, Unscored) else "",
        reasoning=next((vote.reply.text for vote in votes), ""),
        tokens=judgment.completion_tokens,
        seconds=judgment.seconds,
    )
