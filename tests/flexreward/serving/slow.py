"""An engine that never ends, and writes down when it was told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from flexreward.engines.base import Capabilities, Prompt, Sampling
from flexreward.types import Reply

WARM = "2 + 2"


class EndlessEngine:
    """Answers the first judgment, by which a server gets ready, and no other.

    Args:
        model: File that gets a line for each generation that was closed.
    """

    can = Capabilities(token_ids=True)

    def __init__(self, model: str, **_: Any) -> None:
        self.identity = {"engine": "endless", "model": model}
        self._path = Path(model)

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
