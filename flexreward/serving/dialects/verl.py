"""verl's reward models: ``POST /classify`` as vLLM answers it. A reward function is ``flexreward.adapters.verl``.

    {"model": ..., "input": "<|im_start|>user..."} -> {"data": [{"index": 0, "label": ..., "probs": [0.75], ...}], ...}

verl reads ``data[-1].probs[-1]``. The input is one text in the form of a chat template, so a completion that spells
turns of its own cannot be told from the prompt: prefer the reward function, which gets the completion by itself. An
unscored one has its group's mean or the server's neutral value; ``unscored`` is 1 then.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from flexreward.errors import UserError
from flexreward.serving.callers import caller_of
from flexreward.serving.contract import Caller, Rewarded, RewardItem, Service
from flexreward.serving.dialects.asking import Asked, ask, finite
from flexreward.serving.dialects.spoken import last_turn

LIMIT_S = 300.0


class Body(BaseModel):
    """POST /classify"""

    model_config = ConfigDict(frozen=True)

    model: str = ""
    """Named by every client, and looked at by none: the judge stands in the URL."""
    input: str | Annotated[list[str], Field(min_length=1)]

    @property
    def inputs(self) -> list[str]:
        return [self.input] if isinstance(self.input, str) else self.input


def router(service: Service, *, neutral: float) -> APIRouter:
    routes = APIRouter()

    @routes.post("/classify")
    async def classify(body: Body, options: Asked, caller: Annotated[Caller, Depends(caller_of)]) -> dict[str, Any]:
        """Rewards in the form of a classifier's probabilities, as verl asks for them."""
        items = decode(body)
        found = await ask(service, items, options=options, caller=caller, limit_s=LIMIT_S)
        return encode(body.model, found, finite(found, items, neutral=neutral))

    return routes


def decode(body: Body) -> list[RewardItem]:
    """Raises UserError where an input is no conversation: then all are none."""
    return [_item(place, text) for place, text in enumerate(body.inputs)]


def _item(place: int, text: str) -> RewardItem:
    if (parted := last_turn(text)) is None:
        raise UserError(
            f"input[{place}]: expected a conversation that ends with an assistant turn, as the chat template of "
            "ChatML, Llama 3, Gemma or Phi writes it"
        )
    prompt, completion = parted
    return RewardItem(prompt=prompt, completion=completion)


def encode(model: str, found: Sequence[Rewarded], rewards: Sequence[float]) -> dict[str, Any]:
    tokens = sum(one.tokens for one in found)
    return {
        "id": f"classify-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": model.encode("utf-8", "replace").decode(),  # what is named wrongly is no reason to end
        "data": [
            {
                "index": index,
                "label": "scored" if one.reward is not None else "unscored",
                "probs": [value],
                "num_classes": 1,
                "unscored": int(one.reward is None),
            }
            for index, (one, value) in enumerate(zip(found, rewards, strict=True))
        ],
        "usage": {"prompt_tokens": 0, "total_tokens": tokens, "completion_tokens": tokens},
    }
