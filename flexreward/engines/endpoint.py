"""One server over HTTP: what failed on the way is asked again, what the server refuses is said in one line."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, NamedTuple, TypeVar

import httpx

from flexreward.asking import AGAIN, CONNECT_S, after_s, message_of, one_line, pause_s, trusted
from flexreward.engines.remote import Remote
from flexreward.errors import ContextError, DeadlineError, EngineError, RefusedError

T = TypeVar("T")

FIRST_S, LONGEST_S = 0.5, 30.0
"""Pauses are drawn from 0 up to a limit that begins at ``FIRST_S`` and doubles with each try."""
TOO_LONG = re.compile(
    r"context.?(length|window|size)|maximum (model|context|prompt) length|max_model_len|prompt is too long", re.I
)


class Again(NamedTuple):
    """A failure that may pass."""

    what: str
    after_s: float = 0.0
    """The server's own word on when to come back."""


class Session:
    """Connections to one server, for one event loop; ``timeout_s`` counts from the moment a request has its slot."""

    def __init__(self, remote: Remote, key: str | None) -> None:
        self.loop = asyncio.get_running_loop()
        self._remote = remote
        self._key = key
        self._slots = asyncio.Semaphore(remote.max_connections)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._kept, self._begun = self._keep(), False
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            verify=trusted(),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=remote.max_connections),
        )

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """``work`` as a task that ``close`` cancels."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """End what is under way, and the connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._kept.aclose()
        await self._client.aclose()

    async def _keep(self) -> AsyncGenerator[None, None]:
        """A loop that ends closes its async generators, and with this one the connections that nobody has closed."""
        try:
            yield
        finally:
            await self._client.aclose()

    async def ask(self, path: str, body: dict[str, Any] | None = None, *, retries: int | None = None) -> bytes:
        """What the server answers to a POST of ``body``, or to a GET.

        Raises:
            DeadlineError: It had not answered in time, or asks to come back later than that.
            ContextError: The prompt is too long for it.
            RefusedError: It does not take such a request.
            EngineError: It cannot be reached, fails, or refuses us.
        """
        content = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        most = self._remote.retries if retries is None else retries
        if not self._begun:
            self._begun = True
            await anext(self._kept)
        async with self._slots:
            until = self.loop.time() + self._remote.timeout_s
            for tries in itertools.count(1):
                found = await self._once(path, content, until)
                if isinstance(found, bytes):
                    return found
                if tries > most:
                    raise EngineError(self._said(f"{found.what} (asked {tries} times)"))
                pause = pause_s(tries, found.after_s, first_s=FIRST_S, longest_s=LONGEST_S)
                if self.loop.time() + pause >= until:
                    raise DeadlineError(self._said(f"{found.what}; no time is left to ask again"))
                await asyncio.sleep(pause)
        raise AssertionError("there is always another try")

    async def _once(self, path: str, content: bytes | None, until: float) -> bytes | Again:
        method = "GET" if content is None else "POST"
        headers = {} if content is None else {"Content-Type": "application/json"}
        timeout = httpx.Timeout(None, connect=CONNECT_S)
        limit = asyncio.timeout_at(until)
        try:
            async with limit:
                response = await self._client.request(
                    method, f"{self._remote.base_url}{path}", content=content, headers=headers, timeout=timeout
                )
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise DeadlineError(self._said(f"no answer in {self._remote.timeout_s:g} s")) from error
        except httpx.TransportError as error:
            return Again(f"cannot be reached ({type(error).__name__}: {error})")
        except httpx.HTTPError as error:
            raise EngineError(self._said(f"{type(error).__name__}: {error}")) from error
        if response.status_code == 200:
            return response.content
        what = f"{response.status_code} {response.reason_phrase}".strip() + message_of(response)
        if response.status_code in AGAIN:
            return Again(what, after_s(response.headers.get("Retry-After", "")))
        raise self._refusal(response.status_code, what)

    def _refusal(self, status: int, what: str) -> EngineError:
        named = self._remote.api_key_env
        if status in (401, 403):
            remedy = f"the key in {named} does not open it" if named else "name the variable of its key in api_key_env"
            return EngineError(self._said(f"{what}; {remedy}"))
        if status in (400, 413, 422):
            return (ContextError if TOO_LONG.search(what) else RefusedError)(self._said(what))
        return EngineError(self._said(what))

    def _said(self, what: str) -> str:
        """One line without the key, whatever the server has repeated."""
        return one_line(f"{self._remote.base_url}: {what}", secret=self._key)
