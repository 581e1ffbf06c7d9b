"""A judge whose replies are a function of its prompt: for tests, and for trying a training script without a model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from flexreward.engines.base import Capabilities, Prompt, Sampling
from flexreward.errors import RefusedError
from flexreward.types import Reply

Script = Callable[[Prompt], str | Reply | Sequence[str | Reply]]


class ScriptedEngine:
    """Answers each prompt with ``script(prompt)``: one text for every vote, or one a vote.

    Args:
        script: Pure function of the prompt. What it raises is raised to the caller, as a dead engine would.
        delay_s: Wait before the first reply, to stand in for a model's time.
    """

    can = Capabilities(
        token_ids=True, prefix=True, modalities=frozenset({"text", "image", "video", "audio", "molecule"})
    )

    def __init__(self, script: Script, *, delay_s: float = 0.0, name: str = "scripted") -> None:
        self._script = script
        self._delay_s = delay_s
        self.identity = {"engine": "scripted", "model": name}
        self.num_calls = 0
        """Prompts answered so far: what a test counts to see that nothing was bought twice."""

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncIterator[Reply]:
        if sampling.pattern is not None:
            raise RefusedError("a script writes what it writes: the engine scripted holds no reply to a pattern")
        self.num_calls += 1
        if self._delay_s:
            await asyncio.sleep(self._delay_s)
        replies = self._script(prompt)
        for i in range(sampling.n):
            reply = replies if isinstance(replies, str | Reply) else replies[i % len(replies)]
            if isinstance(reply, str):
                reply = Reply(text=prompt.prefix + _stopped(reply, sampling.stop), index=i)
            yield reply

    async def close(self) -> None:
        pass


def _stopped(text: str, stops: tuple[str, ...]) -> str:
    """Up to and with the first of the strings that end a reply."""
    return text[: min((at + len(stop) for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]
