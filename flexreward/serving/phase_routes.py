"""``/v1/sleep`` and ``/v1/wake``: a judge gives its memory up for a while, to a policy that trains on the same GPUs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Protocol

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from flexreward.errors import RecipeError
from flexreward.serving.callers import admin_of
from flexreward.serving.ledger_owner import Whereabouts
from flexreward.serving.phases import Phase

POLL_S = 0.1


class PhasesLike(Protocol):
    """The owner of the phases, or a handle to it."""

    async def sleep(self, judge: str, lease_s: float) -> Whereabouts: ...

    async def wake(self, judge: str) -> Whereabouts: ...

    async def where(self, judge: str) -> Whereabouts: ...


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    judge: str = ""
    """One of the server's judges by name; its first where empty."""


class SleepBody(_Body):
    """POST /v1/sleep"""

    lease_s: Annotated[float, Field(ge=1, le=86_400)] = 300.0
    """Seconds from now, or from when it is asked again; then the judge is woken by itself."""
    wait_s: Annotated[float, Field(ge=0, le=3600)] = 60.0
    """Longest time for the answer, in seconds. With 0 it comes at once."""


class WakeBody(_Body):
    """POST /v1/wake"""

    wait_s: Annotated[float, Field(ge=0, le=3600)] = 300.0
    """As in ``SleepBody``."""


class PhaseAnswer(BaseModel):
    """Where a judge is."""

    judge: str
    phase: Phase
    """``asleep`` once its memory is free, ``awake`` once it has answered a first prompt."""
    lease_s: float
    """Seconds until it is woken by itself."""


def phase_routes(phases: PhasesLike, judges: Sequence[str]) -> APIRouter:
    """The routes, for an admin's key.

    Args:
        judges: Names of those that there are.
    """
    routes = APIRouter(dependencies=[Depends(admin_of)])

    def named(judge: str) -> str:
        if judge and judge not in judges:
            raise RecipeError(f"judge: no judge {judge!r}, expected one of {', '.join(judges)}")
        return judge or judges[0]

    async def until(judge: str, goal: Phase, found: Whereabouts, wait_s: float) -> PhaseAnswer:
        loop = asyncio.get_running_loop()
        end = loop.time() + wait_s
        while (found.rest.phase is not goal or not found.is_known) and loop.time() < end:
            await asyncio.sleep(POLL_S)
            found = await phases.where(judge)
        return PhaseAnswer(judge=judge, phase=found.rest.phase, lease_s=found.rest.left_s)

    @routes.post("/v1/sleep")
    async def sleep(body: SleepBody) -> PhaseAnswer:
        """Let nothing more in, answer what was let in, free the memory. Asked again, it renews the lease."""
        judge = named(body.judge)
        return await until(judge, Phase.ASLEEP, await phases.sleep(judge, body.lease_s), body.wait_s)

    @routes.post("/v1/wake")
    async def wake(body: WakeBody) -> PhaseAnswer:
        """Take the memory back, see that the judge says what it said before, and let requests in."""
        judge = named(body.judge)
        return await until(judge, Phase.AWAKE, await phases.wake(judge), body.wait_s)

    return routes
