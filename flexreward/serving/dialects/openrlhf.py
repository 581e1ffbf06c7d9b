"""OpenRLHF: ``--reward.remote_url http://HOST:8000/get_reward?group_size=8``.

    {"query": [str], "prompts": [str], "labels": [...]} -> {"rewards": [x], "scores": [x], "extra_logs": {name: [x]}}

A query is the decoded prompt and completion in one text, special tokens included. With several URLs its client sends
all to the first and empty lists to the others. It gives up after 180 seconds, tries five times, and ends the training
on a null or a string; so whatever becomes of a sample, its numbers are finite and its keys the same. An unscored one
has the mean of its group where that is known, else the server's neutral value, and ``extra_logs.unscored`` is 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field, model_validator

from flexreward.serving.callers import caller_of
from flexreward.serving.contract import Caller, Rewarded, RewardItem, Service
from flexreward.serving.dialects.asking import Asked, ask, finite
from flexreward.serving.dialects.spoken import completion_after, prompt_of

LIMIT_S = 165.0
"""Its client waits 180 seconds."""


class Body(BaseModel):
    """POST /get_reward"""

    model_config = ConfigDict(frozen=True)

    query: list[str]
    prompts: list[str] = Field(default_factory=list)
    labels: list[Any] | None = None

    @model_validator(mode="after")
    def _as_long(self) -> Body:
        if len(self.prompts) != len(self.query):
            raise ValueError(f"prompts has {len(self.prompts)} entries and query has {len(self.query)}")
        if self.labels and len(self.labels) != len(self.query):
            raise ValueError(f"labels has {len(self.labels)} entries and query has {len(self.query)}")
        return self


class Answer(BaseModel):
    rewards: list[float]
    scores: list[float]
    """The rewards again, from 0 to 1: what dynamic filtering goes by."""
    extra_logs: dict[str, list[float]]


def router(service: Service, *, neutral: float) -> APIRouter:
    routes = APIRouter()

    @routes.post("/get_reward")
    async def get_reward(body: Body, options: Asked, caller: Annotated[Caller, Depends(caller_of)]) -> Answer:
        """Rewards as OpenRLHF asks for them."""
        items = decode(body)
        found = await ask(service, items, options=options, caller=caller, limit_s=LIMIT_S)
        return encode(found, finite(found, items, neutral=neutral))

    return routes


def decode(body: Body) -> list[RewardItem | None]:
    """``None`` where the query does not begin with its prompt."""
    labels = body.labels or [None] * len(body.query)
    return [_item(*row) for row in zip(body.query, body.prompts, labels, strict=True)]


def _item(query: str, prompt: str, label: Any) -> RewardItem | None:
    completion = completion_after(query, prompt)
    if completion is None:
        return None
    return RewardItem(prompt=prompt_of(prompt), completion=completion, reference=reference_of(label))


def reference_of(label: Any) -> str | None:
    """A label that is a text or a number, as templates with a slot for a reference show it."""
    if isinstance(label, bool) or not isinstance(label, str | int | float):
        return None
    return str(label) or None


def encode(found: Sequence[Rewarded], rewards: Sequence[float]) -> Answer:
    return Answer(
        rewards=list(rewards),
        scores=list(rewards),
        extra_logs={
            "unscored": [float(one.reward is None) for one in found],
            "flipped": [float(one.flipped is True) for one in found],
            "judge_tokens": [float(one.tokens) for one in found],
            "judge_seconds": [one.seconds for one in found],
        },
    )
