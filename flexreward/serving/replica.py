"""One copy of a judge's engine: what stands behind the handle that ``flexreward.engines.ray`` holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, cast

from flexreward.config import JudgeRecipe, open_engine
from flexreward.engines.base import CountingEngine, Prompt, Sampling
from flexreward.engines.ray import About, Failed
from flexreward.errors import EngineError
from flexreward.serving.logs import log_with_serve
from flexreward.types import Reply


class EngineReplica:
    """Any engine of ours. ``key`` is for the router alone (``flexreward.serving.router``).

    Args:
        judge: Fields of its recipe.
    """

    def __init__(self, judge: dict[str, Any]) -> None:
        log_with_serve()
        self.engine = open_engine(JudgeRecipe.model_validate(judge))

    async def about(self) -> About:
        return about(self.engine)

    async def generate(self, key: str, prompt: Prompt, sampling: Sampling) -> AsyncIterator[Reply | Failed]:
        stream = self.engine.generate(prompt, sampling)
        try:
            async with aclosing(cast(Any, stream)):
                async for reply in stream:
                    yield reply
        except EngineError as error:
            yield Failed(kind=type(error).__name__, message=str(error))

    async def reply(self, key: str, prompt: Prompt, sampling: Sampling) -> Reply | Failed:
        """The one reply that ``sampling`` asks for."""
        return await only(self.generate(key, prompt, sampling))

    async def count_tokens(self, key: str, prompt: Prompt) -> int | Failed:
        try:
            return await asyncio.to_thread(cast(CountingEngine, self.engine).count_tokens, prompt)
        except EngineError as error:
            return Failed(kind=type(error).__name__, message=str(error))


async def only(replies: AsyncIterator[Reply | Failed]) -> Reply | Failed:
    """The first of them; what writes the rest is closed."""
    async with aclosing(cast(Any, replies)):
        async for reply in replies:
            return reply
    return Failed(kind="EngineError", message="the engine ended without a reply")


def about(engine: Any) -> About:
    """What an engine says of itself."""
    return About(
        can=engine.can,
        identity=dict(engine.identity),
        max_context=engine.max_context if engine.can.counts else None,
    )
