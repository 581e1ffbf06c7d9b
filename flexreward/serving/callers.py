"""The edge of every route, those of dialects included: whose request it is, and how much of it is read.

A key comes as ``Authorization: Bearer KEY``, or in the path, ``/k/KEY/v1/judge``, from clients that send no header. It
is taken out of the path before anything sees it that might write it down. Routes ask for the caller by a dependency:

    async def route(body: Body, caller: Annotated[Caller, Depends(caller_of)]) -> Answer: ...
"""

from __future__ import annotations

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
IN_PATH = "/k/"


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
    closing: bool = False
    """Whether no more are let in, because the server ends."""


class Edge:
    """ASGI middleware around all routes.

    Args:
        traffic: Where what is open is counted, and whether more is let in.
        reward_keys: Without any, and without admin keys, everybody may ask, and nobody is an admin.
        max_body_bytes: More is answered with 413 as soon as it is known, however the body comes.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        traffic: Traffic,
        reward_keys: Sequence[str],
        admin_keys: Sequence[str],
        max_body_bytes: int,
    ) -> None:
        self._app = app
        self._traffic = traffic
        self._keys = [(key.encode(), False) for key in reward_keys] + [(key.encode(), True) for key in admin_keys]
        self._closed = bool(reward_keys)
        self._max_body_bytes = max_body_bytes

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
        limit = self._max_body_bytes
        if _declared(scope) > limit:
            await _too_long(limit)(scope, receive, send)
            return
        taken = 0

        async def bounded() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > limit:
                raise HTTPException(413, _long(limit))
            return message

        if inside in OPEN:
            await self._app(scope, bounded, send)
            return
        if self._traffic.closing:
            await refusal(503, "the server ends", {"Retry-After": "5"})(scope, receive, send)
            return
        self._traffic.num_open += 1
        try:
            await self._app(scope, bounded, send)
        finally:
            self._traffic.num_open -= 1

    def _caller(self, key: bytes) -> Caller | None:
        """Whoever has this key; ``None`` is nobody that is let in."""
        # All keys are compared, each in constant time, so that the time tells nothing of them.
        found = [is_admin for known, is_admin in self._keys if hmac.compare_digest(known, key)]
        if not found:
            return None if self._closed else Caller()
        return Caller(namespace=hashlib.sha256(key).hexdigest()[:32], is_admin=found[0])


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
