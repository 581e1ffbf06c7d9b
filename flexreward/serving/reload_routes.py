"""``/v1/reload``: other weights for a judge, such as those of the next round of an iterated training."""

from __future__ import annotations

from typing import Annotated, Protocol

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from flexreward.serving.callers import admin_of
from flexreward.serving.reloading import Reloaded, Runs, State


class ReloaderLike(Protocol):
    """``Reloader``, or what stands in for it."""

    async def reload(self, *, judge: str, model: str, weights: str | None) -> Reloaded: ...

    async def runs(self) -> Runs: ...


class ReloadBody(BaseModel):
    """POST /v1/reload"""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Annotated[str, Field(min_length=1, max_length=1024)]
    """A folder in the recipe's ``reload_from``, as a path from there."""
    digest: Annotated[str | None, Field(pattern="^[0-9a-f]{64}$")] = None
    """That its weights must have, as ``flexreward.engines.weights.digest`` tells it."""
    judge: str = ""
    """One of the server's judges by name; its first where empty."""


class ReloadAnswer(BaseModel):
    """What is being rolled out."""

    judge: str
    weights: str
    """Digest."""
    recipe: str
    """Version of the recipe that holds them."""


class RunsAnswer(BaseModel):
    """Answer of GET /v1/reload: what runs."""

    recipe: str
    """Version."""
    state: State
    """``settled`` once nothing of another recipe is left: what is asked from then on is judged by ``weights``."""
    detail: str
    weights: dict[str, str | None]
    """By judge: digest of the weights that answer; ``null`` where the engine shows none."""


def reload_routes(reloader: ReloaderLike) -> APIRouter:
    """The routes, for an admin's key."""
    routes = APIRouter(dependencies=[Depends(admin_of)])

    @routes.post("/v1/reload", status_code=202)
    async def reload(body: ReloadBody) -> ReloadAnswer:
        """Check the weights, begin to roll them out, and answer: GET tells when they have arrived. What was accepted
        is answered meanwhile."""
        found = await reloader.reload(judge=body.judge, model=body.model, weights=body.digest)
        return ReloadAnswer(judge=found.judge, weights=found.weights, recipe=found.recipe.version)

    @routes.get("/v1/reload")
    async def runs() -> RunsAnswer:
        """Which recipe and which weights answer."""
        found = await reloader.runs()
        return RunsAnswer(recipe=found.recipe, state=found.state, detail=found.detail, weights=found.weights)

    return routes
