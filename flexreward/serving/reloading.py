"""Other weights for a judge while the server runs: its recipe with another model, rolled out from within.

Whatever changes weights goes the one road of a changed recipe: so a copy that Serve starts anew later runs the new
weights too, and no two weights ever answer under one fingerprint.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from flexreward.engines.ray import RayEngine
from flexreward.engines.weights import check_whole, digest
from flexreward.errors import JudgeError, LaterError, RecipeError, WeightsError
from flexreward.ledger import Ledger
from flexreward.ledger import State as Claimed
from flexreward.serving.recipe import ServeRecipe
from flexreward.serving.service import JudgeService
from flexreward.serving.start import APP, put, why

WITHOUT_WEIGHTS = ("scripted", "openai")
LOOK_S = 5.0
TURN = "reload"
"""What is claimed in the ledger, whose other keys are digests. It is never settled."""


class State(StrEnum):
    """How far the roll-out of a recipe is."""

    ROLLING = "rolling"
    SETTLED = "settled"
    """Nothing of another recipe is left."""
    FAILED = "failed"
    """A copy does not start; what stood before still does where there was room for both."""


class Reloaded(NamedTuple):
    judge: str
    weights: str
    """Digest of the new ones."""
    recipe: ServeRecipe
    """What is to run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """What a server runs."""

    recipe: str
    """Version."""
    state: State
    detail: str
    """Why it failed, in one line."""
    weights: dict[str, str | None]
    """By judge: the digest, where its engine has one."""


def reloaded(recipe: ServeRecipe, *, judge: str, model: str, weights: str | None) -> Reloaded:
    """The recipe with other weights for a judge. Reads all of them.

    Args:
        model: A folder in ``reload_from``.
        weights: The digest that they must have.

    Raises:
        RecipeError: There is no such judge.
        WeightsError: They are not there, are others, are cut, or the judge has none that can be exchanged.
    """
    name = judge or next(iter(recipe.judges))
    if name not in recipe.judges:
        raise RecipeError(f"judge: no judge {name!r}, expected one of {', '.join(recipe.judges)}")
    served = recipe.judges[name]
    if served.judge.engine in WITHOUT_WEIGHTS:
        raise WeightsError(f"judge: the engine {served.judge.engine} of {name} has no weights here")
    if served.judge.calibrator is not None:
        raise WeightsError(f"judge: {name} has a calibrator, which was fitted to its weights; deploy both together")
    folder = _folder(recipe, model)
    try:
        check_whole(folder)
        found = digest(folder)
    except OSError as error:
        raise WeightsError(f"model: {model}: cannot be read: {error.strerror}") from error
    except JudgeError as error:
        raise WeightsError(f"model: {error}") from error
    if weights is not None and found != weights:
        raise WeightsError(f"digest: expected {weights}, found {found} in {model}; is it still being written?")
    # An adapter was trained over the weights that the judge had: over others it would be a judge that nobody made.
    options = {name: value for name, value in served.judge.options.items() if name != "lora"}
    whole = served.judge.model_copy(update={"model": str(folder), "lora": None, "options": options})
    newer = served.model_copy(update={"judge": whole, "weights": found})
    return Reloaded(name, found, recipe.model_copy(update={"judges": {**recipe.judges, name: newer}}))


def _folder(recipe: ServeRecipe, model: str) -> Path:
    """Where the weights are: nowhere but where the recipe allows, links included."""
    if recipe.reload_from is None:
        raise WeightsError("reload_from: the recipe names no folder that weights may be taken from")
    allowed = Path(recipe.reload_from).resolve()
    try:
        folder = (allowed / model).resolve()
        is_there = folder.is_dir()
    except (OSError, ValueError, RuntimeError) as error:
        raise WeightsError(f"model: {model[:100]!r} is no path") from error
    if allowed not in folder.parents:
        raise WeightsError(f"model: {model[:100]} is no folder in the recipe's reload_from")
    if not is_there:
        raise WeightsError(f"model: {model[:100]} is not there")
    return folder


class Cluster:
    """The application that this server is, as Serve runs it."""

    async def state(self) -> tuple[State, str]:
        """How far it is, and why it failed."""
        return await asyncio.to_thread(_state)

    async def put(self, recipe: ServeRecipe) -> None:
        """Begin to roll a recipe out; from then on the state is another."""
        import ray

        # In a process of its own: what describes vLLM's copies imports vLLM, which would hold up the calls here.
        await ray.remote(put).options(num_cpus=0).remote(recipe)


class Reloader:
    """``reloaded`` of a server that runs, asked at one of its ingress copies, which the roll-out replaces too.

    Each copy knows the recipe that it was made with, so two roll-outs at once would undo each other. Whoever begins one
    holds a claim in the ledger of all copies meanwhile.

    Args:
        ledger: Of all ingress copies.
    """

    def __init__(
        self, recipe: ServeRecipe, service: JudgeService, *, ledger: Ledger, cluster: Cluster | None = None
    ) -> None:
        self._recipe = recipe
        self._service = service
        self._ledger = ledger
        self._cluster = cluster or Cluster()
        self._begun: set[asyncio.Task[Reloaded]] = set()

    async def reload(self, *, judge: str, model: str, weights: str | None) -> Reloaded:
        """Begin to roll the weights out. Raises as ``reloaded`` does. A caller that goes stops nothing: what it asked
        for is begun before the next one may.

        Raises:
            LaterError: Another roll-out is under way, and this copy may know only what was before it.
        """
        begun = asyncio.create_task(self._in_turn(judge, model, weights))
        self._begun.add(begun)
        begun.add_done_callback(self._begun.discard)
        return await asyncio.shield(begun)

    async def _in_turn(self, judge: str, model: str, weights: str | None) -> Reloaded:
        if (await self._ledger.claim(TURN)).state is not Claimed.MINE:
            raise _later("another reload begins; ask again when it is through")
        try:
            state, _ = await self._cluster.state()
            if state is State.ROLLING:
                raise _later("a roll-out is under way; ask again when it is through")
            found = await asyncio.to_thread(reloaded, self._recipe, judge=judge, model=model, weights=weights)
            await self._cluster.put(found.recipe)
            return found
        finally:
            await self._ledger.release(TURN)

    async def runs(self) -> Runs:
        """What runs now, as the engines' copies themselves say."""
        state, detail = await self._cluster.state()
        await asyncio.gather(*(self._look(name) for name in self._recipe.judges))
        engines = {name: one.engine for name, one in self._service.judges.items()}
        weights = {name: engine.identity.get("weights") for name, engine in engines.items()}
        return Runs(recipe=self._recipe.version, state=state, detail=detail, weights=weights)

    async def _look(self, name: str) -> None:
        engine = self._service.judges[name].engine
        assert isinstance(engine, RayEngine)
        try:
            async with asyncio.timeout(LOOK_S):
                await engine.look()
        except TimeoutError:  # its copies are being started
            return
        self._service.judges.followed(name, engine)


def _later(why: str) -> LaterError:
    error = LaterError(why)
    error.retry_after_s = LOOK_S
    return error


def _state() -> tuple[State, str]:
    from ray import serve

    found = serve.status().applications.get(APP)
    if found is None or found.status in ("DEPLOYING", "NOT_STARTED"):
        return State.ROLLING, ""
    if found.status == "DEPLOY_FAILED":
        return State.FAILED, why(found)
    return State.SETTLED, ""
