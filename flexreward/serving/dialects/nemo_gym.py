"""NeMo Gym's generative reward model: ``POST /compare``.

    {"conversation_history": [{role, content}], "response_objs": [Responses], "principle": str?}
        -> {"rewards": [x], "comparison_results": [...], "metrics": {...}}

Every two responses are compared in both orders, and a reward is the share of the others that a response beats. With a
``principle`` it is the rubric. Comparisons that are unscored are left out of ``comparison_results``, never filled in; a
response without any scored one has the mean of the others' rewards, or the server's neutral value, and is marked in
``unscored``.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Sequence
from contextlib import aclosing
from itertools import combinations
from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from flexreward.errors import LaterError
from flexreward.groups import TIE
from flexreward.reward import Game, win_rates
from flexreward.serving.callers import caller_of
from flexreward.serving.contract import Caller, Service
from flexreward.serving.dialects.asking import Asked, Options
from flexreward.types import JudgeRequest, Judgment, Message, Verdict

LIMIT_S = 600.0
MOST_RESPONSES = 64
RUBRIC_TEMPLATE = "rubric-pair"
ROLES = {"developer": "system"}


class Turn(BaseModel):
    model_config = ConfigDict(frozen=True)

    role: Annotated[str, Field(pattern="^(system|developer|user|assistant|tool)$")]
    content: str | list[dict[str, Any]]
    """Text, or parts that hold ``text``."""


class Body(BaseModel):
    """POST /compare"""

    model_config = ConfigDict(frozen=True)

    conversation_history: Annotated[list[Turn], Field(min_length=1)]
    response_objs: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MOST_RESPONSES)]
    """Of the Responses API; what is compared is the text of their messages."""
    principle: str | None = None


class Comparison(BaseModel):
    response_i: int
    response_j: int
    judge_idx: int
    score_1: float
    score_2: float
    ranking: float
    """From 1 (the first is much better) to 6 (the second is)."""


class Answer(BaseModel):
    rewards: list[float]
    unscored: list[int]
    comparison_results: list[Comparison]
    metrics: dict[str, float]


def router(service: Service, *, neutral: float) -> APIRouter:
    routes = APIRouter()

    @routes.post("/compare")
    async def compare(body: Body, options: Asked, caller: Annotated[Caller, Depends(caller_of)]) -> Answer:
        """Responses compared with each other, as NeMo Gym asks for it."""
        texts = [text_of(response) for response in body.response_objs]
        pairs = [(i, j) for i, j in combinations(range(len(texts)), 2) if texts[i] != texts[j]]
        requests = [request_of(body, texts[i], texts[j]) for i, j in pairs]
        judgments = await _judged(service, requests, options, caller, RUBRIC_TEMPLATE if body.principle else "")
        return encode(texts, dict(zip(pairs, judgments, strict=True)), neutral=neutral)

    return routes


def text_of(response: dict[str, Any]) -> str:
    """What a response says: the texts of its messages, without its reasoning and its calls of tools."""
    output = response.get("output")
    items = [one for one in output if isinstance(one, dict)] if isinstance(output, list) else []
    contents = [one.get("content") for one in items if one.get("type", "message") == "message"]
    return "\n".join(_text(content) for content in contents)


def request_of(body: Body, first: str, second: str) -> JudgeRequest:
    turns = tuple(
        Message(role=ROLES.get(turn.role, turn.role), content=_text(turn.content)) for turn in body.conversation_history
    )
    return JudgeRequest(prompt=turns, completions=(first, second), rubric=body.principle or None)


def encode(texts: Sequence[str], judged: dict[tuple[int, int], Judgment], *, neutral: float) -> Answer:
    """Equal responses tie with each other, wherever anything is known of them."""
    verdicts = {pair: one.outcome for pair, one in judged.items() if isinstance(one.outcome, Verdict)}
    scored = {i for pair in verdicts for i in pair}
    games = [Game(i, j, verdict) for (i, j), verdict in verdicts.items()]
    for i, j in combinations(range(len(texts)), 2):
        if texts[i] == texts[j] and (i in scored or not judged):
            games.append(Game(i, j, TIE))
    rewards = win_rates(games, group_size=len(texts))
    known = [reward for reward in rewards if reward is not None]
    instead = statistics.fmean(known) if known else neutral
    flips = [not one.consistent for one in judged.values() if len(one.orders) > 1 and one.consistent is not None]
    return Answer(
        rewards=[instead if reward is None else reward for reward in rewards],
        unscored=[int(reward is None) for reward in rewards],
        comparison_results=[_comparison(i, j, verdict) for (i, j), verdict in verdicts.items()],
        metrics={
            "unscored": float(sum(reward is None for reward in rewards)),
            "comparisons": float(len(judged)),
            "comparisons_unscored": float(len(judged) - len(verdicts)),
            "flip_rate": statistics.fmean(flips) if flips else 0.0,
            "judge_tokens": float(sum(one.completion_tokens for one in judged.values())),
        },
    )


def _comparison(i: int, j: int, verdict: Verdict) -> Comparison:
    first, second = (verdict.scale.fraction(score) for score in verdict.scores)
    return Comparison(
        response_i=i,
        response_j=j,
        judge_idx=0,
        score_1=verdict.scores[0],
        score_2=verdict.scores[1],
        ranking=3.5 - 2.5 * (first - second),
    )


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(str(part["text"]) for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))


async def _judged(
    service: Service, requests: Sequence[JudgeRequest], options: Options, caller: Caller, template: str
) -> list[Judgment]:
    """All judgments in order; a server without room is waited for, as long as the call may last.

    Raises:
        LaterError: There was none.
    """
    until = asyncio.get_running_loop().time() + (options.deadline_s or LIMIT_S)
    while requests:
        left = until - asyncio.get_running_loop().time()
        found: dict[int, Judgment] = {}
        stream = service.judge(requests, caller=caller, judge=options.judge, template=template, deadline_s=left)
        try:
            async with aclosing(cast(Any, stream)):
                async for one in stream:
                    found[one.index] = one.judgment
            return [found[i] for i in range(len(requests))]
        except LaterError as error:
            if error.retry_after_s >= until - asyncio.get_running_loop().time():
                raise
            await asyncio.sleep(error.retry_after_s)
    return []
