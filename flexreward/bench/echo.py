"""What Ray Serve itself costs: an HTTP ingress that sends what it gets through a handle, and sends back what comes."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from ray import serve
from ray.serve import Application

api = FastAPI()


class Echo:
    async def back(self, body: dict[str, Any]) -> dict[str, Any]:
        return body


@serve.ingress(api)
class EchoIngress:
    def __init__(self, echo: Any) -> None:
        self._echo = echo

    @api.post("/")
    async def echoed(self, request: Request) -> dict[str, Any]:
        found: dict[str, Any] = await self._echo.back.remote(await request.json())
        return found


def echo() -> Application:
    """One copy of each."""
    options: dict[str, Any] = {"ray_actor_options": {"num_cpus": 0}, "max_ongoing_requests": 1000}
    ingress = serve.deployment(EchoIngress, name="EchoIngress", **options)
    return ingress.bind(serve.deployment(Echo, name="Echo", **options).bind())
