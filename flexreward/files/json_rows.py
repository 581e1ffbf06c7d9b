"""JSON files as rows: one object a line, or one array of objects. Neither is ever held whole."""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, NoReturn, Protocol

from flexreward.errors import SampleError

MAX_ROW_BYTES = 16 * 2**20
"""A longer row is refused without being read: it is nearly always a missing line break."""

BOM = codecs.BOM_UTF8


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row as it stands in its file."""

    number: int
    """Counted from 1, blank lines left out."""
    where: str
    """``file: line 17``, what every message about this row starts with."""
    fields: dict[str, Any]


class Openable(Protocol):
    """A path, or whatever else opens a file and is named by its text."""

    def open(self, mode: Literal["rb"], /) -> BinaryIO: ...


def line_rows(path: Openable, max_row_bytes: int) -> Iterator[Row]:
    """One object a line; blank lines are skipped."""
    number = 0
    with path.open("rb") as file:
        for line_number in range(1, 2**63):
            line = file.readline(max_row_bytes + 1)
            if not line:
                return
            where = f"{path}: line {line_number}"
            if len(line) > max_row_bytes:
                _too_long(where, max_row_bytes)
            if line_number == 1:
                line = line.removeprefix(BOM)
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                raise SampleError(f"{where}: not UTF-8 at byte {error.start + 1}; save the file as UTF-8") from error
            if text.strip():
                number += 1
                try:
                    fields = DECODER.decode(text)
                except json.JSONDecodeError as error:
                    remedy = "a row is one JSON object on one line; mend this line and run again"
                    raise SampleError(f"{where}: broken JSON ({error.msg}, column {error.colno}); {remedy}") from error
                except (ValueError, RecursionError) as error:
                    raise SampleError(f"{where}: {_value_error(error)}") from error
                yield Row(number=number, where=where, fields=_object(fields, where))


def array_rows(path: Openable, max_row_bytes: int) -> Iterator[Row]:
    """Elements of one JSON array, a window of the file at a time."""
    with path.open("rb") as file:
        window = _Window(file, str(path))
        window.skip("[")
        for number in range(1, 2**63):
            mark = window.next_mark()
            if mark == "]" and number == 1:
                return
            where = f"{path}: line {window.line}"
            if mark != "{":
                found = f"found {mark!r}" if mark else "the file ends"
                raise SampleError(
                    f"{where}: broken JSON (expected an object, {found}); the file must be [{{...}}, ...]"
                )
            fields = window.element(where, max_row_bytes)
            yield Row(number=number, where=where, fields=fields)
            mark = window.next_mark()
            if mark not in ("]", ","):
                found = f"found {mark!r}" if mark else "the file ends without ']'"
                raise SampleError(
                    f"{path}: line {window.line}: broken JSON (expected ',' or ']', {found}); mend it here"
                )
            window.skip(mark)
            if mark == "]":
                if rest := window.next_mark():
                    raise SampleError(f"{path}: line {window.line}: {rest!r} after the array's end; remove it")
                return


class _Window:
    """The part of a JSON file that is being read, as text; remembers the line it starts on."""

    def __init__(self, file: Any, path: str) -> None:
        self._file = file
        self._path = path
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._text = ""
        self.line = 1

    def _more(self, size: int = 2**16) -> bool:
        chunk = self._file.read(size)
        try:
            self._text += self._decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            line = self.line + self._text.count("\n") + error.object[: error.start].count(b"\n")
            raise SampleError(f"{self._path}: line {line}: not UTF-8; save the file as UTF-8") from error
        return bool(chunk)

    def _drop(self, count: int) -> None:
        self.line += self._text.count("\n", 0, count)
        self._text = self._text[count:]

    def next_mark(self) -> str:
        """The next character that is not blank, which becomes the window's start; empty at the file's end."""
        while True:
            self._drop(len(self._text) - len(self._text.lstrip(" \t\r\n")))
            if self._text or not self._more():
                return self._text[:1]

    def skip(self, mark: str) -> None:
        assert self.next_mark() == mark
        self._drop(1)

    def element(self, where: str, max_row_bytes: int) -> dict[str, Any]:
        """The object that starts the window."""
        while True:
            try:
                fields, end = DECODER.raw_decode(self._text)
            except json.JSONDecodeError as error:
                # A string cut by the window's end is reported where it starts, everything else close to the end.
                cut = error.msg.startswith("Unterminated string") or error.pos > len(self._text) - 16
                if cut and len(self._text) > max_row_bytes:
                    _too_long(where, max_row_bytes)
                if cut and self._more(max(2**16, len(self._text))):
                    continue
                line = self.line + error.lineno - 1
                begins = f", in the row that begins on line {self.line}" if error.lineno > 1 else ""
                raise SampleError(
                    f"{self._path}: line {line}: broken JSON ({error.msg}{begins}); mend it here"
                ) from error
            except (ValueError, RecursionError) as error:
                raise SampleError(f"{where}: {_value_error(error)}") from error
            self._drop(end)
            return _object(fields, where)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(n for n in names if names.count(n) > 1)!r} stands twice; keep one")
    return fields


def _finite(token: str) -> float:
    number = float(token)
    if not math.isfinite(number):
        raise ValueError(f"{token} is no JSON number; write null, or leave the field out")
    return number


DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_float=_finite, parse_constant=_finite)
"""JSON without NaN, Infinity and repeated keys."""


def _value_error(error: ValueError | RecursionError) -> str:
    return "nested too deeply; flatten it" if isinstance(error, RecursionError) else str(error)


def _object(fields: Any, where: str) -> dict[str, Any]:
    if not isinstance(fields, dict):
        raise SampleError(f'{where}: a row must be a JSON object such as {{"prompt": ..., "completions": [...]}}')
    return fields


def _too_long(where: str, max_row_bytes: int) -> NoReturn:
    mib = max_row_bytes / 2**20
    raise SampleError(f"{where}: longer than {mib:g} MiB; is a line break missing? (--max-row-mib N raises the limit)")
