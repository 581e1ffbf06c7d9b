"""``/v1/chat/completions`` and ``/v1/models``: the judges' models themselves, for whoever speaks to OpenAI's servers.

Behind the same gate, admission and engines as judgments. Nothing of it is kept.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, Query
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse

from flexreward.engines.base import Prompt
from flexreward.errors import FlexRewardError
from flexreward.media.limits import Limits
from flexreward.serving.callers import caller_of
from flexreward.serving.chat import (
    ChatAnswer,
    ChatBody,
    ModelCard,
    ModelList,
    answer_of,
    choice_of,
    chunks_of,
    head_of,
    new_id,
    prompt_of,
    sampling_of,
    usage_of,
)
from flexreward.serving.service import JudgeService
from flexreward.serving.wire import Refusal
from flexreward.types import Reply

EVENTS = "text/event-stream"
REFUSALS: dict[int | str, dict[str, Any]] = {
    200: {"content": {EVENTS: {}}},
    404: {"model": Refusal, "description": "The server has no judge of this name."},
    504: {"model": Refusal, "description": "The reply did not come in time."},
}


def chat_routes(service: JudgeService, *, hosts: frozenset[str], limits: Limits) -> APIRouter:
    """The routes.

    Args:
        hosts: That media may be fetched from.
        limits: What media are held to.
    """
    routes = APIRouter(dependencies=[Depends(caller_of)])

    @routes.get("/v1/models")
    async def models() -> ModelList:
        """The judges by name."""
        return ModelList(data=[ModelCard(id=name) for name in service.judges])

    @routes.post("/v1/chat/completions", response_model=ChatAnswer, responses=REFUSALS)
    async def chat(body: ChatBody, deadline_s: Annotated[float | None, Query(gt=0)] = None) -> Response:
        """What a judge's model writes. Its reasoning stands in the text, as the model writes it."""
        if body.model not in service.judges:
            raise HTTPException(404, f"model: no judge {body.model!r}, expected one of {', '.join(service.judges)}")
        prompt = await asyncio.to_thread(prompt_of, body, hosts=hosts, limits=limits)
        sampling = sampling_of(body, service.judges[body.model].recipe)
        replies = service.write(prompt, sampling, judge=body.model, deadline_s=deadline_s)
        if not body.stream:
            async with aclosing(replies):
                found = [reply async for reply in replies]
            answer = answer_of(body, prompt, found, id=new_id())
            return Response(answer.model_dump_json(), media_type="application/json")
        first = await anext(replies)  # what is refused is refused before an answer has begun
        return StreamingResponse(_events(body, prompt, first, replies), media_type=EVENTS)

    return routes


async def _events(body: ChatBody, prompt: Prompt, first: Reply, rest: AsyncIterator[Reply]) -> AsyncIterator[bytes]:
    id, found = new_id(), [first]
    for chunk in chunks_of(body, choice_of(body, prompt, first), id=id):
        yield _event(chunk)
    try:
        async with aclosing(cast(Any, rest)):
            async for reply in rest:
                found.append(reply)
                for chunk in chunks_of(body, choice_of(body, prompt, reply), id=id):
                    yield _event(chunk)
    except FlexRewardError as error:  # the answer has begun: all that can be done is to say so in it
        yield _event({"error": {"message": str(error), "type": type(error).__name__, "code": error.status}})
        return
    if body.stream_options is not None and body.stream_options.include_usage:
        yield _event(head_of(body, id=id) | {"choices": [], "usage": usage_of(found).model_dump()})
    yield b"data: [DONE]\n\n"


def _event(fields: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(fields)}\n\n".encode()
