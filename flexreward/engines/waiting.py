"""Budget forcing: a thought that would end is made to go on. Wraps any engine that can go on with a started turn.

The judge writes up to ``</think>``; the tag is dropped, ``Wait`` stands in its place, and the judge goes on, ``waits``
times; then it may end its thought and answer. After s1 (arXiv 2501.19393, section 3.1), which Flex-Judge applies to
judging (arXiv 2505.18601, section 5).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import cast

from flexreward.engines.base import CountingEngine, Engine, Prompt, Sampling
from flexreward.engines.rounds import in_rounds, only, seed_of
from flexreward.errors import ContextError, RecipeError
from flexreward.types import Reply

END, WAIT = "</think>", "Wait"


class WaitingEngine:
    """An engine whose every thought goes on ``waits`` times. Its identity says so, and with it the fingerprint.

    All rounds of a reply share one ``max_tokens``: a longer thought leaves less for the answer. Of the tokens read,
    those of the first round are counted; ``Wait`` is not.

    Raises:
        RecipeError: ``waits`` is below 0, or the engine cannot go on with a started turn.
    """

    def __init__(self, engine: Engine, waits: int) -> None:
        if waits < 0:
            raise RecipeError(f"waits: {waits} is too few, expected 0 or more")
        if not engine.can.prefix:
            name = engine.identity.get("engine", type(engine).__name__)
            raise RecipeError(f"waits: the engine {name} cannot go on with a started turn; leave it out")
        self._engine = engine
        self._waits = waits
        self.can = engine.can

    @property
    def identity(self) -> dict[str, str]:
        return {**self._engine.identity, "waits": str(self._waits)}

    @property
    def max_context(self) -> int:
        return cast(CountingEngine, self._engine).max_context

    def count_tokens(self, prompt: Prompt) -> int:
        return cast(CountingEngine, self._engine).count_tokens(prompt)

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncIterator[Reply]:
        stopping = replace(sampling, stop=(*sampling.stop, END)) if self._waits else sampling
        first = aiter(self._engine.generate(prompt, stopping))
        replies = in_rounds(first, lambda reply: self._go_on(prompt, reply, sampling), n=sampling.n)
        async with aclosing(replies):  # type: ignore[type-var]  # a generator
            async for reply in replies:
                yield reply

    async def close(self) -> None:
        await self._engine.close()

    async def _go_on(self, prompt: Prompt, reply: Reply, sampling: Sampling) -> Reply:
        """The rounds of one reply after its first."""
        for left in reversed(range(self._waits)):
            if not reply.text.endswith(END):
                return reply  # it ended its turn without ending its thought, or was cut: there is nothing to drop
            if reply.completion_tokens >= sampling.max_tokens:
                return replace(reply, finish_reason="length")
            further = replace(
                sampling,
                n=1,
                seed=seed_of(sampling.seed, reply.index, left),
                max_tokens=sampling.max_tokens - reply.completion_tokens,
                stop=(*sampling.stop, END) if left else sampling.stop,
            )
            started = replace(prompt, prefix=reply.text.removesuffix(END) + WAIT)
            try:
                more = await only(self._engine.generate(started, further))
            except ContextError:  # the thought has filled the context
                return replace(reply, finish_reason="length")
            reply = replace(
                more,
                index=reply.index,
                prompt_tokens=reply.prompt_tokens,
                completion_tokens=reply.completion_tokens + more.completion_tokens,
                logprobs=reply.logprobs + more.logprobs,
            )
        return reply
