"""A server in this process: the real app and service over a scripted judge, asked by a real HTTP client."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import httpx

from flexreward.config import JudgeRecipe
from flexreward.engines.base import Engine, Prompt
from flexreward.engines.scripted import ScriptedEngine
from flexreward.ledger import Ledger
from flexreward.serving.admission import Admission
from flexreward.serving.app import Bounds, build_app
from flexreward.serving.judges import OpenJudge
from flexreward.serving.service import JudgeService

KEY, OTHER, ADMIN = "reward-key-0123456789", "second-key-0123456789", "admin-key-0123456789"


def digits(prompt: Prompt) -> str:
    """Scores each completion by the digit that it ends with."""
    shown = prompt.user.split("'s Answer]\n")[1:]
    ends = [part.partition("\n\n")[0].strip()[-1:] for part in shown]
    return "<think>Hm.</think>" + "".join(f"<answer>{end}</answer>" for end in ends)


def service_over(
    engine: Engine | None = None, *, lanes: int = 64, max_waiting: int = 10_000, deadline_s: float = 30.0, **recipe: Any
) -> JudgeService:
    engine = engine or ScriptedEngine(digits)
    opened = OpenJudge(
        recipe=JudgeRecipe(**({"model": "scripted:digits", "engine": "scripted"} | recipe)),
        engine=engine,
        admission=Admission(lanes=lanes, max_waiting=max_waiting),
    )
    return JudgeService({"main": opened}, ledger=Ledger(None), deadline_s=deadline_s)


@contextlib.asynccontextmanager
async def client_of(
    service: JudgeService | None = None,
    *,
    key: str = "",
    routers: Sequence[Any] = (),
    ready: Callable[[], str] = lambda: "",
    **bounds: Any,
) -> AsyncIterator[httpx.AsyncClient]:
    app = build_app(service or service_over(), bounds=Bounds(**bounds), routers=routers, ready=ready)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with httpx.AsyncClient(transport=transport, base_url="http://server", headers=headers) as client:
        yield client
