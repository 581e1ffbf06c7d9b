"""The judge's model in OpenAI's words: the bodies of ``/v1/chat/completions``, and how they become our nouns. Pure.

An engine is shown a system turn, a user's turn and perhaps a started turn of its own, and writes whole replies. A body
that asks for more than that is refused by name, and nothing that changes what is written is passed over.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from math import isfinite
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from flexreward.config import JudgeRecipe
from flexreward.engines.base import Placed, Prompt, Sampling
from flexreward.errors import SampleError
from flexreward.media.intake import Reach, audio_of, image_of, video_of
from flexreward.media.limits import Limits
from flexreward.types import Media, Reply, TokenLogprob

LOWEST = -9999.0
"""What is told of a token that was ruled out: JSON has no minus infinity."""
MOST_REPLIES = 128
NAMED = {"image_url": image_of, "video_url": video_of}


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ChatMessage(_Body):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[dict[str, Any]]
    """A text, or parts: ``{"type": "text", "text": ...}``, ``image_url``, ``video_url``, ``input_audio``."""
    name: str | None = None


class Pattern(_Body):
    regex: str
    """That the whole of a reply must match."""


class ResponseFormat(_Body):
    type: Literal["text"] = "text"


class StreamOptions(_Body):
    include_usage: bool = False


class ChatBody(_Body):
    """POST /v1/chat/completions"""

    model: str
    """Name of one of the server's judges."""
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=3)]
    """A system turn or none, one user's turn, and a started turn of the assistant or none."""
    max_tokens: Annotated[int | None, Field(ge=1, le=1_000_000)] = None
    """New tokens of a reply; by default those of the judge's recipe."""
    max_completion_tokens: Annotated[int | None, Field(ge=1, le=1_000_000)] = None
    """The same by its other name."""
    temperature: Annotated[float | None, Field(ge=0, le=100, allow_inf_nan=False)] = None
    """1 by default."""
    top_p: Annotated[float | None, Field(gt=0, le=1)] = None
    n: Annotated[int | None, Field(ge=1, le=MOST_REPLIES)] = None
    seed: Annotated[int | None, Field(ge=-(2**63), lt=2**63)] = None
    """Drawn anew for each request by default."""
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    include_stop_str_in_output: bool = False
    logprobs: bool | None = None
    top_logprobs: Annotated[int | None, Field(ge=0, le=20)] = None
    stream: bool | None = None
    """A reply comes in one piece when it has ended, each as it does."""
    stream_options: StreamOptions | None = None
    continue_final_message: bool = False
    """Whether the last message is a started turn to go on with."""
    add_generation_prompt: bool = True
    structured_outputs: Pattern | None = None
    response_format: ResponseFormat | None = None
    return_token_ids: bool | None = None
    """Taken, and nothing follows from it: replies come as text."""
    top_k: Literal[-1, 0] | None = None
    min_p: Literal[0] | None = None
    repetition_penalty: Literal[1] | None = None
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None


class TopLogprob(BaseModel):
    token: str
    logprob: float
    bytes: list[int]


class Logprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class Logprobs(BaseModel):
    content: list[Logprob]
    refusal: None = None


