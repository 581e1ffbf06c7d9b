"""The two bodies of ``/v1/chat/completions``: a prompt as the request's JSON, and the replies in what comes back."""

from __future__ import annotations

import base64
from math import inf, isfinite
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from flexreward.engines.base import Placed, Prompt, Sampling
from flexreward.engines.escape import Escape
from flexreward.engines.remote import Remote
from flexreward.engines.sending import sendable
from flexreward.errors import EngineError, RefusedError
from flexreward.media.decoder import Decoder, shared_decoder
from flexreward.types import Media, Reply, TokenLogprob

LOWEST = -9999.0
"""What servers write for a token that was ruled out: JSON has no minus infinity."""

UNBIASED = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
"""Said to vLLM, which would fill in what a checkpoint's generation config recommends: the recipe decides alone."""


class _Top(BaseModel):
    token: str
    logprob: float


class _Token(_Top):
    top_logprobs: list[_Top] = Field(default_factory=list)


class _Logprobs(BaseModel):
    content: list[_Token] | None = None


class _Message(BaseModel):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


class _Choice(BaseModel):
    message: _Message
    index: int = 0
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None
    token_ids: list[int] | None = None


class _Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Completion(BaseModel):
    choices: list[_Choice]
    usage: _Usage | None = None


def body_of(
    prompt: Prompt, sampling: Sampling, remote: Remote, *, model: str, decoder: Decoder | None = None
) -> dict[str, Any]:
    """The request. All of the prompt is escaped; a started turn as far as it could end itself.

    Raises:
        RefusedError: The text is no valid Unicode, a medium is none that can be sent, or the reply is to be held to a
            pattern and log-probabilities are asked for, which would be those of what the pattern lets through.
    """
    if sampling.pattern is not None and sampling.logprobs:
        raise RefusedError(
            "a server reports log-probabilities only of what the pattern lets through; leave out logprobs and expected"
        )
    try:
        "".join((prompt.system, *(turn.content for turn in prompt.turns), prompt.user, prompt.prefix)).encode()
    except UnicodeEncodeError as error:
        raise RefusedError(f"the prompt is no valid Unicode: {error}") from error
    vllm = remote.dialect == "vllm"
    escape = remote.escape
    messages: list[dict[str, Any]] = [
        *({"role": turn.role, "content": escape.apply(turn.content)} for turn in prompt.turns),
        {"role": "user", "content": _user(prompt, escape, decoder or shared_decoder())},
    ]
    if prompt.system:
        messages.insert(0, {"role": "system", "content": escape.apply(prompt.system)})
    body: dict[str, Any] = {
        **(UNBIASED if vllm else {}),
        **remote.extra_body,
        "model": model,
        "messages": messages,
        "n": sampling.n,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
    }
    if remote.seeds and sampling.temperature > 0:
        body["seed"] = sampling.seed % 2**31  # what every server's integers hold
    if sampling.logprobs:
        body |= {"logprobs": True, "top_logprobs": sampling.logprobs}
    if prompt.prefix:
        messages.append({"role": "assistant", "content": Escape(own=True).apply(prompt.prefix)})
        body |= {"add_generation_prompt": False, "continue_final_message": True}
    if sampling.stop and vllm:
        body |= {"stop": list(sampling.stop), "include_stop_str_in_output": True}
    if sampling.pattern is not None:
        body["structured_outputs"] = {"regex": sampling.pattern}
    if vllm and sampling.n > 1:
        body["return_token_ids"] = True  # ``usage`` counts the tokens of all replies together
    return body


