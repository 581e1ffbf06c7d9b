"""Engines that take their time: one whose capacity is known, and one that never ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from flexreward.engines.base import Capabilities, Prompt, Sampling
from flexreward.engines.weights import digest
from flexreward.types import Reply

WARM = "2 + 2"
LANES, TAKES_S = 4, 0.25
"""Of ``BusyEngine``."""
MIB = 2**20
WEIGHTS_MIB = 200


class EndlessEngine:
    """Answers the first judgment, by which a server gets ready, and others that say the same, and ends no other.

    Args:
        model: A folder whose config.json says with which score. Beside it, closed.txt gets a line for each generation
            that was closed.
    """

    can = Capabilities(token_ids=True)

    def __init__(self, model: str, **_: Any) -> None:
        folder = Path(model)
        self._score = json.loads((folder / "config.json").read_text())["score"]
        self.identity = {"engine": "endless", "weights": digest(folder)}
        self._path = folder.parent / "closed.txt"
        self._weights = b"w" * (WEIGHTS_MIB * MIB)

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncIterator[Reply]:
        if WARM in prompt.user:
            yield Reply(text=f"<think></think><answer>{self._score}</answer>")
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
