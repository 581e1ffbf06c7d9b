"""The routes, over any ``Service``: no Ray here, so that they are tested as they are."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple, cast

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse

from flexreward import __version__
from flexreward.errors import FlexRewardError, LaterError, UserError
from flexreward.files.outcomes import Item, encode, outcome_row
from flexreward.media.limits import LIMITS, Limits
from flexreward.serving.callers import Edge, Line, Traffic, caller_of, refusal
from flexreward.serving.contract import Caller, Judged, Service
from flexreward.serving.reranking import reranked
from flexreward.serving.wire import (
    Asked,
    JudgeBody,
    Outcomes,
    Refusal,
    RerankAnswer,
    RerankBody,
    RewardsAnswer,
    RewardsBody,
    items_from,
    request_from,
    rewards_answer,
)
from flexreward.types import JudgeRequest, Reason

NDJSON = "application/x-ndjson"
REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Refusal, "description": "The body is no JSON, or says something that cannot be."},
    401: {"model": Refusal, "description": "A key is needed, or the key is wrong."},
    403: {"model": Refusal, "description": "Needs an admin key."},
    408: {"model": Refusal, "description": "The body did not come in time."},
    409: {"model": Refusal, "description": "The weights are not those that were named, or cannot be exchanged."},
    413: {"model": Refusal, "description": "The body is too long, or asks for too much at once."},
    422: {"model": Refusal, "description": "A field is missing, unknown or wrong."},
    429: {"model": Refusal, "description": "Could not be answered in time: ask again after Retry-After seconds."},
    503: {"model": Refusal, "description": "Not ready, asleep or about to end: ask again after Retry-After seconds."},
}
"""What every route may answer instead."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a call is held to, and who may make it."""

    reward_keys: Sequence[str] = ()
    admin_keys: Sequence[str] = ()
    max_body_bytes: int = 64 * 2**20
    max_requests: int = 1000
    max_open: int = 4096
    body_s: float = 60.0
    media_hosts: frozenset[str] = frozenset()
    limits: Limits = LIMITS
    """Of media."""
    others: Mapping[str, Limits] = field(default_factory=dict)
    """The same of judges where they are others, by name."""

    def of(self, judge: str) -> Limits:
        return self.others.get(judge, self.limits)


def build_app(
    service: Service,
    *,
    bounds: Bounds = Bounds(),  # frozen
    ready: Callable[[], str] = lambda: "",
    routers: Sequence[APIRouter] = (),
    traffic: Traffic | None = None,
) -> FastAPI:
    """The application.

    Args:
        ready: What is not there yet, in a few words; empty once requests are answered.
        routers: Further routes, such as those of other frameworks. They see the caller by ``callers.caller_of``, and
            keys, body limit and errors are taken care of.
        traffic: Where open requests are counted, and by which the door is closed.
    """
    app = FastAPI(title="flexreward", version=__version__, docs_url=None, redoc_url=None, responses=REFUSALS)
    app.include_router(_own_routes(service, bounds))
    for router in routers:
        app.include_router(router)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether the process lives."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> Response:
        """200 once a first judgment has come back, 503 before."""
        missing = ready()
        return refusal(503, missing, {"Retry-After": "1"}) if missing else Line({"status": "ready"})

    app.add_exception_handler(FlexRewardError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _answered)
    app.add_exception_handler(Exception, _broken)
    app.add_middleware(
        Edge,
        traffic=traffic or Traffic(),
        reward_keys=bounds.reward_keys,
        admin_keys=bounds.admin_keys,
        max_body_bytes=bounds.max_body_bytes,
        max_open=bounds.max_open,
        body_s=bounds.body_s,
    )
    return app


def _own_routes(service: Service, bounds: Bounds) -> APIRouter:
    routes = APIRouter()

    def check_count(count: int, field: str) -> None:
        if count > bounds.max_requests:
            raise HTTPException(413, f"{field}: {count} in one call, the limit max_requests is {bounds.max_requests}")

    @routes.post("/v1/judge", response_model=Outcomes, responses={200: {"content": {NDJSON: {}}}})
    async def judge(body: JudgeBody, request: Request, caller: Annotated[Caller, Depends(caller_of)]) -> Response:
        """Judgments of many requests: one answer in their order, or with ``Accept: application/x-ndjson`` a line for
        each as it ends, with its ``index``."""
        check_count(len(body.requests), "requests")
        read = await asyncio.to_thread(_read_all, body, bounds)
        rows = _rows(service, read, body, caller)
        if NDJSON in request.headers.get("accept", ""):
            first = await anext(rows, None)  # what is refused as a whole is refused before an answer has begun
            return StreamingResponse(_lines(first, rows), media_type=NDJSON)
        found: list[dict[str, Any]] = [{}] * len(read)
        async with aclosing(cast(Any, rows)):
            async for index, row in rows:
                found[index] = row
        return Response(encode({"outcomes": found}), media_type="application/json")

    @routes.get("/v1/judge")
    async def who(
        caller: Annotated[Caller, Depends(caller_of)], judge: str = "", template: str = "pair"
    ) -> dict[str, Any]:
        """Who judges: what a verdict depends on besides its request, as the first line of an outcome file has it."""
        return service.header(caller=caller, judge=judge, template=template)

    @routes.post("/v1/rewards")
    async def rewards(body: RewardsBody, caller: Annotated[Caller, Depends(caller_of)]) -> RewardsAnswer:
        """One reward a completion."""
        check_count(len(body.prompts), "prompts")
        items = await asyncio.to_thread(items_from, body, hosts=bounds.media_hosts, limits=bounds.of(body.judge))
        return rewards_answer(await service.rewards(items, caller=caller, judge=body.judge, deadline_s=body.deadline_s))

    @routes.post("/v1/rerank")
    async def rerank(body: RerankBody, caller: Annotated[Caller, Depends(caller_of)]) -> RerankAnswer:
        """The completions of one prompt, the best first: judged in one request, or by a ``method`` that compares them
        in several. Ties keep the order asked; what could not be read ranks last and has no score."""
        asked = await asyncio.to_thread(
            request_from, body, where="the request", hosts=bounds.media_hosts, limits=bounds.of(body.judge)
        )
        return await reranked(service, body, asked, caller=caller, max_requests=bounds.max_requests)

    return routes


