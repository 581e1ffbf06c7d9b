"""The judge on any OpenAI-compatible server (vLLM, SGLang, llama.cpp, a provider), by ``/v1/chat/completions``.

Such a server shows neither its weights nor its tokens. So the replies to a few fixed prompts stand in for the weights'
digest, the identity says ``verified: no``, and what is judged goes through a named text escape (``flexreward.engines.
escape``) in place of token ids.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from flexreward.engines import sending
from flexreward.engines.base import Prompt, Sampling
from flexreward.engines.chat import body_of, replies_of
from flexreward.engines.endpoint import Session
from flexreward.engines.remote import Remote, read_options
from flexreward.errors import ContextError, EngineError, JudgeError, RefusedError
from flexreward.fingerprint import digest
from flexreward.media.decoder import Decoder
from flexreward.types import Reply

T = TypeVar("T")

PROBES = (
    "Count from 1 to 12, with a comma after each number.",
    "Go on with this sentence: The judge read both answers twice, and then",
    "Which is larger, 7 or 12? Say why in one sentence.",
)
PROBE = Sampling(max_tokens=16)
OPENING_RETRIES = 2
"""When the engine opens, somebody waits who may have mistyped the port."""


class _Models(BaseModel):
    class Model(BaseModel):
        id: str

    data: list[Model]


class _Met(NamedTuple):
    model: str
    probe: str


class OpenAIEngine:
    """Asks a server; see the Engine protocol. The server is asked three short questions when the engine is made.

    Args:
        model: As the server calls it; or the server's base URL, whose only model is meant then.
        decoder: What decodes media before they are sent, within which limits; by default one that all engines share.
        options: See ``flexreward.engines.remote.Remote``.

    Raises:
        RecipeError: An option is unknown or wrong.
        JudgeError: The server cannot be reached, refuses the key or does not serve the model; one line.
    """

    def __init__(self, model: str, *, decoder: Decoder | None = None, **options: Any) -> None:
        self._remote = read_options(model, options)
        self._decoder = decoder
        self._key = self._remote.key()
        self.can = self._remote.can
        met = _now(_meet(self._remote, self._key))
        self._model = met.model
        self.identity = _identity(self._remote, met)
        self._session: Session | None = None
        self._closed = False

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncIterator[Reply]:
        self.can.check(prompt)
        if prompt.prefix and not self.can.prefix:
            raise RefusedError("the server is not known to go on with a started turn; if it is vLLM, set dialect: vllm")
        if sampling.pattern is not None and not self.can.constrained:
            raise RefusedError("the server is not known to hold replies to a pattern; if it is vLLM, set dialect: vllm")
        # At temperature 0 all replies are one reply.
        num_drawn = sampling.n if sampling.temperature > 0 else 1
        asked = [replace(sampling, n=num_drawn)]
        if self._remote.split_votes and num_drawn > 1:
            asked = [replace(sampling, n=1, seed=_seed(sampling.seed, i)) for i in range(num_drawn)]
        session = self._open()
        works = {session.start(self._ask(session, prompt, one)): i for i, one in enumerate(asked)}
        try:
            left = set(works)
            while left:
                ended, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
                for work in ended:
                    if work.cancelled():
                        raise EngineError("the engine was closed")
                    replies, failure = work.result()
                    for reply in replies:
                        if num_drawn == sampling.n:
                            yield replace(reply, index=reply.index + works[work])
                        else:
                            for index in range(sampling.n):
                                yield replace(reply, index=index)
                    if failure:
                        raise failure
        finally:
            for work in works:
                work.cancel()
            await asyncio.gather(*works, return_exceptions=True)

    async def close(self) -> None:
        self._closed = True
        session, self._session = self._session, None
        if session is not None and session.loop is asyncio.get_running_loop():
            await session.close()

    async def _ask(
        self, session: Session, prompt: Prompt, sampling: Sampling
    ) -> tuple[list[Reply], EngineError | None]:
        make = asyncio.to_thread if prompt.media else _at_once  # files are read off the loop
        body = await make(body_of, prompt, sampling, self._remote, model=self._model, decoder=self._decoder)
        try:
            content = await session.ask("/chat/completions", body)
        except ContextError:
            # The prompt may fit and only the longest reply not: asked for no length, a server gives the room there is.
            body.pop("max_tokens")
            content = await session.ask("/chat/completions", body)
        return replies_of(content, prompt, sampling)

    def _open(self) -> Session:
        """This loop's connections. Those of an earlier loop have ended with it."""
        if self._closed:
            raise EngineError("the engine is closed")
        if self._session is None or self._session.loop is not asyncio.get_running_loop():
            self._session = Session(self._remote, self._key)
        return self._session


