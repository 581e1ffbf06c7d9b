"""What is bought and kept: the replies to one rendered prompt, with all that it takes to buy them again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple

from flexreward.engines.base import Answer, Prompt, Sampling, Turn
from flexreward.fingerprint import canonical, sampling_fields
from flexreward.stops import RULES
from flexreward.types import Reason, Reply, TokenLogprob, Unscored


@dataclass(frozen=True, slots=True, kw_only=True)
class Purchase:
    """The replies to one prompt. Verdicts are read from them anew each time, never stored."""

    engine: dict[str, str]
    """Identity of the engine that wrote them."""
    prompt: Prompt
    sampling: Sampling
    """As the engine got it: the seed is this prompt's own."""
    replies: tuple[Reply, ...]
    """In the order of their ``index``: ``sampling.n`` of them, or fewer where ``failure`` or ``stopped`` says why."""
    failure: Unscored | None = None
    """Why replies are missing. Such a purchase is handed to whoever waits for it, and never stored."""
    stopped: str = ""
    """The rule that ended the vote before all replies had come; empty where it did not. The rest was never written."""
    whole: bool = True
    """Whether ``prompt`` is all that was shown: of media the store keeps only what they are called."""


class Name(NamedTuple):
    """What a prompt's replies are called, and the seed that they are drawn from."""

    key: str
    seed: int


def name_of(prompt: Prompt, *, source: str, namespace: str) -> Name:
    """The key holds the namespace, the seed does not: tenants share no work, yet get the same replies.

    The seed has 53 bits, as many as every JSON reader keeps. It follows from the prompt and the source (which holds the
    judge's own seed) alone, so neither the batch, nor the time, nor a store changes what is drawn.
    """
    shown = (prompt.system, prompt.user, prompt.prefix)
    more = [
        *([_names(prompt)] if prompt.media else []),
        *([{"answer": prompt.answer}] if prompt.answer else []),
        *([{"turns": prompt.turns}] if prompt.turns else []),
    ]
    drawn = hashlib.sha256(canonical((source, *shown, *more)))
    seed = int.from_bytes(drawn.digest()[:8]) >> 11
    if not namespace:
        return Name(drawn.hexdigest(), seed)
    return Name(hashlib.sha256(canonical((namespace, drawn.hexdigest()))).hexdigest(), seed)


def name_of_vote(key: str, *, stop: str, reading: str) -> str:
    """The key of a vote that may end early, beside the ``key`` of the full one.

    A full vote never finds it, for it may hold too few replies; and where it ended turns on how replies are read.

    Args:
        stop: The rule, by name.
        reading: Digest of the template, whose parser the rule went by.
    """
    return hashlib.sha256(canonical(("stop", RULES, stop, reading, key))).hexdigest()


def _names(prompt: Prompt) -> list[list[int | str]]:
    return [[placed.at, placed.media.kind, placed.media.digest] for placed in prompt.media]


def encode(purchase: Purchase) -> bytes:
    record: dict[str, Any] = {
        "engine": purchase.engine,
        "system": purchase.prompt.system,
        "user": purchase.prompt.user,
        "prefix": purchase.prompt.prefix,
        **({"media": _names(purchase.prompt)} if purchase.prompt.media else {}),
        **({"answer": purchase.prompt.answer} if purchase.prompt.answer else {}),
        **({"turns": purchase.prompt.turns} if purchase.prompt.turns else {}),
        "sampling": sampling_fields(purchase.sampling),
        "replies": [_reply_fields(reply) for reply in purchase.replies],
    }
    if purchase.failure:
        record["failure"] = {"reason": purchase.failure.reason.value, "detail": purchase.failure.detail}
    if purchase.stopped:
        record["stopped"] = purchase.stopped
    return canonical(record)


def decode(value: bytes) -> Purchase:
    record = json.loads(value)
    failure = record.get("failure")
    sampling = record["sampling"]
    return Purchase(
        engine=record["engine"],
        prompt=Prompt(
            system=record["system"],
            user=record["user"],
            prefix=record["prefix"],
            answer=Answer(*record["answer"]) if "answer" in record else None,
            turns=tuple(Turn(*turn) for turn in record.get("turns", ())),
        ),
        sampling=Sampling(**(sampling | {"stop": tuple(sampling["stop"])})),
        replies=tuple(_reply(fields) for fields in record["replies"]),
        failure=failure and Unscored(reason=Reason(failure["reason"]), detail=failure["detail"]),
        stopped=record.get("stopped", ""),
        whole="media" not in record,
    )


def _reply_fields(reply: Reply) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "text": reply.text,
        "index": reply.index,
        "finish_reason": reply.finish_reason,
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
    }
    if reply.thought_cut:
        fields["thought_cut"] = True
    if reply.logprobs:
        fields["logprobs"] = [
            [token.text, _finite(token.logprob), [[text, _finite(logprob)] for text, logprob in token.top]]
            for token in reply.logprobs
        ]
    return fields


def _reply(fields: dict[str, Any]) -> Reply:
    logprobs = tuple(
        TokenLogprob(text=text, logprob=_logprob(value), top=tuple((other, _logprob(v)) for other, v in top))
        for text, value, top in fields.pop("logprobs", ())
    )
    return Reply(**fields, logprobs=logprobs)


def _finite(logprob: float) -> float | None:
    """JSON has no minus infinity, which is what a token ruled out has: ``null`` stands for it."""
    return None if logprob == -inf else logprob


def _logprob(value: float | None) -> float:
    return -inf if value is None else value
