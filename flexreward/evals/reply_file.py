"""A file of replies: who wrote them does not matter, a line a reply.

    {"id": "17", "reply": "<answer>7</answer><answer>4</answer>", "order": "reversed", "sample": 0}

``order`` says how the completions were shown (``given`` unless told, ``reversed``, or the indices slot by slot),
``sample`` tells several replies to one prompt apart, ``finish_reason`` may be ``length``; other fields are left alone.
A ``reply`` of ``null`` never came.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from flexreward.errors import SampleError
from flexreward.files.columns import shown
from flexreward.files.rows import read_rows
from flexreward.types import Reply

Order: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyLine:
    """One line, checked as far as it can be without the row that it belongs to."""

    where: str
    """``file: line 17``, for messages."""
    order: Order | str
    """``given``, ``reversed``, or an order that is neither."""
    sample: int
    reply: Reply | None


def read_replies(path: Path) -> dict[str, list[ReplyLine]]:
    """The lines of each id, in the order of the file.

    Raises:
        SampleError: The file is not there, or a line is no reply or stands twice.
    """
    if not path.is_file():
        raise SampleError(f"--replies {path}: is not there; expected a JSONL file of id and reply")
    found: dict[str, list[ReplyLine]] = {}
    seen: dict[tuple[str, Order | str, int], str] = {}
    for row in read_rows(str(path)):
        fields = row.fields
        for name in ("id", "reply"):
            if name not in fields:
                raise SampleError(f'{row.where}: no field {name!r}; a reply is {{"id": ..., "reply": ...}}')
        key = fields["id"]
        if isinstance(key, bool) or not isinstance(key, str | int):
            raise SampleError(f"{row.where}: id is {shown(key)}, expected text or a whole number")
        line = ReplyLine(
            where=row.where,
            order=_order(row.where, fields.get("order")),
            sample=_sample(row.where, fields.get("sample")),
            reply=_reply(row.where, fields),
        )
        unique = (str(key), line.order, line.sample)
        if unique in seen:
            raise SampleError(
                f"{row.where}: a reply to {shown(key)} in this order stands in {seen[unique]} already; keep one, or "
                f"number them with sample: 0, 1, ..."
            )
        seen[unique] = row.where.rpartition(": ")[2]
        found.setdefault(str(key), []).append(line)
    return found


def _order(where: str, value: Any) -> Order | str:
    if value is None:
        return "given"
    if value in ("given", "reversed"):
        return str(value)
    if isinstance(value, list) and value and all(type(index) is int for index in value):
        if value == list(range(len(value))):
            return "given"
        return "reversed" if value == list(range(len(value)))[::-1] else tuple(value)
    raise SampleError(f"{where}: order is {shown(value)}, expected 'given', 'reversed' or a list such as [1, 0]")


def _sample(where: str, value: Any) -> int:
    if value is None:
        return 0
    if type(value) is not int or value < 0:
        raise SampleError(f"{where}: sample is {shown(value)}, expected a whole number from 0")
    return value


def _reply(where: str, fields: dict[str, Any]) -> Reply | None:
    text, finish = fields["reply"], fields.get("finish_reason") or "stop"
    if text is not None and not isinstance(text, str):
        raise SampleError(f"{where}: reply is {shown(text)}, expected text, or null where none came")
    if finish not in ("stop", "length"):
        raise SampleError(f"{where}: finish_reason is {shown(finish)}, expected 'stop' or 'length'")
    return None if text is None else Reply(text=text, finish_reason=finish)