class _Read(NamedTuple):
    """One request of a call, or why it cannot be taken."""

    id: str
    template: str
    request: JudgeRequest | None
    error: str


class _Row(NamedTuple):
    place: int
    row: dict[str, Any]


def _read_all(body: JudgeBody, bounds: Bounds) -> list[_Read]:
    return [_read(fields, i, body, bounds) for i, fields in enumerate(body.requests)]


def _read(fields: dict[str, Any], index: int, body: JudgeBody, bounds: Bounds) -> _Read:
    where = f"requests[{index}]"
    try:
        asked = Asked.model_validate(fields)
        request = request_from(asked, where=where, hosts=bounds.media_hosts, limits=bounds.of(body.judge))
    except ValidationError as error:
        first = error.errors()[0]
        found = f"{where}.{_field(first['loc'])}: {first['msg'].removeprefix('Value error, ')}"
    except UserError as error:
        found = str(error)
    else:
        return _Read(asked.id, asked.template or body.template, request, "")
    id = fields.get("id")
    return _Read(id if isinstance(id, str) else "", "", None, found)


async def _rows(service: Service, read: Sequence[_Read], body: JudgeBody, caller: Caller) -> AsyncIterator[_Row]:
    """A row for each request as it ends; requests of each template go to the judge together."""
    asked: dict[str, list[int]] = {}
    for i, one in enumerate(read):
        if one.request is not None:
            asked.setdefault(one.template, []).append(i)
    ended: asyncio.Queue[_Row | BaseException | None] = asyncio.Queue()

    async def run(template: str, places: list[int]) -> None:
        requests = [cast(JudgeRequest, read[i].request) for i in places]
        found = service.judge(requests, caller=caller, judge=body.judge, template=template, deadline_s=body.deadline_s)
        try:
            async with aclosing(cast(Any, found)):
                async for one in found:
                    place = places[one.index]
                    ended.put_nowait(_Row(place, _row(one, requests[one.index])))
            ended.put_nowait(None)
        except Exception as error:
            ended.put_nowait(error)

    tasks = [asyncio.create_task(run(template, places)) for template, places in asked.items()]
    try:
        running = len(tasks)
        while running:
            item = await ended.get()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                running -= 1
            else:
                yield item
        for i, one in enumerate(read):
            if one.request is None:
                yield _Row(i, _unread(one))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _row(judged: Judged, request: JudgeRequest) -> dict[str, Any]:
    return outcome_row(judged.judgment, Item(request, {}))


def _unread(read: _Read) -> dict[str, Any]:
    """The row of a request that could not be taken: unscored like any other."""
    return {
        "id": read.id,
        "status": "unscored",
        "reason": Reason.REFUSED.value,
        "detail": read.error,
        "scores": None,
        "preferred": None,
        "tie": False,
        "orders": [],
    }


async def _lines(first: _Row | None, rest: AsyncIterator[_Row]) -> AsyncIterator[bytes]:
    async with aclosing(cast(Any, rest)):
        if first is not None:
            yield encode({"index": first.place, **first.row})
        async for place, row in rest:
            yield encode({"index": place, **row})


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, FlexRewardError)
    headers = {}
    if isinstance(error, LaterError):
        headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    return refusal(error.status, str(error), headers)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    field = _field(first["loc"])
    if first["type"] == "json_invalid":
        return refusal(400, "the body is no JSON")
    return refusal(422, f"{field or 'the body'}: {str(first['msg']).removeprefix('Value error, ')}")


def _field(loc: Sequence[Any]) -> str:
    """Where a value stands; a union names which of its kinds was tried, which no reader knows."""
    kinds = ("body", "str", "list[dict[str,any]]", "dict[str,any]")
    return ".".join(str(part)[:60] for part in loc if part not in kinds)


async def _answered(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return refusal(error.status_code, str(error.detail), dict(error.headers or {}))


async def _broken(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return refusal(500, "the server failed; its log says why")
