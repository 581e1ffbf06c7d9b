"""One copy of a judge's engine: what stands behind the handle that ``flexreward.engines.ray`` holds."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, cast

from flexreward.config import JudgeRecipe, open_engine
from flexreward.engines import load_engine
from flexreward.engines.base import CountingEngine, Engine, Prompt, Sampling
from flexreward.engines.ray import About, Failed, Other, RayEngine
from flexreward.errors import EngineError, JudgeError
from flexreward.serving.copies import Copy, Found
from flexreward.serving.keeper import Owner
from flexreward.serving.logs import log_with_serve
from flexreward.serving.pulse import Pulse
from flexreward.serving.resting import PROBE, PROBED, Resting, first_words

WARM_S = 60.0
"""For its first words; the copy runs without them too."""
log = logging.getLogger(__name__)


class EngineReplica(Copy):
    """Any engine of ours.

    Args:
        judge: Fields of its recipe.
        name: Of the judge.
        ledger: Handle of the keeper of the ledger, whose owner says where the judge is. While it sleeps the engine is
            closed.
        weights: Digest that the model's must have.
        hang_s: Longest time without a reply while there are prompts.
        options: Of the engine, instead of its recipe's, where another runs behind it.
        behind: Handle of the copies of that one.
    """

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self,
        judge: dict[str, Any],
        name: str = "",
        ledger: Any = None,
        weights: str | None = None,
        hang_s: float = math.inf,
        options: dict[str, Any] | None = None,
        behind: Any = None,
    ) -> None:
        log_with_serve()
        self._pulse = Pulse(hang_s)
        self._recipe = JudgeRecipe.model_validate(judge)
        self.engine: Engine | None = None
        self._options, self._behind = options or {}, behind
        self._resting = Resting(ledger and Owner(ledger), name, free=self._close, restore=self._open, say=self._say)
        await self._resting.allowed()
        await self._open()
        self._about = about(self.engine)
        check_weights(self._about, weights)
        self._model = self._about.name
        await warmed(self._say)
        self._resting.begin()

    async def about(self) -> About:
        return self._about

    def check_health(self) -> None:
        if self._resting.broken:
            raise EngineError(self._resting.broken)
        self._pulse.check()

    async def generate(self, key: str, prompt: Prompt, sampling: Sampling, model: str) -> AsyncIterator[Found]:
        if model != self._model:
            yield Other(about=self._about)
            return
        async with self._resting.at_work():
            assert self.engine is not None
            try:
                with self._pulse.at_work():
                    async with aclosing(cast(Any, self.engine.generate(prompt, sampling))) as stream:
                        async for reply in stream:
                            self._pulse.beat()
                            yield reply
            except EngineError as error:
                self._pulse.beat()
                yield Failed(kind=type(error).__name__, message=str(error))

    async def count_tokens(self, key: str, prompt: Prompt) -> int | Failed:
        async with self._resting.at_work():
            try:
                return await asyncio.to_thread(cast(CountingEngine, self.engine).count_tokens, prompt)
            except EngineError as error:
                return Failed(kind=type(error).__name__, message=str(error))

    async def _open(self) -> None:
        if self._behind is None:
            self.engine = await asyncio.to_thread(open_engine, self._recipe)
            return
        llm = RayEngine(self._behind, await self._behind.about.remote())
        recipe = self._recipe
        self.engine = await asyncio.to_thread(
            load_engine, recipe.engine, model=recipe.model, behind=llm, **self._options
        )

    async def _close(self) -> None:
        assert self.engine is not None
        engine, self.engine = self.engine, None
        await engine.close()
        del engine
        gc.collect()
        if "torch" in sys.modules:
            import torch

            torch.cuda.empty_cache()

    async def _say(self) -> object:
        assert self.engine is not None
        identity = dict(self.engine.identity)
        if self._behind is not None:  # which sleeps as this does, and says nothing then
            return identity
        text = await first_words(self.engine.generate(PROBE, PROBED))
        # Other engines' weights are not here, and may be drawn from by others too.
        return (identity, text) if self.engine.can.token_ids else identity


def about(engine: Any) -> About:
    """What an engine says of itself."""
    return About(
        can=engine.can,
        identity=dict(engine.identity),
        max_context=engine.max_context if engine.can.counts else None,
    )


async def warmed(say: Callable[[], Awaitable[object]]) -> None:
    """Let a copy say something before it is asked anything: the first time is slow."""
    try:
        async with asyncio.timeout(WARM_S):
            await say()
    except (EngineError, TimeoutError) as error:
        log.warning("the engine does not answer yet: %s", error)


def check_weights(about: About, expected: str | None) -> None:
    """Refuse other weights than were named, such as a folder's that somebody wrote into.

    Raises:
        JudgeError: They are others.
    """
    found = about.identity.get("weights", "none that can be named")
    if expected is not None and found != expected:
        raise JudgeError(f"weights: expected {expected}, found {found}; was the folder written into?")
