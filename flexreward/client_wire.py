"""What a client sends to a flexreward server, and what comes back. Only the standard library is needed.

[RewardItem] -> batches -> parcels -> bytes -> the server -> bytes -> [Rewarded]
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

from flexreward.errors import MediaError
from flexreward.media.bounds import name_of, read_media
from flexreward.media.limits import LIMITS
from flexreward.serving.contract import Rewarded, RewardItem
from flexreward.types import Completion, JudgeRequest, Media, Message, Modality, Reason, Text

MOST_ITEMS = 1000
"""Items of one call of a server."""
MOST_BYTES = 16 << 20
"""Bytes of one call; a group that alone has more is sent in parts, an item that alone has more by itself."""
COLUMNS: Mapping[Modality, str] = {"image": "images", "video": "videos", "audio": "audios"}


Row: TypeAlias = Mapping[str, Any]
"""What became of a request, as a line of an outcome file has it."""


class Parcel(NamedTuple):
    """One item, ready to be sent."""

    place: int
    """Where its result belongs in the caller's list."""
    item: RewardItem
    prompt: Any
    completion: Any
    columns: Mapping[str, Any]
    size: int
    """About so many bytes of JSON."""


def parcel_of(place: int, item: RewardItem) -> Parcel:
    """The item with its media as data URIs.

    Raises:
        MediaError: A file of it cannot be read.
    """
    prompt, completion = plain_text(item.prompt), _plain_completion(item.completion)
    columns = _columns(item)
    size = len(json.dumps([prompt, completion, columns], ensure_ascii=False).encode("utf-8", "replace"))
    return Parcel(place, item, prompt, completion, columns, size)


def batches(
    parcels: Sequence[Parcel], *, most_items: int = MOST_ITEMS, most_bytes: int = MOST_BYTES
) -> list[list[Parcel]]:
    """Parcels that may travel in one call each: few enough, small enough, of one run and step.

    A group stays in one call where it fits into one. One that does not is given a name and its size, so that the server
    puts it together again.
    """
    found: list[list[Parcel]] = []
    open_batches: dict[Any, list[Parcel]] = {}
    for group in groups_of(parcels):
        head = group[0].item
        call = (head.run, head.step, head.group_size)
        if not _fits(group, most_items, most_bytes):
            found += _parts(group, most_items, most_bytes)
            continue
        batch = open_batches.get(call)
        if batch is None or not _fits([*batch, *group], most_items, most_bytes):
            batch = open_batches[call] = []
            found.append(batch)
        batch += group
    return found


def groups_of(parcels: Sequence[Parcel]) -> list[list[Parcel]]:
    """As the server puts them together, by the caller's name or by equal prompts, in the order of first members."""
    groups: dict[Any, list[Parcel]] = {}
    for parcel in parcels:
        item = parcel.item
        same = ("named", item.group) if item.group else ("prompt", prompt_name(parcel))
        groups.setdefault((item.run, item.step, item.group_size, same), []).append(parcel)
    return list(groups.values())


