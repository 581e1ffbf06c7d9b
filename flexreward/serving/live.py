"""A page that shows what the server does while it does it, and the same numbers for Prometheus."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import time
from typing import Any

from fastapi import APIRouter, Depends, Response
from starlette.responses import PlainTextResponse

from flexreward.report.render import LIVE_POLICY, render_page
from flexreward.serving.board import Board, exposition
from flexreward.serving.callers import caller_of
from flexreward.serving.contract import Caller

METRICS = "text/plain; version=0.0.4; charset=utf-8"


def live_routes(
    board: Callable[[], Awaitable[Board]], *, viewer: Callable[..., Awaitable[Caller]] = caller_of
) -> APIRouter:
    """``/``, ``/v1/live`` and ``/metrics``.

    Args:
        board: Asks whoever owns the counts for them.
        viewer: Who may read prompts, completions and replies of everybody: ``callers.admin_of`` where there are keys.
    """
    routes = APIRouter()

    @routes.get("/", include_in_schema=False, dependencies=[Depends(viewer)])
    async def page() -> Response:
        """The live page. It asks /v1/live for its numbers, with the key that stands in its own path."""
        html = await asyncio.to_thread(render_page, "live.html.j2", live=True)
        # Not by the page itself, which a browser would believe as well, but by what sends it.
        headers = {"Content-Security-Policy": LIVE_POLICY, "Cache-Control": "no-store", "X-Frame-Options": "DENY"}
        return Response(html, media_type="text/html", headers=headers)

    @routes.get("/v1/live", dependencies=[Depends(viewer)])
    async def live() -> dict[str, Any]:
        """Counts, a history of ten minutes, and the last verdicts with their reasoning."""
        return (await board()).told(now=time())

    @routes.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """The counts of all ingress copies together, as Prometheus reads them."""
        return Response(exposition(await board()), media_type=METRICS)

    return routes
