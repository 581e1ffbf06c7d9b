"""A file of lines that only grows: one writer, resumable, whole lines or none.

Each line goes to the operating system as it is written, so a killed process loses nothing that it wrote; the disk
itself is asked to keep it (fsync) every few seconds and at the end: so much a power cut can cost. A line that was cut
in the middle is removed when the file is opened again.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from flexreward.errors import OutputError
from flexreward.files.outcomes import check_header, encode

SYNC_EVERY_S = 5.0


class AppendedFile:
    """The one writer of a file that begins with a header line, as a context manager.

    Args:
        header: Says whose file it is.
        parts: Fields of the header in which the one that is there must be as this one.
        kind: What the file holds, for messages.
        overwrite: Begin anew, whatever stands there.

    Raises:
        OutputError: Another run is writing it, another header stands there, it is something else, or it cannot be
            written.
    """

    def __init__(
        self, path: Path, header: Mapping[str, Any], *, parts: Sequence[str], kind: str, overwrite: bool = False
    ) -> None:
        self.path = path
        self._header: dict[str, Any] = json.loads(json.dumps(header))  # as it will be read back
        self._parts = parts
        self._kind = kind
        self._overwrite = overwrite
        self._synced = time.monotonic()

    def __enter__(self) -> Self:
        self._fd = open_locked(self.path)
        try:
            self._end = self._resume()
            if self._end == 0:
                self.append(self._header)
        except BaseException:
            os.close(self._fd)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with suppress(OSError):
            os.fsync(self._fd)
        os.close(self._fd)

    @property
    def is_new(self) -> bool:
        """Whether nothing but the header stands there."""
        return self._end == len(encode(self._header))

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one line.

        Raises:
            OutputError: The disk is full or gone. What was written before stands.
        """
        line = encode(row)
        try:
            write(self._fd, line, self.path)
        except OutputError:
            with suppress(OSError):
                cut(self._fd, self._end)
            raise
        self._end += len(line)
        if time.monotonic() - self._synced > SYNC_EVERY_S:
            os.fsync(self._fd)
            self._synced = time.monotonic()

    def _resume(self) -> int:
        """Check whose file it is and cut a half-written line; the bytes that stay."""
        size = os.fstat(self._fd).st_size
        with open(self._fd, "rb", closefd=False) as file:
            first = file.readline()
        begun = first.startswith(b'{"flexreward"') or b'{"flexreward"'.startswith(first)
        if size and not begun:
            raise OutputError(
                f"{self.path}: is something else than {self._kind} and stays untouched; give another --out"
            )
        if self._overwrite or not first.endswith(b"\n"):
            return cut(self._fd, 0)
        found = check_header(self.path, first)
        for part in self._parts:
            if found.get(part) != self._header[part]:
                was, now = _named(found.get(part)), _named(self._header[part])
                raise OutputError(
                    f"{self.path}: was written by another {part} ({was}, now {now}); give another --out, or --overwrite"
                )
        return cut(self._fd, whole_lines(self._fd))


def _named(part: Any) -> str:
    part = part if isinstance(part, dict) else {}
    name = part.get("id") or part.get("model") or "?"
    return f"{name} {str(part.get('fingerprint') or part.get('digest') or '')[:12]}"


def open_locked(path: Path) -> int:
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


def whole_lines(fd: int) -> int:
    """Bytes up to and with the last line break."""
    end = os.fstat(fd).st_size
    while end:
        start = max(0, end - 2**16)
        if (found := os.pread(fd, end - start, start).rfind(b"\n")) >= 0:
            return start + found + 1
        end = start
    return 0


def cut(fd: int, size: int) -> int:
    os.ftruncate(fd, size)
    return os.lseek(fd, size, os.SEEK_SET)


def write(fd: int, line: bytes, path: Path) -> None:
    left = memoryview(line)
    try:
        while left:
            left = left[os.write(fd, left) :]
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written: {error.strerror}; what is there stays: make room and run the same again"
        ) from error