def prompt_name(parcel: Parcel) -> str:
    """A name that equal prompts with equal columns share."""
    shown = json.dumps([parcel.prompt, parcel.columns], ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(shown.encode("utf-8", "replace")).hexdigest()[:16]


def _fits(parcels: Sequence[Parcel], most_items: int, most_bytes: int) -> bool:
    return len(parcels) <= most_items and sum(parcel.size for parcel in parcels) <= most_bytes


def _parts(group: Sequence[Parcel], most_items: int, most_bytes: int) -> Iterator[list[Parcel]]:
    part: list[Parcel] = []
    for parcel in group:
        item = parcel.item
        named = replace(item, group=item.group or prompt_name(parcel), group_size=item.group_size or len(group))
        one = parcel._replace(item=named)
        if part and not _fits([*part, one], most_items, most_bytes):
            yield part
            part = []
        part.append(one)
    if part:
        yield part


def body_of(batch: Sequence[Parcel], *, judge: str, deadline_s: float) -> bytes:
    """The JSON of one call; a call of nothing asks whether it may come in."""
    names = sorted({name for parcel in batch for name in parcel.columns})
    groups, ids = [parcel.item.group for parcel in batch], [parcel.item.id for parcel in batch]
    fields: dict[str, Any] = {
        "prompts": [parcel.prompt for parcel in batch],
        "completions": [parcel.completion for parcel in batch],
        "deadline_s": round(deadline_s, 3),
    }
    more: dict[str, Any] = {"judge": judge}
    if batch:
        head = batch[0].item  # they are all of one run and step
        more |= {
            "columns": {name: [parcel.columns.get(name) for parcel in batch] for name in names},
            "group_ids": groups if any(groups) else None,
            "group_size": head.group_size,
            "ids": ids if any(ids) else None,
            "run": head.run,
            "step": head.step,
        }
    fields |= {name: value for name, value in more.items() if value not in (None, "", {})}
    return json.dumps(fields, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")


def read_answer(content: bytes, count: int) -> list[Rewarded]:
    """What became of the ``count`` items of a call.

    Raises:
        ValueError: The answer is none; one line.
    """
    answer = json.loads(content)
    rewards = answer.get("rewards") if isinstance(answer, dict) else None
    if not isinstance(rewards, list) or len(rewards) != count:
        found = f"{len(rewards)} rewards" if isinstance(rewards, list) else "no rewards"
        raise ValueError(f"{found} for {count} completions")

    def column(name: str) -> list[Any]:
        values = answer.get(name)
        return values if isinstance(values, list) and len(values) == count else [None] * count

    names = ("reasons", "details", "scores", "group_means", "reasoning", "flipped", "tokens")
    return [_rewarded(rewards[i], *values) for i, values in enumerate(zip(*map(column, names), strict=True))]


def _rewarded(
    reward: Any, reason: Any, detail: Any, score: Any, group_mean: Any, reasoning: Any, flipped: Any, tokens: Any
) -> Rewarded:
    number = float(reward) if _is_number(reward) else None
    why: Reason | None = None
    said = detail if isinstance(detail, str) else ""
    if number is None or not 0 <= number <= 1:  # NaN is not
        if reward is not None:
            said = f"the server sent the reward {reward!r}, expected 0 to 1 or null"
        number = None
        why = Reason(reason) if reason in tuple(Reason) else Reason.ENGINE
    return Rewarded(
        reward=number,
        score=float(score) if _is_number(score) else None,
        group_mean=float(group_mean) if _is_number(group_mean) and 0 <= group_mean <= 1 else None,
        reason=why,
        detail=said,
        reasoning=reasoning if isinstance(reasoning, str) else "",
        flipped=flipped if isinstance(flipped, bool) else None,
        tokens=tokens if isinstance(tokens, int) else 0,
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class Asked(NamedTuple):
    """One request for a judgment, ready to be sent."""

    place: int
    id: str
    fields: Mapping[str, Any]
    size: int


class Ranking(NamedTuple):
    """Completions by how good they are."""

    order: list[int] | None
    """Indices, the best first; ``None`` is unscored, and ``reason`` says why."""
    scores: list[float | None] | None
    """By index; on the template's scale, or as the method has them. ``None`` is one that could not be read."""
    reason: Reason | None
    detail: str
    counts: Mapping[str, int] | None = None
    """What became of the judgments, where a method was named (``flexreward.pairs.contest.Counts``)."""


def asked_of(place: int, request: JudgeRequest) -> Asked:
    """The request with its media as data URIs. Raises MediaError as ``parcel_of`` does."""
    fields = _request_fields(request) | ({"id": request.id} if request.id else {})
    size = len(json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace"))
    return Asked(place, request.id, fields, size)


def cut(asked: Sequence[Asked]) -> Iterator[list[Asked]]:
    """Requests that may travel in one call each."""
    part: list[Asked] = []
    for one in asked:
        if part and (len(part) == MOST_ITEMS or sum(sent.size for sent in part) + one.size > MOST_BYTES):
            yield part
            part = []
        part.append(one)
    if part:
        yield part


def judge_body(asked: Sequence[Asked], *, judge: str, template: str, deadline_s: float) -> bytes:
    """The JSON of POST /v1/judge."""
    return _encoded({"requests": [one.fields for one in asked]}, judge=judge, template=template, deadline_s=deadline_s)


def read_rows(content: bytes, count: int) -> list[Row]:
    """The rows of the ``count`` requests of a call. Raises ValueError where the answer is none."""
    answer = json.loads(content)
    rows = answer.get("outcomes") if isinstance(answer, dict) else None
    if not isinstance(rows, list) or len(rows) != count or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"no outcomes for {count} requests")
    return rows


def read_header(content: bytes) -> Mapping[str, Any]:
    """The answer of GET /v1/judge. Raises ValueError where it is none."""
    answer = json.loads(content)
    try:
        named = (answer["judge"]["fingerprint"], answer["template"]["digest"])
    except (KeyError, TypeError) as error:
        raise ValueError("no word of who judges") from error
    if not all(isinstance(one, str) for one in named):
        raise ValueError("no word of who judges")
    return dict(answer)


def unscored_row(id: str, reason: Reason, detail: str) -> Row:
    """The row of a request of which no server has told anything."""
    row: dict[str, Any] = {"id": id, "status": "unscored", "reason": reason.value, "detail": detail}
    return row | {"scores": None, "preferred": None, "tie": False, "orders": []}


def rerank_body(
    request: JudgeRequest,
    *,
    judge: str,
    template: str,
    method: str,
    deadline_s: float,
    list_size: int | None = None,
    seed: int = 0,
) -> bytes:
    """The JSON of POST /v1/rerank. Raises MediaError as ``parcel_of`` does."""
    drawn = {"id": request.id} if method and request.id else {}
    more = {"list_size": list_size} | ({"seed": seed} if seed else {}) | drawn
    fields = _request_fields(request) | {name: value for name, value in more.items() if value is not None}
    return _encoded(fields, judge=judge, template=template, method=method, deadline_s=deadline_s)


def read_ranking(content: bytes, count: int) -> Ranking:
    """The answer to ``rerank_body``. Raises ValueError where it is none."""
    answer = json.loads(content)
    if not isinstance(answer, dict):
        raise ValueError("no ranking")
    order, scores = answer.get("order"), answer.get("scores")
    if order is None:
        reason = answer.get("reason")
        known = Reason(reason) if reason in tuple(Reason) else Reason.ENGINE
        return Ranking(None, None, known, str(answer.get("detail") or ""))
    listed = scores if isinstance(scores, list) and len(scores) == count else [""]
    numbers = all(score is None or _is_number(score) for score in listed)
    places = isinstance(order, list) and all(isinstance(place, int) for place in order)
    if not places or not numbers or sorted(order) != list(range(count)):
        raise ValueError(f"no order of {count} completions")
    counts = answer.get("counts")
    return Ranking(order, scores, None, "", counts if isinstance(counts, dict) else None)


class Reloading(NamedTuple):
    """Weights that are being rolled out."""

    judge: str
    weights: str
    recipe: str


class Runs(NamedTuple):
    """What a server runs."""

    recipe: str
    state: str
    detail: str
    weights: Mapping[str, str | None]


def reload_body(model: str, *, judge: str, digest: str | None) -> bytes:
    """The JSON of POST /v1/reload."""
    fields = {"model": model, "judge": judge, "digest": digest}
    return json.dumps({name: value for name, value in fields.items() if value}).encode()


def read_reload(content: bytes) -> Reloading:
    """The answer to ``reload_body``. Raises ValueError where it is none."""
    answer = json.loads(content)
    if not isinstance(answer, dict) or not all(isinstance(answer.get(name), str) for name in Reloading._fields):
        raise ValueError("no answer to a reload")
    return Reloading(answer["judge"], answer["weights"], answer["recipe"])


def read_runs(content: bytes) -> Runs:
    """The answer of GET /v1/reload. Raises ValueError where it is none."""
    answer = json.loads(content)
    if not isinstance(answer, dict) or not isinstance(answer.get("weights"), dict):
        raise ValueError("no word of what runs")
    recipe, state, detail = (str(answer.get(name, "")) for name in ("recipe", "state", "detail"))
    return Runs(recipe, state, detail, answer["weights"])


def _request_fields(request: JudgeRequest) -> dict[str, Any]:
    return {
        "prompt": plain_text(request.prompt),
        "completions": [_plain_completion(completion) for completion in request.completions],
        **_columns(request),
    }


def _columns(shown: RewardItem | JudgeRequest) -> dict[str, Any]:
    """What stands beside the prompt, under the names of the columns."""
    columns: dict[str, Any] = {}
    if shown.rubric is not None:
        columns["rubric"] = shown.rubric
    if shown.reference is not None:
        columns["reference"] = shown.reference
    for medium in shown.media:
        columns.setdefault(COLUMNS[medium.kind], []).append(data_uri(medium))
    if shown.molecules:
        columns["molecules"] = list(shown.molecules)
    return columns


def _encoded(fields: Mapping[str, Any], *, deadline_s: float, **named: str) -> bytes:
    more = {name: value for name, value in named.items() if value}
    body = {**fields, **more, "deadline_s": round(deadline_s, 3)}
    return json.dumps(body, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")


def plain_text(text: Text) -> Any:
    """A text as JSON has it: a string, or messages."""
    return text if isinstance(text, str) else [_plain_message(message) for message in text]


def _plain_completion(completion: Completion) -> Any:
    return _part(completion, typed=False) if isinstance(completion, Media) else plain_text(completion)


def _plain_message(message: Message) -> dict[str, Any]:
    content: Any = message.content
    if not isinstance(content, str):
        content = [{"type": "text", "text": part} if isinstance(part, str) else _part(part) for part in content]
    return {"role": message.role, "content": content}


def _part(medium: Media, *, typed: bool = True) -> dict[str, Any]:
    return ({"type": medium.kind} if typed else {}) | {medium.kind: data_uri(medium)}


def data_uri(medium: Media) -> str:
    """The whole file in a line of text. What kind it is stands beside it; servers look at its first bytes.

    Raises:
        MediaError: It cannot be read, or is to be shown at a size of its own, of which a server cannot be told.
    """
    if medium.size is not None:
        raise MediaError(f"{name_of(medium)}: has a size of its own, which cannot be sent; bring it to its size first")
    body = base64.b64encode(read_media(medium, LIMITS)).decode()
    return f"data:application/octet-stream;base64,{body}"
