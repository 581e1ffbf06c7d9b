"""What names a judge, and what names the replies it buys.

Two digests, because two things change at different times. The *source* of replies is the model and its sampling: with
the rendered prompt it names what was bought. The judge's *fingerprint* adds how replies are read and put together:
template, aggregate, orders. A verdict is named by both, replies by the source alone, so that reading them anew never
calls a model.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from flexreward.engines.base import Sampling

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def canonical(value: Any) -> bytes:
    """JSON with one spelling: sorted keys, no spaces, ASCII (a lone surrogate in user text included)."""
    return _encode(value).encode("ascii")


def digest(value: Any) -> str:
    """sha256 of the canonical JSON, in hex."""
    return hashlib.sha256(canonical(value)).hexdigest()


def sampling_fields(sampling: Sampling) -> dict[str, Any]:
    """All of ``sampling``, numbers spelled the same however they were written (``1`` and ``1.0`` sample alike)."""
    pattern = {} if sampling.pattern is None else {"pattern": sampling.pattern}
    return {
        "temperature": float(sampling.temperature),
        "top_p": float(sampling.top_p),
        "max_tokens": sampling.max_tokens,
        "n": sampling.n,
        "seed": sampling.seed,
        "stop": list(sampling.stop),
        "logprobs": sampling.logprobs,
        **pattern,
    }


def source_digest(engine: dict[str, str], sampling: Sampling) -> str:
    """What replies depend on besides the prompt: the engine's identity (weights, version, escapes) and the sampling."""
    return digest({"engine": engine, "sampling": sampling_fields(sampling)})


def judge_fingerprint(
    source: str,
    template: str,
    *,
    aggregate: str,
    both_orders: bool,
    prefill: bool,
    order_seed: int | None = None,
    stop: float | None = None,
    context: dict[str, str | int] | None = None,
) -> str:
    """Everything that a verdict depends on besides the request.

    Args:
        source: ``source_digest`` of the engine and the sampling, whose ``n`` is the number of votes.
        template: Digest of the template's texts and reading rules.
    """
    parts = {
        "source": source,
        "template": template,
        "aggregate": aggregate,
        "both_orders": both_orders,
        "prefill": prefill,
    }
    more = {"order_seed": order_seed, "stop": stop, "context": context}
    return digest(parts | {name: value for name, value in more.items() if value is not None})
