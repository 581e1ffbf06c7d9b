"""The writer of outcomes: append-only, resumable, one at a time; the rows that are there are not judged again.

Wall time and cache hits differ from run to run. They go to a second file, ``<name>.timings.jsonl``, so that the same
samples and the same judge always end in the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from flexreward.errors import OutputError
from flexreward.files.appended import AppendedFile, cut, open_locked, whole_lines, write
from flexreward.files.outcomes import Item, encode, outcome_row, read_outcomes, request_digest
from flexreward.types import Judgment

REMEDY = "the samples or the options changed; take the old ones, another --out, or --overwrite"


def timings_path(path: Path) -> Path:
    """Where the wall time and the cache hits of an outcome file stand."""
    return path.with_name(path.name + ".timings.jsonl")


class OutcomeFile(AppendedFile):
    """The one writer of an outcome file, as a context manager.

    Args:
        header: What ``header_of`` says of the judge.
        overwrite: Begin anew, whatever judge wrote what stands there.

    Raises:
        OutputError: Another run is writing it, another judge wrote it, it is something else, or it cannot be written.
    """

    def __init__(self, path: Path, header: Mapping[str, Any], *, overwrite: bool = False) -> None:
        super().__init__(path, header, parts=("judge", "template"), kind="outcomes", overwrite=overwrite)

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            self._timings = open_locked(timings_path(self.path))
            cut(self._timings, 0 if self.is_new else whole_lines(self._timings))
        except BaseException:
            super().__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        super().__exit__(kind, error, at)
        os.close(self._timings)

    def remaining(
        self, items: Iterable[Item], on_resume: Callable[[int], None], *, after: int = 0, more: bool = False
    ) -> Iterator[Item]:
        """What is not judged yet. What is, must be what stands at the same place of the input.

        Args:
            on_resume: Called with the number of rows of ``items`` that are there, before the first that is not.
            after: Rows that stand before those of ``items``.
            more: Whether rows may follow those of ``items``.

        Raises:
            OutputError: The input is not the one that this file was begun with.
        """
        held = Held(self.path, on_resume, after=after)
        for item in items:
            if not held.has(item):
                yield item
        held.end(more=more)

    async def remaining_of(self, items: AsyncIterable[Item], on_resume: Callable[[int], None]) -> AsyncIterator[Item]:
        """The same of items that come one by one."""
        held = Held(self.path, on_resume)
        async for item in items:
            if not held.has(item):
                yield item
        held.end()

    def add(self, judgment: Judgment, item: Item) -> dict[str, Any]:
        """Write one line, and its timing beside it.

        Raises:
            OutputError: The disk is full or gone. What was written before stands.
        """
        row = outcome_row(judgment, item)
        self.append(row)
        timing = {"id": row["id"], "seconds": round(judgment.seconds, 6), "cached": judgment.cached}
        write(self._timings, encode(timing), timings_path(self.path))
        return row


class Held:
    """The rows of an outcome file, held against the input item by item."""

    def __init__(self, path: Path, on_resume: Callable[[int], None], *, after: int = 0) -> None:
        self._path = path
        self._rows: Iterator[dict[str, Any]] | None = read_outcomes(path, after=after)
        self._on_resume = on_resume
        self._after = after
        self._num = 0

    def has(self, item: Item) -> bool:
        """Whether the next row is there. Raises OutputError where it is another item's."""
        if self._rows is None:
            return False
        if (row := next(self._rows, None)) is None:
            self._told()
            return False
        if (row.get("id"), row.get("request")) != (item.request.id, request_digest(item.request)):
            line = self._after + self._num + 2
            raise OutputError(
                f"{self._path}: line {line}: judged {row.get('id')!r}, where the input now has another "
                f"{item.request.id!r}: {REMEDY}"
            )
        self._num += 1
        return True

    def end(self, *, more: bool = False) -> None:
        """The input has ended. Raises OutputError where the file has more rows, unless it may."""
        if self._rows is None:
            return
        row = next(self._rows, None)
        self._told()
        if row is not None and not more:
            raise OutputError(f"{self._path}: holds more rows than the input: {REMEDY}")

    def _told(self) -> None:
        self._rows = None
        self._on_resume(self._num)