def _identity(remote: Remote, met: _Met) -> dict[str, str]:
    """What is known of the model, with every option that changes what it reads or writes."""
    identity = {
        "engine": "openai",
        "url": remote.base_url,
        "model": met.model,
        "probe": met.probe,
        "verified": "no",
        "escapes": remote.escape.name,
        "dialect": remote.dialect,
    }
    if remote.can.modalities != {"text"}:
        identity["media"] = sending.NAME
    if remote.split_votes:
        identity["split_votes"] = "yes"
    if not remote.seeds:
        identity["seeds"] = "no"
    if remote.extra_body:
        identity["extra_body"] = digest(remote.extra_body)
    return identity


async def _meet(remote: Remote, key: str | None) -> _Met:
    """Which model answers, and what it answers to the probes."""
    session = Session(remote, key)
    model = remote.model
    try:
        if model is None:
            served = await _served(session)
            if len(served) != 1:
                found = f"several models ({', '.join(served)})" if served else "no model"
                remedy = "name one in a recipe (engine: openai, model: NAME, options: {base_url: URL})"
                raise JudgeError(f"{remote.base_url}: serves {found}; {remedy}")
            model = served[0]
        try:
            # One after the other: greedy replies may turn on what else is in the server's batch.
            answers = [await _probe(session, remote, model, text) for text in PROBES]
        except EngineError as error:
            served = await _served(session, quietly=True)
            if served and model not in served:
                names = ", ".join(served[:20])
                raise JudgeError(f"{remote.base_url}: serves no model {model!r}, expected one of {names}") from error
            raise
        return _Met(model=model, probe=digest(answers))
    except EngineError as error:
        raise JudgeError(str(error)) from error
    finally:
        await session.close()


async def _probe(session: Session, remote: Remote, model: str, text: str) -> list[str | int]:
    """The reply, and how many tokens the question has: the model and its chat template."""
    prompt = Prompt(system="", user=text)
    content = await session.ask(
        "/chat/completions", body_of(prompt, PROBE, remote, model=model), retries=OPENING_RETRIES
    )
    replies, failure = replies_of(content, prompt, PROBE)
    if failure:
        raise EngineError(f"{remote.base_url}: {failure}")
    return [replies[0].text, replies[0].prompt_tokens]


async def _served(session: Session, *, quietly: bool = False) -> list[str]:
    """The names of the server's models."""
    try:
        content = await session.ask("/models", retries=0 if quietly else OPENING_RETRIES)
        return [model.id for model in _Models.model_validate_json(content).data]
    except ValidationError as error:
        if quietly:
            return []
        raise EngineError("the answer of /models is no list of models; name one in a recipe") from error
    except EngineError:
        if quietly:
            return []
        raise


def _seed(seed: int, index: int) -> int:
    """Another for each reply, 31 bits as every server takes."""
    return int.from_bytes(hashlib.sha256(f"{seed} {index}".encode()).digest()[:8]) >> 33


async def _at_once(function: Any, *arguments: Any, **named: Any) -> Any:
    return function(*arguments, **named)


def _now(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` to its end, whether or not a loop runs here: opening an engine is not async."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
