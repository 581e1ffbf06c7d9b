"""A benchmark's rows on their way into an outcome file: what people said goes along as columns."""

from __future__ import annotations

import json
from typing import Any

from flexreward.errors import SampleError
from flexreward.evals.base import Row
from flexreward.files.outcomes import Item
from flexreward.files.rows import Row as FileRow
from flexreward.templates.text import as_text
from flexreward.types import Completion, Media


def item_of(row: Row) -> Item:
    """The request with the columns that ``table_of`` reads back."""
    return Item(
        row.request,
        {
            "human": list(row.human),
            "group": row.group,
            "systems": list(row.systems),
            "words": [num_words(completion) for completion in row.request.completions],
            "columns": dict(row.columns),
        },
    )


def num_words(completion: Completion) -> int | None:
    """Words of what the judge is shown of a text; ``None`` for a completion that has none, such as an image."""
    if isinstance(completion, Media):
        return None
    return len(as_text(completion, role="assistant", sees="final").split()) or None


def field(row: FileRow, *names: str) -> Any:
    """The value of the first of ``names`` that the row has.

    Raises:
        SampleError: It has none of them.
    """
    for name in names:
        if name in row.fields:
            return row.fields[name]
    has = ", ".join(list(row.fields)[:12])
    raise SampleError(f"{row.where}: no field {names[0]!r}, it has {has}; is this the publisher's file?")


def text_field(row: FileRow, *names: str) -> str:
    """As ``field``, for one that must be text; a bare number or truth value is taken as JSON writes it.

    Real data needs it: six completions of the PandaLM test set are a bare ``true``.
    """
    value = field(row, *names)
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if not isinstance(value, str):
        raise SampleError(
            f"{row.where}: {names[0]} is {type(value).__name__}, expected text; is this the publisher's file?"
        )
    return value
