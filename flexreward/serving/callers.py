"""The edge of every route, those of dialects included: whose request it is, and how much of it is read.

A key comes as ``Authorization: Bearer KEY``, or in the path, ``/k/KEY/v1/judge``, from clients that send no header. It
is taken out of the path before anything sees it that might write it down. Routes ask for the caller by a dependency:

    async def route(body: Body, caller: Annotated[Caller, Depends(caller_of)]) -> Answer: ...
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flexreward.fingerprint import canonical
from flexreward.serving.contract import Caller

OPEN = ("/healthz", "/readyz")
"""What is answered without a key."""
BODIES = 16
"""Longest bodies that may be open at once; more of them are answered 429, so that memory is bounded."""
IN_PATH = "/k/"
SOON = {"Retry-After": "1"}


class Line(Response):
    """A JSON answer. ASCII, so that whatever a message quotes can be sent."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return canonical(content)


def refusal(status: int, message: str, headers: dict[str, str] | None = None) -> Line:
    """An error as every route answers it: one line, nothing that a terminal would act on."""
    line = "".join(char if char.isprintable() else " " for char in message)
    return Line({"error": line}, status_code=status, headers=headers)


async def caller_of(request: Request) -> Caller:
    """Whose request it is: for ``Depends``, which would call a plain function in a thread."""
    found: Caller = request.state.caller
    return found


async def admin_of(request: Request) -> Caller:
    """The same for routes that need an admin's key."""
    caller = await caller_of(request)
    if not caller.is_admin:
        raise HTTPException(403, "this route needs an admin key")
    return caller


@dataclass(slots=True, kw_only=True)
class Traffic:
    """What goes on at the door of one process."""

    num_open: int = 0
    """Requests let in and not yet answered to the end."""
    num_bytes: int = 0
    """Of their bodies, as far as they have come."""
    closing: bool = False
    """Whether no more are let in, because the server ends."""


class Edge:
    """ASGI middleware around all routes.

    Args:
        traffic: Where what is open is counted, and whether more is let in.
        reward_keys: Without any, and without admin keys, everybody may ask, and nobody is an admin.
        max_body_bytes: More is answered with 413 as soon as it is known, however the body comes.
        max_open: Requests let in at once; more are answered 429.
        body_s: Longest time for a body to come, in seconds; then it is answered 408.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        traffic: Traffic,
        reward_keys: Sequence[str],
        admin_keys: Sequence[str],
        max_body_bytes: int,
        max_open: int,
        body_s: float,
    ) -> None:
        self._app = app
        self._traffic = traffic
        self._keys = [(key.encode(), False) for key in reward_keys] + [(key.encode(), True) for key in admin_keys]
        self._closed = bool(reward_keys)
        self._max_body_bytes = max_body_bytes
        self._max_open = max_open
        self._body_s = body_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = {**scope, "state": dict(scope.get("state") or {})}
        key = _taken_from_path(scope) or _bearer(scope)
        caller = self._caller(key)
        inside = scope["path"].removeprefix(scope.get("root_path", ""))
        if caller is None and inside not in OPEN:
            missing = "a key is needed: Authorization: Bearer KEY, or /k/KEY before the path"
            answer = refusal(401, "the key is wrong" if key else missing, {"WWW-Authenticate": "Bearer"})
            await answer(scope, receive, send)
            return
        scope["state"]["caller"] = caller or Caller()
        if inside in OPEN:
            await self._app(scope, receive, send)
        elif _declared(scope) > self._max_body_bytes:
            await _too_long(self._max_body_bytes)(scope, receive, send)
        elif self._traffic.closing:
            await refusal(503, "the server ends", {"Retry-After": "5"})(scope, receive, send)
        elif (num_open := self._traffic.num_open) >= self._max_open:
            full = f"{num_open} requests are open, the limit ingress_in_flight; ask for more in one call"
            await refusal(429, full, SOON)(scope, receive, send)
        else:
            body = _Body(receive, traffic=self._traffic, max_bytes=self._max_body_bytes, within_s=self._body_s)
            self._traffic.num_open += 1
            try:
                await self._app(scope, body, send)
            finally:
                self._traffic.num_open -= 1
                self._traffic.num_bytes -= body.num_bytes

    def _caller(self, key: bytes) -> Caller | None:
        """Whoever has this key; ``None`` is nobody that is let in."""
        # All keys are compared, each in constant time, so that the time tells nothing of them.
        found = [is_admin for known, is_admin in self._keys if hmac.compare_digest(known, key)]
        if not found:
            return None if self._closed else Caller()
        return Caller(namespace=hashlib.sha256(key).hexdigest()[:32], is_admin=found[0])


class _Body:
    """What an application receives of a request: a body that is neither too long nor too slow, and what follows it."""

    def __init__(self, receive: Receive, *, traffic: Traffic, max_bytes: int, within_s: float) -> None:
        self.num_bytes = 0
        self._receive = receive
        self._traffic = traffic
        self._max_bytes = max_bytes
        self._within_s = within_s
        self._until: float | None = asyncio.get_running_loop().time() + within_s
        """``None`` once it is there."""

    async def __call__(self) -> Message:
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError as error:
            raise HTTPException(408, f"the body did not come within {self._within_s:g} s, the limit body_s") from error
        if not message.get("more_body", False):
            self._until = None
        came = len(message.get("body", b""))
        self.num_bytes += came
        self._traffic.num_bytes += came
        if self.num_bytes > self._max_bytes:
            raise HTTPException(413, _long(self._max_bytes))
        if self._traffic.num_bytes > BODIES * self._max_bytes:
            raise HTTPException(429, "the bodies of all open requests are too long together", SOON)
        return message


def _long(limit: int) -> str:
    return f"the body has more than {limit} bytes, the limit max_body_bytes; ask for less at once"


def _too_long(limit: int) -> Line:
    return refusal(413, _long(limit), {"Connection": "close"})


def _declared(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:20])
    return 0


def _bearer(scope: Scope) -> bytes:
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, key = bytes(value).partition(b" ")
            return key.strip() if scheme.lower() == b"bearer" else b""
    return b""


def _taken_from_path(scope: Scope) -> bytes:
    """The key that stands in the path, which then is as if it had not."""
    root = scope.get("root_path", "")
    path = scope["path"].removeprefix(root)
    if not path.startswith(IN_PATH):
        return b""
    key, slash, rest = path.removeprefix(IN_PATH).partition("/")
    scope["path"] = root + slash + rest
    scope["raw_path"] = scope["path"].encode()
    return str(key).encode()
