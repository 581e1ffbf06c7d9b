"""A server of rewards that fails as it is told to: for what a client makes of failures, never for what it claims."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response

Answer = Response | dict[str, Any]


def by_length(body: dict[str, Any]) -> dict[str, Any]:
    """A reward that tells the completion's length: 0.01 a character."""
    rewards = [len(str(completion)) / 100 for completion in body["completions"]]
    return {"rewards": rewards, "reasons": [None] * len(rewards)}


@dataclass
class FaultyServer:
    """Answers POST /v1/rewards as ``script`` says, which is given the call's number from 0 and its body."""

    script: Callable[[int, dict[str, Any]], Any] = lambda number, body: by_length(body)
    key: str | None = None
    bodies: list[dict[str, Any]] = field(default_factory=list)
    num_bytes: list[int] = field(default_factory=list)
    url: str = ""

    async def answer(self, request: Request) -> Response:
        raw = await request.body()
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            said = {"error": f"the key {request.headers.get('Authorization')} does not open it"}
            return Response(json.dumps(said), status_code=401)
        body = json.loads(raw)
        number = len(self.bodies)
        self.bodies.append(body)
        self.num_bytes.append(len(raw))
        found = self.script(number, body)
        found = await found if asyncio.iscoroutine(found) else found
        return found if isinstance(found, Response) else Response(json.dumps(found))


class Reset(Response):
    """The connection is reset in place of an answer."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        transport = send.__self__.transport
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


@contextmanager
def serving(server: FaultyServer) -> Iterator[FaultyServer]:
    """The server, listening on a port of its own."""
    app = FastAPI()
    app.post("/v1/rewards")(server.answer)
    with listening(app) as server.url:
        yield server


@contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """The address at which an application of this process is asked over HTTP."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        runner = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=0))
        thread = threading.Thread(target=runner.run, kwargs={"sockets": [bound]})
        thread.start()
        while not runner.started:
            time.sleep(0.005)
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            runner.should_exit = True
            thread.join()
