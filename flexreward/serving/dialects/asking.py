"""What the dialects share: what stands in their URL, how a full server is waited for, what stands for the unscored."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field

from flexreward.errors import LaterError, SampleError
from flexreward.serving.contract import Caller, Rewarded, RewardItem, Service
from flexreward.types import Reason


class Options(BaseModel):
    """What stands behind the ``?`` of a dialect's URL."""

    model_config = ConfigDict(frozen=True)

    judge: str = ""
    """One of the server's, by name."""
    group_size: Annotated[int | None, Field(ge=1, le=4096)] = None
    """Completions of a prompt: those that come in other calls are waited for, where the judge compares them."""
    run: str = ""
    """Names the training: groups of two trainings never meet."""
    deadline_s: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = None
    """In place of the dialect's own, which is below its client's."""


Asked = Annotated[Options, Query()]


async def ask(
    service: Service, items: Sequence[RewardItem | None], *, options: Options, caller: Caller, limit_s: float
) -> list[Rewarded]:
    """One result an item; ``None`` for an item is one that could not be read.

    Such clients try again a few times and then end their training. So a server that has no room is waited for here, as
    long as the call may last, and an item that cannot be shown is unscored like any other.
    """
    until = asyncio.get_running_loop().time() + (options.deadline_s or limit_s)
    shown = [replace(item, group_size=options.group_size, run=options.run) for item in items if item is not None]
    found = iter(await _rewards(service, shown, options, caller, until) if shown else [])
    unread = Rewarded(reward=None, reason=Reason.REFUSED, detail="prompt and completion cannot be told apart")
    return [unread if item is None else next(found) for item in items]


async def _rewards(
    service: Service, items: Sequence[RewardItem], options: Options, caller: Caller, until: float
) -> list[Rewarded]:
    now = asyncio.get_running_loop().time
    failure = "there was no time to judge it"
    while (left := until - now()) > 0:
        try:
            return await service.rewards(items, caller=caller, judge=options.judge, deadline_s=left)
        except LaterError as error:
            failure = str(error)
            await asyncio.sleep(min(error.retry_after_s, max(until - now(), 0.0)))
        except SampleError as error:
            groups = _by_prompt(items)
            if len(groups) == 1:
                return [Rewarded(reward=None, reason=Reason.REFUSED, detail=str(error))] * len(items)
            # It is the fault of one: the others are not to suffer.
            calls = (_rewards(service, [items[i] for i in group], options, caller, until) for group in groups)
            answers = await asyncio.gather(*calls)
            pairs = (zip(group, told, strict=True) for group, told in zip(groups, answers, strict=True))
            found = dict(pair for group in pairs for pair in group)
            return [found[i] for i in range(len(items))]
    return [Rewarded(reward=None, reason=Reason.DEADLINE, detail=failure)] * len(items)


def finite(found: Sequence[Rewarded], items: Sequence[RewardItem | None], *, neutral: float) -> list[float]:
    """The rewards, with a number for each that is unscored: the mean of its group where there is one, else ``neutral``.

    A group is what was judged together, or else what has one prompt in this call.
    """
    groups = _by_prompt(items)
    means: list[float] = [neutral] * len(items)
    for group in groups:
        known = [reward for i in group if (reward := found[i].reward) is not None]
        for i in group:
            own = found[i].group_mean
            means[i] = own if own is not None else sum(known) / len(known) if known else neutral
    return [mean if one.reward is None else one.reward for one, mean in zip(found, means, strict=True)]


def _by_prompt(items: Sequence[RewardItem | None]) -> list[list[int]]:
    """Places of items with equal prompts; one that could not be read is alone."""
    groups: dict[object, list[int]] = defaultdict(list)
    for place, item in enumerate(items):
        groups[place if item is None else item.prompt].append(place)
    return list(groups.values())
