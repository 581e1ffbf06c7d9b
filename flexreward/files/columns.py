"""``--map``: the columns of any data set under the names that a sample has."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping, Sequence
from typing import Any

from flexreward.errors import RecipeError, SampleError
from flexreward.files.rows import Row

TEXTS = ("prompt", "rubric", "reference")


def parse_map(specs: Sequence[str]) -> dict[str, str]:
    """``--map`` options as target -> source. A source is a column, columns between commas, a format string, or empty.

    Raises:
        RecipeError: No ``=``, a target twice, or a format string that is more than text and ``{column}``.
    """
    mapping: dict[str, str] = {}
    for spec in specs:
        target, equals, source = spec.partition("=")
        if not equals or not target:
            raise RecipeError(f"--map {spec!r}: expected FIELD=COLUMN, FIELD=COLUMN,COLUMN or FIELD='text {{COLUMN}}'")
        if target in mapping:
            raise RecipeError(f"--map {target}: given twice")
        _columns_of(source, target)
        if "," in source and "{" not in source and target != "completions":
            raise RecipeError(
                f"--map {spec}: only completions takes several columns; join texts as {target}='{{a}} {{b}}'"
            )
        mapping[target] = source
    return mapping


def map_columns(row: Row, mapping: Mapping[str, str]) -> dict[str, Any]:
    """The row's columns under the names that the mapping gives them."""
    if not mapping:
        return dict(row.fields)
    values: dict[str, Any] = {}
    used = set(mapping)
    for target, source in mapping.items():
        columns = [source] if source in row.fields else _columns_of(source, target)
        used.update(columns)
        for column in columns:
            if column not in row.fields:
                raise SampleError(
                    f"{row.where}: no column {column!r} for --map {target}; the row has {names_of(row.fields)}"
                )
        if not columns:
            continue
        if "{" in source and source not in row.fields:
            values[target] = "".join(
                text + (_formatted(row, column) if column is not None else "")
                for text, column, _, _ in string.Formatter().parse(source)
            )
        elif target == "completions" and (len(columns) > 1 or not isinstance(row.fields[columns[0]], list)):
            values[target] = [_spelled(row.fields[column]) for column in columns]
        else:
            value = row.fields[columns[0]]
            values[target] = _spelled(value) if target in TEXTS else value
    return values | {column: value for column, value in row.fields.items() if column not in used}


def _formatted(row: Row, column: str) -> str:
    value = _spelled(row.fields[column])
    if not isinstance(value, str):
        raise SampleError(f"{row.where}: {column!r} is {shown(value)}; a format string takes text and numbers")
    return value


def _spelled(value: Any) -> Any:
    """A number or truth value as JSON writes it: who maps a column to a text has said that it is one.

    Real data needs it: six completions of the PandaLM test set are a bare ``true``.
    """
    return json.dumps(value) if isinstance(value, bool | int | float) else value


def _columns_of(source: str, target: str) -> list[str]:
    """The columns that a source names. Only plain names: no attribute, index, conversion or format."""
    if "{" not in source and "}" not in source:
        return [column for column in source.split(",") if column]
    try:
        parts = list(string.Formatter().parse(source))
    except ValueError as error:
        raise RecipeError(f"--map {target}: {error}; write {{{{ and }}}} for braces") from error
    columns = [column for _, column, _, _ in parts if column is not None]
    for _, column, form, conversion in parts:
        if column is not None and (not column or form or conversion or any(mark in column for mark in ".[]{}")):
            raise RecipeError(f"--map {target}: {{{column}}} is not the plain name of a column")
    if not columns:
        raise RecipeError(f"--map {target}: the format string names no column")
    return columns


def shown(value: Any) -> str:
    """A value from the outside, fit for one line of a message."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def names_of(fields: Mapping[str, Any]) -> str:
    """The columns of a row, for a message."""
    names = [name if name.isidentifier() else shown(name) for name in fields]
    return ", ".join(names[:20]) + (", ..." if len(names) > 20 else "") if names else "no columns"
