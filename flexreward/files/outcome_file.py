"""The writer of outcomes: append-only, resumable, one at a time.

Each line goes to the operating system as it is written, so a killed process loses nothing that it wrote; the disk
itself is asked to keep it (fsync) every few seconds and at the end: so much a power cut can cost. A line that was cut
in the middle is removed when the file is opened again, and the rows that are there are not judged again.

Wall time and cache hits differ from run to run. They go to a second file, ``<name>.timings.jsonl``, so that the same
samples and the same judge always end in the same bytes.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from flexreward.errors import OutputError
from flexreward.files.outcomes import Item, check_header, encode, outcome_row, read_outcomes, request_digest
from flexreward.types import Judgment

SYNC_EVERY_S = 5.0


def timings_path(path: Path) -> Path:
    """Where the wall time and the cache hits of an outcome file stand."""
    return path.with_name(path.name + ".timings.jsonl")


class OutcomeFile:
    """The one writer of an outcome file, as a context manager.

    Args:
        header: What ``header_of`` says of the judge.
        overwrite: Begin anew, whatever judge wrote what stands there.

    Raises:
        OutputError: Another run is writing it, another judge wrote it, it is something else, or it cannot be written.
    """

    def __init__(self, path: Path, header: Mapping[str, Any], *, overwrite: bool = False) -> None:
        self.path = path
        self._header: dict[str, Any] = json.loads(json.dumps(header))  # as it will be read back
        self._overwrite = overwrite
        self._synced = time.monotonic()

    def __enter__(self) -> OutcomeFile:
        self._fd = _open_locked(self.path)
        try:
            self._end = self._resume()
            self._timings = _open_locked(timings_path(self.path))
            _cut(self._timings, 0 if self._end == 0 else _whole_lines(self._timings))
            if self._end == 0:
                self._append(self._header)
        except BaseException:
            os.close(self._fd)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with suppress(OSError):
            os.fsync(self._fd)
        os.close(self._fd)
        os.close(self._timings)

    def remaining(self, items: Iterable[Item], on_resume: Callable[[int], None]) -> Iterator[Item]:
        """What is not judged yet. What is, must be what stands at the same place of the input.

        Args:
            on_resume: Called with the number of rows that are there, before the first that is not.

        Raises:
            OutputError: The input is not the one that this file was begun with.
        """
        remedy = "the samples or the options changed; take the old ones, another --out, or --overwrite"
        done, items = read_outcomes(self.path), iter(items)
        num_done = 0
        for item in items:
            row = next(done, None)
            if row is None:
                on_resume(num_done)
                yield item
                yield from items
                return
            if (row.get("id"), row.get("request")) != (item.request.id, request_digest(item.request)):
                raise OutputError(
                    f"{self.path}: line {num_done + 2}: judged {row.get('id')!r}, where the input now has another "
                    f"{item.request.id!r}: {remedy}"
                )
            num_done += 1
        on_resume(num_done)
        if next(done, None) is not None:
            raise OutputError(f"{self.path}: holds more rows than the input: {remedy}")

    def append(self, judgment: Judgment, item: Item) -> dict[str, Any]:
        """Write one line, and its timing beside it.

        Raises:
            OutputError: The disk is full or gone. What was written before stands.
        """
        row = outcome_row(judgment, item)
        self._append(row)
        timing = {"id": row["id"], "seconds": round(judgment.seconds, 6), "cached": judgment.cached}
        _write(self._timings, encode(timing), timings_path(self.path))
        if time.monotonic() - self._synced > SYNC_EVERY_S:
            os.fsync(self._fd)
            self._synced = time.monotonic()
        return row

    def _append(self, row: Mapping[str, Any]) -> None:
        line = encode(row)
        try:
            _write(self._fd, line, self.path)
        except OutputError:
            with suppress(OSError):
                _cut(self._fd, self._end)
            raise
        self._end += len(line)

    def _resume(self) -> int:
        """Check whose file it is and cut a half-written line; the bytes that stay."""
        size = os.fstat(self._fd).st_size
        with open(self._fd, "rb", closefd=False) as file:
            first = file.readline()
        begun = first.startswith(b'{"flexreward"') or b'{"flexreward"'.startswith(first)
        if size and not begun:
            raise OutputError(f"{self.path}: is something else than outcomes and stays untouched; give another --out")
        if self._overwrite or not first.endswith(b"\n"):
            return _cut(self._fd, 0)
        found = check_header(self.path, first)
        for part in ("judge", "template"):
            if found.get(part) != self._header[part]:
                was, now = _named(found.get(part)), _named(self._header[part])
                raise OutputError(
                    f"{self.path}: was written by another {part} ({was}, now {now}); give another --out, or --overwrite"
                )
        return _cut(self._fd, _whole_lines(self._fd))


def _named(part: Any) -> str:
    part = part if isinstance(part, dict) else {}
    name = part.get("id") or part.get("model") or "?"
    return f"{name} {str(part.get('fingerprint') or part.get('digest') or '')[:12]}"


def _open_locked(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}; give another --out") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise OutputError(f"{path}: another run is writing it; let it end, or give another --out") from error
    return fd


def _whole_lines(fd: int) -> int:
    """Bytes up to and with the last line break."""
    end = os.fstat(fd).st_size
    while end:
        start = max(0, end - 2**16)
        if (found := os.pread(fd, end - start, start).rfind(b"\n")) >= 0:
            return start + found + 1
        end = start
    return 0


def _cut(fd: int, size: int) -> int:
    os.ftruncate(fd, size)
    return os.lseek(fd, size, os.SEEK_SET)


def _write(fd: int, line: bytes, path: Path) -> None:
    left = memoryview(line)
    try:
        while left:
            left = left[os.write(fd, left) :]
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written: {error.strerror}; what is there stays: make room and run the same again"
        ) from error
