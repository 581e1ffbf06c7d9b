"""Engines that take their time: one whose capacity is known, and one that never ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from flexreward.engines.base import Capabilities, Prompt, Sampling
from flexreward.types import Reply

WARM = "2 + 2"
LANES, TAKES_S = 4, 0.25
"""Of ``BusyEngine``."""
MIB = 2**20
WEIGHTS_MIB = 200


class EndlessEngine:
    """Answers the first judgment, by which a server gets ready, and no other.

    Args:
        model: File that gets a line for each generation that was closed.
    """

    can = Capabilities(token_ids=True)

    def __init__(self, model: str, **_: Any) -> None:
        self.identity = {"engine": "endless", "model": model}
        self._path = Path(model)
        self._weights = b"w" * (WEIGHTS_MIB * MIB)

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncIterator[Reply]:
        if WARM in prompt.user:
            yield Reply(text="<think></think><answer>1</answer>")
            return
        try:
            await asyncio.sleep(3600)
            yield Reply(text="")
        finally:
            with self._path.open("a") as file:
                file.write("closed\n")

    async def close(self) -> None:
        pass


class BusyEngine:
    """Works on ``LANES`` prompts at once and takes ``TAKES_S`` for each, whatever is asked.

    Args:
        model: A name.
    """

    can = Capabilities(token_ids=True)

    def __init__(self, model: str, **_: Any) -> None:
        self.identity = {"engine": "busy", "model": model}
        self._room = asyncio.Semaphore(LANES)

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncIterator[Reply]:
        async with self._room:
            await asyncio.sleep(TAKES_S)
        yield Reply(text="<think></think><answer>4</answer>")

    async def close(self) -> None:
        pass
