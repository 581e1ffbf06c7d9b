"""Thinking with a limit: the thought is ended where it must end, and the answer held to a form that can be read.

    <think> up to ``max_tokens`` </think>   <answer>8</answer><answer>3</answer>
    ^ written freely                        ^ matches ``Prompt.answer``

A thought that meets its limit, or whose turn ends inside of it, is given its ``</think>``; the reply says so
(``thought_cut``). Where the answers come first they are held to their form, and the thought after them is cut; where
there is no thought, there are only answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import cast

from flexreward.engines.base import Answer, CountingEngine, Engine, Prompt, Sampling
from flexreward.engines.rounds import in_rounds, only, seed_of
from flexreward.errors import ContextError, RecipeError, RefusedError
from flexreward.types import Reply, TokenLogprob

BEGIN, END = "<think>", "</think>"


class ForcedEngine:
    """An engine whose every reply ends with a readable answer. Its identity says so, and with it the fingerprint.

    ``max_tokens`` is the limit of the thought, all rounds of ``WaitingEngine`` together; the answer takes what it needs
    beside it. Where the engine counts tokens, the context is kept free for the answer: a thought ends early for it, and
    a prompt that leaves no room for the answer and one token of thought is a ContextError. Where it does not count, a
    thought that has filled the context is shortened until the answer has room. Of the tokens read, those of the first
    round are counted.

    Raises:
        RecipeError: The engine cannot go on with a started turn, or cannot be held to a pattern.
    """

    def __init__(self, engine: Engine) -> None:
        name = engine.identity.get("engine", type(engine).__name__)
        if not engine.can.prefix:
            raise RecipeError(f"think: the engine {name} cannot go on with a started turn; leave it out")
        if not engine.can.constrained:
            raise RecipeError(f"think: the engine {name} cannot be held to the form of an answer; leave it out")
        self._engine = engine
        self.can = replace(engine.can, forced=True, logprobs=engine.can.held_logprobs)

    @property
    def identity(self) -> dict[str, str]:
        return {**self._engine.identity, "answer": "forced"}

    @property
    def max_context(self) -> int:
        return cast(CountingEngine, self._engine).max_context

    def count_tokens(self, prompt: Prompt) -> int:
        return cast(CountingEngine, self._engine).count_tokens(replace(prompt, answer=None))

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncIterator[Reply]:
        answer, prompt = prompt.answer, replace(prompt, answer=None)
        if answer is None:
            raise RefusedError("a forced answer needs its form: give the prompt the answer of its template")
        if self.can.counts and prompt.media:
            # To count them media are decoded: once, and not on the loop.
            await asyncio.to_thread(self.count_tokens, prompt)
        thinks = answer.thought == "first" and not _is_over(prompt.prefix)
        if thinks:
            limit = sampling.max_tokens
            if self.can.counts:
                left = await asyncio.to_thread(self._left, prompt, prompt.prefix + END, answer, least=1)
                limit = min(limit, left)
            free = replace(sampling, max_tokens=limit, stop=(*sampling.stop, END))
            first, go_on = self._engine.generate(prompt, free), partial(self._answer, prompt, answer, sampling)
        else:
            if self.can.counts:
                await asyncio.to_thread(self._left, prompt, prompt.prefix, answer, least=0)
            first = self._engine.generate(prompt, _held(sampling, answer))
            go_on = partial(self._after_answer, prompt, answer, sampling)
        replies = in_rounds(first, go_on, n=sampling.n)
        async with aclosing(replies):  # type: ignore[type-var]  # a generator
            async for reply in replies:
                yield reply

    async def close(self) -> None:
        await self._engine.close()

    async def _answer(self, prompt: Prompt, answer: Answer, sampling: Sampling, reply: Reply) -> Reply:
        """The answer to a thought."""
        ended = reply.text.endswith(END)
        thought = await asyncio.to_thread(self._fitting, prompt, answer, reply)
        held = replace(_held(sampling, answer), n=1, seed=seed_of(sampling.seed, reply.index, -1))
        spent = reply.completion_tokens
        for shorter in _shorter(prompt.prefix, thought, reply.completion_tokens, answer):
            started = replace(prompt, prefix=shorter + END)
            try:
                more = await only(self._engine.generate(started, held))
            except ContextError:
                continue
            spent += more.completion_tokens
            if not more.truncated:
                break
        else:
            return replace(reply, finish_reason="length", completion_tokens=spent, thought_cut=True)
        # What was written for the judge is sure, so that its log-probabilities spell the whole reply.
        put = () if ended or not sampling.logprobs else (TokenLogprob(text=END, logprob=0.0),)
        return replace(
            more,
            index=reply.index,
            prompt_tokens=reply.prompt_tokens,
            completion_tokens=spent,
            logprobs=reply.logprobs + put + more.logprobs,
            thought_cut=not ended or reply.truncated or shorter + END != reply.text,
        )

    async def _after_answer(self, prompt: Prompt, answer: Answer, sampling: Sampling, reply: Reply) -> Reply:
        """What follows an answer that came before any thought: the thought, where the template has one."""
        if prompt.prefix and sampling.logprobs:
            reply = replace(reply, logprobs=(TokenLogprob(text=prompt.prefix, logprob=0.0), *reply.logprobs))
        if answer.thought != "last":
            return reply
        started = replace(prompt, prefix=reply.text + BEGIN)
        free = replace(
            sampling, n=1, seed=seed_of(sampling.seed, reply.index, -1), stop=(*sampling.stop, END), pattern=None
        )
        try:
            more = await only(self._engine.generate(started, free))
        except ContextError:  # there is no room to say why
            return replace(reply, thought_cut=True)
        put = (TokenLogprob(text=BEGIN, logprob=0.0),) if sampling.logprobs else ()
        return replace(
            more,
            index=reply.index,
            finish_reason=reply.finish_reason,
            prompt_tokens=reply.prompt_tokens,
            completion_tokens=reply.completion_tokens + more.completion_tokens,
            logprobs=reply.logprobs + put + more.logprobs,
            thought_cut=not more.text.endswith(END),
        )

    def _left(self, prompt: Prompt, prefix: str, answer: Answer, *, least: int) -> int:
        """Tokens of the context that ``prefix`` and an answer after it leave free. Counting may decode media.

        Raises:
            ContextError: They are fewer than ``least``.
        """
        num_tokens = self.count_tokens(replace(prompt, prefix=prefix))
        left = self.max_context - num_tokens - _most_tokens(answer)
        if left < least:
            raise ContextError(
                f"the prompt has {num_tokens} tokens and its answer up to {_most_tokens(answer)}, the model reads "
                f"{self.max_context}"
            )
        return left

    def _fitting(self, prompt: Prompt, answer: Answer, reply: Reply) -> str:
        """The thought without its end: as much of it as leaves room for the answer.

        Its text may have more tokens than were written: ``Wait`` stands between its rounds, and no model writes
        everything the way its tokenizer would.
        """
        thought = reply.text.removesuffix(END)
        most = reply.prompt_tokens + len(f"{thought}{END}".encode())  # no token is less than a byte
        if not self.can.counts or most + _most_tokens(answer) <= self.max_context:
            return thought

        def fits(length: int) -> bool:
            cut = replace(prompt, prefix=thought[:length] + END)
            return self.count_tokens(cut) + _most_tokens(answer) <= self.max_context

        if fits(len(thought)):
            return thought
        fitting, length = len(prompt.prefix), len(thought)
        while length - fitting > 1:
            middle = (fitting + length) // 2
            fitting, length = (middle, length) if fits(middle) else (fitting, middle)
        return thought[:fitting]


def _is_over(prefix: str) -> bool:
    """Whether a started turn has ended its thought."""
    return prefix.rfind(END) > prefix.rfind(BEGIN)


def _shorter(prefix: str, thought: str, num_tokens: int, answer: Answer) -> Iterator[str]:
    """The thought, and then ever less of it, for an engine whose context it may have filled and that does not count.

    First as much goes as an answer takes by the thought's own characters a token, then half of what is left each time.
    """
    yield thought
    length = len(thought) - len(prefix)
    length -= -(-length * (_most_tokens(answer) + 8) // max(num_tokens, 1))
    while length > 0:
        yield thought[: len(prefix) + length]
        length //= 2


def _most_tokens(answer: Answer) -> int:
    """With the one that ends the turn."""
    return answer.longest + 1


def _held(sampling: Sampling, answer: Answer) -> Sampling:
    return replace(sampling, max_tokens=_most_tokens(answer), stop=(), pattern=answer.pattern)
