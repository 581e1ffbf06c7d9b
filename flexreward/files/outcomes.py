"""The outcome file as text: a header line that names the judge, then one line a request, in the order of the input."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from json.encoder import encode_basestring_ascii as _quoted
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import orjson

from flexreward import __version__
from flexreward.errors import OutputError
from flexreward.fingerprint import digest, sampling_fields
from flexreward.reward import rewards
from flexreward.stops import name_of_stop
from flexreward.types import (
    Completion,
    JudgeRequest,
    Judgment,
    Media,
    Message,
    Molecule,
    OrderOutcome,
    Outcome,
    Unscored,
    Verdict,
)

if TYPE_CHECKING:
    from flexreward.judge import Judge
    from flexreward.served import ServedJudge

FIELDS = (
    *("id", "request", "template", "status", "reason", "detail", "scores", "rewards", "preferred", "tie"),
    *("confidence", "orders", "judge", "tokens", "prompt_cut"),
)
"""What a line holds before the columns that are carried through; ``rewards`` only where the judge is calibrated,
``prompt_cut`` only where something was cut."""


class Item(NamedTuple):
    """What is to be judged, and the columns that go along with it."""

    request: JudgeRequest
    extra: Mapping[str, Any]


def header_of(judge: Judge | ServedJudge) -> dict[str, Any]:
    """The first line: everything that names the judge, and the scale that its scores are on."""
    if isinstance(told := getattr(judge, "header", None), dict):
        return told
    judge = cast("Judge", judge)
    template = judge.template
    return {
        "flexreward": __version__,
        "judge": {
            "fingerprint": judge.fingerprint,
            **judge.engine.identity,
            "sampling": sampling_fields(judge.sampling),
            "aggregate": judge.aggregate,
            **({} if judge.stop is None else {"stop": name_of_stop(judge.stop)}),
            "both_orders": judge.both_orders,
            **({} if judge.order_seed is None else {"order_seed": judge.order_seed}),
            "prefill": judge.prefill,
            **judge.policy,
            **({} if judge.calibrator is None else {"calibrator": judge.calibrator.digest}),
        },
        "template": {"id": template.id, "digest": template.digest, "scale": [template.scale.low, template.scale.high]},
    }


def request_digest(request: JudgeRequest) -> str:
    """Tells whether two rows ask the same. The id is no part of it, and media count by what is in them."""
    if not (request.media or request.molecules):
        texts = [text for text in (request.prompt, *request.completions) if isinstance(text, str)]
        if len(texts) == 1 + len(request.completions):
            return texts_digest(texts, reference=request.reference, rubric=request.rubric)
    fields = {
        "prompt": _plain(request.prompt),
        "completions": [_plain(completion) for completion in request.completions],
        "rubric": request.rubric,
        "reference": request.reference,
    }
    more = {"media": [_plain(one) for one in request.media], "molecules": list(request.molecules)}
    return digest(fields | {name: value for name, value in more.items() if value})[:16]


def texts_digest(texts: Sequence[str], *, reference: str | None, rubric: str | None) -> str:
    """The ``request_digest`` of texts alone, prompt first, in half of the time, of which a million rows take much: the
    canonical JSON put together here."""
    prompt, *completions = [_quoted(text) for text in texts]
    more = ["null" if text is None else _quoted(text) for text in (reference, rubric)]
    text = f'{{"completions":[{",".join(completions)}],"prompt":{prompt},"reference":{more[0]},"rubric":{more[1]}}}'
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:16]


def _plain(value: Completion | Molecule) -> Any:
    if isinstance(value, Media | Molecule):
        return {"kind": value.kind, "sha256": value.digest}
    return value if isinstance(value, str) else [{"role": turn.role, "content": _parts(turn)} for turn in value]


def _parts(turn: Message) -> Any:
    if isinstance(turn.content, str):
        return turn.content
    return [_plain(part) for part in turn.content]


def outcome_row(judgment: Judgment, item: Item) -> dict[str, Any]:
    """One line of the file, its keys in a fixed order."""
    outcome = judgment.outcome
    verdict = outcome if isinstance(outcome, Verdict) else None
    return {
        "id": judgment.request_id,
        "request": request_digest(item.request),
        "template": judgment.template,
        "status": "scored" if verdict else "unscored",
        "reason": _reason(outcome),
        "detail": outcome.detail if isinstance(outcome, Unscored) else "",
        "scores": _scores(outcome),
        **({} if judgment.calibrator is None else {"rewards": list(rewards(judgment))}),
        "preferred": verdict.preferred if verdict else None,
        "tie": verdict.tie if verdict else False,
        "confidence": judgment.confidence,
        "orders": [_order_row(order) for order in judgment.orders],
        "judge": judgment.judge,
        "tokens": {"prompt": judgment.prompt_tokens, "completion": judgment.completion_tokens},
        **({"prompt_cut": judgment.prompt_cut} if judgment.prompt_cut else {}),
        **item.extra,
    }


def _order_row(order: OrderOutcome) -> dict[str, Any]:
    return {
        "order": list(order.order),
        "scores": _scores(order.outcome),
        "reason": _reason(order.outcome),
        "votes": [
            {
                "scores": _scores(vote.outcome),
                "reason": _reason(vote.outcome),
                "reply": vote.reply.text,
                "finish_reason": vote.reply.finish_reason,
                **({"thought_cut": True} if vote.reply.thought_cut else {}),
            }
            for vote in order.votes
        ],
    }


def _scores(outcome: Outcome) -> list[float] | None:
    return list(outcome.scores) if isinstance(outcome, Verdict) else None


def _reason(outcome: Outcome) -> str | None:
    return outcome.reason.value if isinstance(outcome, Unscored) else None


def encode(row: Mapping[str, Any]) -> bytes:
    """One line. No NaN, text as it is; half a character in a reply becomes ``?``."""
    return json.dumps(row, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace") + b"\n"


def encode_fast(row: Mapping[str, Any]) -> bytes:
    """One line, written ten times as fast, without blanks between its parts: for files that are written whole."""
    try:
        return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # an integer of more than 64 bits, or half a character
        return encode(row)


def read_header(path: Path) -> dict[str, Any]:
    """The first line of an outcome file."""
    with path.open("rb") as file:
        return check_header(path, file.readline())


def read_outcomes(path: Path, *, after: int = 0) -> Iterator[dict[str, Any]]:
    """The lines of an outcome file after its header, without the first ``after``; a last line that was cut is left out.

    Raises:
        OutputError: It is no such file, or a line of it is broken.
    """
    with path.open("rb") as file:
        check_header(path, file.readline())
        for number, line in enumerate(file, 2):
            if not line.endswith(b"\n"):
                return
            if number < after + 2:
                continue
            try:
                yield orjson.loads(line)
            except ValueError as error:
                raise OutputError(f"{path}: line {number}: broken; was it edited? --overwrite judges anew") from error


def check_header(path: Path, line: bytes) -> dict[str, Any]:
    """The header, if ``line`` is one."""
    with suppress(ValueError):
        header = json.loads(line)
        if isinstance(header, dict) and "flexreward" in header:
            return header
    raise OutputError(f"{path}: is no outcome file: its first line does not name a judge")
