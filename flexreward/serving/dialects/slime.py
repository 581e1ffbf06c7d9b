"""slime and miles: ``--rm-type remote_rm --rm-url http://HOST:8000/remote_rm``.

    {"prompt": str | [messages], "response": str, "label": ...} -> 0.75

The body of the answer is the reward. With ``?reply=dict`` it is ``{"score": 0.75, "unscored": 0, ...}``, for
``--reward-key score``. An unscored sample has its group's mean or the server's neutral value; with ``?unscored=error``
it is answered with 503, which slime's client tries ten times before it ends the training.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from flexreward.errors import EngineError
from flexreward.files.parts import Parts
from flexreward.files.samples import Reader
from flexreward.serving.callers import caller_of
from flexreward.serving.contract import Caller, Rewarded, RewardItem, Service
from flexreward.serving.dialects.asking import Options, ask, finite
from flexreward.serving.dialects.openrlhf import reference_of
from flexreward.serving.dialects.spoken import prompt_of, without_end

LIMIT_S = 110.0
"""Its client waits 120 seconds."""


class Body(BaseModel):
    """POST /remote_rm"""

    model_config = ConfigDict(frozen=True)

    prompt: str | Annotated[list[dict[str, Any]], Field(min_length=1)]
    response: str
    label: Any = None


class SlimeOptions(Options):
    reply: Literal["number", "dict"] = "number"
    unscored: Literal["neutral", "error"] = "neutral"


class Reply(BaseModel):
    score: float
    unscored: int
    flipped: int
    judge_tokens: int
    judge_seconds: float


def router(service: Service, *, neutral: float) -> APIRouter:
    routes = APIRouter()

    @routes.post("/remote_rm")
    async def remote_rm(
        body: Body, options: Annotated[SlimeOptions, Query()], caller: Annotated[Caller, Depends(caller_of)]
    ) -> float | Reply:
        """One reward as slime asks for it.

        Raises:
            EngineError: It is unscored, and the URL asks for an error then.
        """
        item = decode(body)
        found = await ask(service, [item], options=options, caller=caller, limit_s=LIMIT_S)
        if found[0].reward is None and options.unscored == "error":
            raise EngineError(f"unscored ({found[0].reason}): {found[0].detail}")
        value = finite(found, [item], neutral=neutral)[0]
        return value if options.reply == "number" else encode(found[0], value)

    return routes


def decode(body: Body) -> RewardItem:
    """Raises SampleError where messages are none."""
    if isinstance(body.prompt, str):
        prompt = prompt_of(body.prompt)
    else:
        # No folder to open a path in, and no host to ask.
        prompt = Reader("the request", False, Parts(where="the request")).text(body.prompt, "prompt")
    return RewardItem(prompt=prompt, completion=without_end(body.response), reference=reference_of(body.label))


def encode(found: Rewarded, value: float) -> Reply:
    return Reply(
        score=value,
        unscored=int(found.reward is None),
        flipped=int(found.flipped is True),
        judge_tokens=found.tokens,
        judge_seconds=found.seconds,
    )
