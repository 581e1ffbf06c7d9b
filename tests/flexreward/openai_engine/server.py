"""A small OpenAI-compatible server on loopback that answers, delays, refuses, breaks and goes away."""

from __future__ import annotations

import json
import select
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from flexreward.engines.base import Prompt, Sampling
from flexreward.engines.openai import PROBES, OpenAIEngine

PROMPT = Prompt(system="You judge.", user="Which is better?")
DRAWN = Sampling(temperature=0.7, n=3, seed=2**52 + 5)
DROP = "drop the connection"


@dataclass
class Answer:
    """What the server does with one request."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0


def completion(*texts: str, finish: str | None = "stop", usage: bool = True, **choice: Any) -> dict[str, Any]:
    choices = [
        {"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": finish, **choice}
        for i, text in enumerate(texts)
    ]
    counts = {"prompt_tokens": 11, "completion_tokens": 10, "total_tokens": 21}
    return {"id": "c", "object": "chat.completion", "choices": choices, **({"usage": counts} if usage else {})}


class Server:
    """An OpenAI-compatible server: ``script`` answers what is no probe, from the request's body."""

    def __init__(self) -> None:
        self.models = ["judge-7b"]
        self.taste = "first"
        """The weights: what it says to the probes depends on them."""
        self.key: str | None = None
        self.script: Callable[[dict[str, Any]], Any] = lambda body: completion(*["good"] * body["n"])
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.waiting, self.aborted = threading.Event(), threading.Event()
        """A delayed request is under way; its client has gone."""
        self.under_way = self.most_under_way = 0
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # head and body are written apart, and would wait 40 ms for each other

            def do_GET(self) -> None:
                self.reply(server.check_key(self.headers) or Answer({"data": [{"id": id} for id in server.models]}))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                answer = server.check_key(self.headers) or server.answer(body, dict(self.headers))
                with server._lock:
                    server.under_way += 1
                    server.most_under_way = max(server.under_way, server.most_under_way)
                try:
                    if answer.delay_s:
                        server.waiting.set()
                    if answer.delay_s and select.select([self.connection], [], [], answer.delay_s)[0]:
                        server.aborted.set()  # nothing but the end of the connection can come while it waits
                        self.close_connection = True
                        return
                finally:
                    with server._lock:
                        server.under_way -= 1
                self.reply(answer)

            def reply(self, answer: Answer) -> None:
                if answer.body == DROP:
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.close_connection = True
                    self.connection.close()
                    return
                data = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
                self.send_response(answer.status)
                for name, value in {"Content-Length": str(len(data)), **answer.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *args: Any) -> None:
                pass

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def check_key(self, headers: Any) -> Answer | None:
        if self.key is None or headers.get("Authorization") == f"Bearer {self.key}":
            return None
        return Answer({"error": {"message": f"Wrong key: {headers.get('Authorization')}"}}, status=401)

    def answer(self, body: dict[str, Any], headers: dict[str, str]) -> Answer:
        if body["model"] not in self.models:
            return Answer({"message": f"The model `{body['model']}` does not exist."}, status=404)
        text = body["messages"][-1]["content"]
        if text in PROBES:
            return Answer(completion(f"{self.taste}: {text[::-1]}"))
        with self._lock:
            self.bodies.append(body)
            self.headers.append(headers)
        found = self.script(body)
        return found if isinstance(found, Answer) else Answer(found)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()  # may be called twice
        self._thread.join()


def engine_of(server: Server, **options: Any) -> OpenAIEngine:
    return OpenAIEngine("judge-7b", base_url=server.url, **options)


async def replies_of(engine: OpenAIEngine, prompt: Prompt = PROMPT, sampling: Sampling = DRAWN) -> list[Any]:
    try:
        return [reply async for reply in engine.generate(prompt, sampling)]
    finally:
        await engine.close()


def in_turn(*answers: Any) -> Callable[[dict[str, Any]], Any]:
    """Each answer once, the last for ever."""
    left = list(answers)
    return lambda body: left.pop(0) if len(left) > 1 else left[0]


def failed(error: pytest.ExceptionInfo[Exception]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)