def replies_of(content: bytes, prompt: Prompt, sampling: Sampling) -> tuple[list[Reply], EngineError | None]:
    """The replies that can be used, and why others cannot.

    Raises:
        EngineError: The answer is no chat completion.
    """
    try:
        found = _Completion.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise EngineError(f"the answer is no chat completion: {where + ': ' if where else ''}{first['msg']}") from error
    choices = sorted(found.choices, key=lambda choice: choice.index)[: sampling.n]
    usage = found.usage or _Usage()
    replies: list[Reply] = []
    failure: EngineError | None = None
    for i, choice in enumerate(choices):
        if choice.finish_reason not in ("stop", "length"):
            failure = _unusable(choice.finish_reason)
            continue
        text, finish, logprobs = _written(choice, prompt.prefix), choice.finish_reason, _logprobs(choice)
        if ends := [at + len(stop) for stop in sampling.stop if (at := text.find(stop)) >= 0]:
            text, finish = text[: min(ends)], "stop"
            logprobs = _up_to(logprobs, len(text))
        if sampling.is_whole(text):
            finish = "stop"
        if sampling.logprobs and text and not logprobs:
            raise RefusedError("the server reports no log-probabilities; set logprobs to false in the recipe's options")
        share = (i + 1) * usage.completion_tokens // len(choices) - i * usage.completion_tokens // len(choices)
        replies.append(
            Reply(
                text=prompt.prefix + text,
                index=i,
                finish_reason=finish,
                prompt_tokens=usage.prompt_tokens,
                completion_tokens=share if choice.token_ids is None else len(choice.token_ids),
                logprobs=logprobs if sampling.logprobs else (),
            )
        )
    if failure is None and len(choices) < sampling.n:
        failure = EngineError(
            f"the server gave {len(choices)} of {sampling.n} replies; set split_votes in the recipe's options"
        )
    return replies, failure


def _user(prompt: Prompt, escape: Escape, decoder: Decoder) -> str | list[dict[str, Any]]:
    """The user's turn: text alone, or content parts with each medium where it stands."""
    pieces = escape.split(prompt.user, [placed.at for placed in prompt.media])
    if not prompt.media:
        return pieces[0]
    parts: list[dict[str, Any]] = []
    for i, piece in enumerate(pieces):
        if i:
            parts.append(_part(prompt.media[i - 1], decoder))
        if piece:
            parts.append({"type": "text", "text": piece})
    return parts


def _part(placed: Placed, decoder: Decoder) -> dict[str, Any]:
    if not isinstance(placed.media, Media):
        raise RefusedError(f"{placed.kind} cannot be sent to a server; take an engine that runs here")
    sent = sendable(placed.media, decoder)
    encoded = base64.b64encode(sent.data).decode()
    if placed.kind == "audio":
        return {"type": "input_audio", "input_audio": {"data": encoded, "format": sent.type.partition("/")[2]}}
    name = f"{placed.kind}_url"
    return {"type": name, name: {"url": f"data:{sent.type};base64,{encoded}"}}


def _written(choice: _Choice, prefix: str) -> str:
    """What the model wrote; a thought that the server has set apart stands in its tags again."""
    content = choice.message.content or ""
    thought = choice.message.reasoning_content or choice.message.reasoning
    if not thought:
        return content
    begun = prefix.rfind("<think>") > prefix.rfind("</think>")
    ended = "</think>" if content or choice.finish_reason == "stop" else ""
    return f"{'' if begun else '<think>'}{thought}{ended}{content}"


def _unusable(finish_reason: str | None) -> EngineError:
    if finish_reason == "content_filter":
        return RefusedError("the server's filter has withheld a reply (finish_reason content_filter)")
    return EngineError(f"a reply ended in a way that is not known here: finish_reason {finish_reason!r}")


def _logprobs(choice: _Choice) -> tuple[TokenLogprob, ...]:
    tokens = (choice.logprobs and choice.logprobs.content) or []
    return tuple(
        TokenLogprob(
            text=one.token,
            logprob=_logprob(one.logprob),
            top=tuple((other.token, _logprob(other.logprob)) for other in one.top_logprobs),
        )
        for one in tokens
    )


def _logprob(value: float) -> float:
    if value <= LOWEST:
        return -inf
    if not isfinite(value):
        raise EngineError(f"the server reports a log-probability of {value}")
    return value


def _up_to(logprobs: tuple[TokenLogprob, ...], length: int) -> tuple[TokenLogprob, ...]:
    """The tokens that begin before ``length`` characters are over."""
    kept: list[TokenLogprob] = []
    for one in logprobs:
        if length <= 0:
            break
        kept.append(one)
        length -= len(one.text)
    return tuple(kept)