class Written(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(BaseModel):
    index: int
    message: Written
    finish_reason: str
    logprobs: Logprobs | None


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatAnswer(BaseModel):
    """Answer of POST /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


class ModelCard(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "flexreward"


class ModelList(BaseModel):
    """Answer of GET /v1/models: the server's judges."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


def prompt_of(body: ChatBody, *, hosts: frozenset[str], limits: Limits) -> Prompt:
    """What the engine is shown. Media of URLs are fetched: call it in a thread.

    Raises:
        SampleError: The messages are none that a judge is shown; one line.
    """
    turns = list(body.messages)
    if body.continue_final_message == body.add_generation_prompt:
        raise SampleError(
            "continue_final_message: goes with add_generation_prompt false, and neither without the other"
        )
    system, prefix = "", ""
    if turns[0].role in ("system", "developer"):
        system = _text(turns.pop(0), "messages[0]")
    if body.continue_final_message:
        if not turns or turns[-1].role != "assistant":
            raise SampleError("continue_final_message: the last message is none of the assistant's")
        prefix = _text(turns.pop(), f"messages[{len(body.messages) - 1}]")
    if [turn.role for turn in turns] != ["user"]:
        raise SampleError(
            "messages: a judge is shown a system turn or none, one user's turn, and a started turn or none, found "
            f"{', '.join(one.role for one in body.messages)}"
        )
    user, media = _parts(turns[0], Reach(folder=None, hosts=hosts), limits)
    return Prompt(system=system, user=user, prefix=prefix, media=media)


def sampling_of(body: ChatBody, recipe: JudgeRecipe) -> Sampling:
    """How replies are drawn."""
    stop = body.stop or ()
    alternatives = max(body.top_logprobs or 0, 1) if body.logprobs else 0
    return Sampling(
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        max_tokens=body.max_completion_tokens or body.max_tokens or recipe.max_tokens,
        n=body.n or 1,
        seed=secrets.randbits(31) if body.seed is None else body.seed % 2**31,
        stop=(stop,) if isinstance(stop, str) else tuple(one for one in stop if one),
        logprobs=alternatives,
        pattern=body.structured_outputs.regex if body.structured_outputs else None,
    )


def new_id() -> str:
    return f"chatcmpl-{secrets.token_hex(12)}"


def answer_of(body: ChatBody, prompt: Prompt, replies: Sequence[Reply], *, id: str) -> ChatAnswer:
    """The replies in the order of their numbers."""
    choices = [choice_of(body, prompt, reply) for reply in sorted(replies, key=lambda one: one.index)]
    return ChatAnswer(id=id, created=int(time.time()), model=body.model, choices=choices, usage=usage_of(replies))


def choice_of(body: ChatBody, prompt: Prompt, reply: Reply) -> Choice:
    text = reply.text.removeprefix(prompt.prefix)
    stops = [body.stop] if isinstance(body.stop, str) else body.stop or []
    if not body.include_stop_str_in_output:
        text = text.removesuffix(next((stop for stop in stops if stop and text.endswith(stop)), ""))
    told = body.top_logprobs or 0
    logprobs = Logprobs(content=[_logprob(one, told) for one in reply.logprobs]) if body.logprobs else None
    return Choice(
        index=reply.index, message=Written(content=text), finish_reason=reply.finish_reason, logprobs=logprobs
    )


def usage_of(replies: Sequence[Reply]) -> Usage:
    read, written = max(one.prompt_tokens for one in replies), sum(one.completion_tokens for one in replies)
    return Usage(prompt_tokens=read, completion_tokens=written, total_tokens=read + written)


def chunks_of(body: ChatBody, choice: Choice, *, id: str) -> list[dict[str, Any]]:
    """A choice as a stream has it: its text, then how it ended."""

    def chunk(delta: dict[str, Any], finish_reason: str | None, logprobs: Logprobs | None) -> dict[str, Any]:
        told = None if logprobs is None else logprobs.model_dump()
        one = {"index": choice.index, "delta": delta, "finish_reason": finish_reason, "logprobs": told}
        return head_of(body, id=id) | {"choices": [one]}

    text = {"role": "assistant", "content": choice.message.content}
    return [chunk(text, None, choice.logprobs), chunk({}, choice.finish_reason, None)]


def head_of(body: ChatBody, *, id: str) -> dict[str, Any]:
    return {"id": id, "object": "chat.completion.chunk", "created": int(time.time()), "model": body.model}


def _text(turn: ChatMessage, where: str) -> str:
    if isinstance(turn.content, str):
        return turn.content
    parts = [part.get("text") for part in turn.content if part.get("type") == "text"]
    if len(parts) != len(turn.content) or not all(isinstance(part, str) for part in parts):
        raise SampleError(f"{where}.content: expected a text, or parts of type text")
    return "".join(str(part) for part in parts)


def _parts(turn: ChatMessage, reach: Reach, limits: Limits) -> tuple[str, tuple[Placed, ...]]:
    """The user's turn, and its media where they stand."""
    if isinstance(turn.content, str):
        return turn.content, ()
    text, media = "", []
    for i, part in enumerate(turn.content):
        where = f"messages: content[{i}]"
        if part.get("type") == "text" and isinstance(part.get("text"), str):
            text += part["text"]
        else:
            media.append(Placed(len(text), _medium(part, where, reach, limits)))
    return text, tuple(media)


def _medium(part: dict[str, Any], where: str, reach: Reach, limits: Limits) -> Media:
    kind = part.get("type")
    given = part.get(kind) if isinstance(kind, str) else None
    if kind in NAMED and isinstance(given, dict) and isinstance(given.get("url"), str):
        return NAMED[kind](given["url"], limits=limits, reach=reach, where=where)
    if kind == "input_audio" and isinstance(given, dict) and isinstance(given.get("data"), str):
        uri = f"data:application/octet-stream;base64,{given['data']}"
        return audio_of(uri, limits=limits, reach=reach, where=where)
    raise SampleError(f"{where}: expected a part of type text, image_url, video_url or input_audio, with what it names")


def _logprob(one: TokenLogprob, num_told: int) -> Logprob:
    top = [TopLogprob(**_told(token, logprob)) for token, logprob in one.top[:num_told]]
    return Logprob(**_told(one.text, one.logprob), top_logprobs=top)


def _told(token: str, logprob: float) -> dict[str, Any]:
    return {
        "token": token,
        "logprob": logprob if isfinite(logprob) else LOWEST,
        "bytes": list(token.encode("utf-8", "replace")),
    }
