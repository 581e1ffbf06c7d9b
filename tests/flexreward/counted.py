"""An engine that takes its time, keeps count of what it sells, and dies when it is told to."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from flexreward.engines.base import Capabilities, Prompt, Sampling
from flexreward.errors import EngineError
from flexreward.types import Reply


class CountedEngine:
    """Judges what looks like a pair, and completes any other prompt; what it writes follows from the seed alone.

    Args:
        model: A file that gets a line for each purchase as it begins: what is bought, and of which process. Beside it,
            with that ending, ``.dies`` ends the engine that finds it for good.
    """

    can = Capabilities(token_ids=True)

    def __init__(self, model: str, delay_s: float = 0.0, **_: Any) -> None:
        self.identity = {"engine": "counted", "model": "counted"}
        self._sold = Path(model)
        self._delay_s = delay_s
        self._dead = False

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncIterator[Reply]:
        dies = self._sold.with_suffix(".dies")
        if dies.exists():
            dies.unlink()
            self._dead = True
        if self._dead:
            raise EngineError("the engine is dead")
        key = hashlib.sha256(repr((prompt.system, prompt.user, sampling.seed)).encode()).hexdigest()
        drawn = random.Random(key)
        with self._sold.open("a") as file:
            file.write(f"{key} {os.getpid()}\n")
        await asyncio.sleep(self._delay_s)
        for index in range(sampling.n):
            text = "word " * drawn.randint(1, 9)
            if "[Assistant 1's Answer]" in prompt.user:
                text = f"<think></think><answer>{drawn.randint(1, 9)}</answer><answer>{drawn.randint(1, 9)}</answer>"
            yield Reply(text=text + ("" if text.endswith(">") else str(drawn.random())), index=index)

    async def close(self) -> None:
        pass
