"""Replies on disk: one SQLite file, WAL, for its owner's eyes only, shared by as many processes as want to write.

One table: a key, when the row was written and last used (whole seconds; ``used_s`` is brought up to date once a day, so
that reading stays cheap), whether the value is packed by zlib, a checksum over key, packing and value, and the value:
the JSON of a ``Purchase``, that is the prompt, the sampling, the engine and the replies. Each row is a transaction of
its own: a process that is killed loses the row in flight and no other, a machine without power perhaps the last few. A
row whose checksum does not hold is reported and counts as absent. A file that is no such store, or is broken in its
structure, is set aside as ``<name>.corrupt-<UTC time>`` with its log, reported, and a fresh one begun. Only ``prune``
removes anything.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from flexreward.errors import OutputError
from flexreward.ledger.storefile import connect, directory_lock, is_broken, is_moved, prepare, set_aside

PACKED_FROM = 512
"""Bytes from which a value is worth compressing."""
DAY_S = 86_400
CHUNK = 500
"""Rows read or removed in one transaction, so that writers never wait long."""

T = TypeVar("T")
log = logging.getLogger(__name__)


class Row(NamedTuple):
    key: str
    created_s: int
    used_s: int
    value: bytes | None
    """``None`` where the checksum does not hold."""


def default_path() -> Path:
    """``flexreward/store.sqlite`` in the user's cache directory."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "flexreward" / "store.sqlite"


class Store:
    """Open it in the process that uses it: a connection does not survive a fork.

    Args:
        path: Made, with its directories, where it is absent; ``default_path()`` when not given.
        notify: Gets one line for each file set aside and each row found damaged.
        now: Unix seconds.

    Raises:
        OutputError: The file cannot be opened for writing.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        notify: Callable[[str], None] = log.warning,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.path = path or default_path()
        self.num_damaged = 0
        """Rows met whose checksum did not hold."""
        self.set_aside: list[Path] = []
        """Files that this object set aside."""
        self._notify = notify
        self._now = now
        self._lock = threading.RLock()
        self._db, self._inode = self._open()

    def get(self, key: str) -> bytes | None:
        """The value kept under ``key``, or ``None``; a damaged row is reported and is ``None`` too."""
        rows = self._select("SELECT created_s, used_s, packed, checksum, value FROM kept WHERE key = ?", key)
        if not rows:
            return None
        row = self._read(key.encode(), *rows[0])
        if row.value is not None and row.used_s < self._now() - DAY_S:
            self._change("UPDATE kept SET used_s = ? WHERE key = ?", int(self._now()), key)
        return row.value

    def put(self, key: str, value: bytes) -> bytes:
        """Keep ``value``, unless the key has one.

        Returns:
            What is kept under the key now: the first to come stands, so that all processes read the same.

        Raises:
            OutputError: It cannot be written (disk full, read-only, locked for too long). What was kept before stays.
        """
        if is_moved(self.path, self._inode):  # set aside by another process, or removed: what is written there is lost
            self._reopen()
        packed = len(value) >= PACKED_FROM
        blob = zlib.compress(value, 1) if packed else value
        now = int(self._now())
        fields = (key, now, now, packed, _checksum(key.encode(), packed, blob), blob)
        columns = "INTO kept (key, created_s, used_s, packed, checksum, value) VALUES (?, ?, ?, ?, ?, ?)"
        if self._change(f"INSERT {columns} ON CONFLICT (key) DO NOTHING", *fields):
            return value
        if (standing := self.get(key)) is not None:
            return standing
        self._change(f"REPLACE {columns}", *fields)  # what stood there is damaged
        return value

    def rows(self) -> Iterator[Row]:
        """All rows in the order they were written, those included that come while reading."""
        columns = "key, created_s, used_s, packed, checksum, value, row"
        last = 0
        while chunk := self._select(f"SELECT {columns} FROM kept WHERE row > ? ORDER BY row LIMIT ?", last, CHUNK):
            last = chunk[-1][-1]
            yield from (self._read(*fields[:-1]) for fields in chunk)

    def prune(self, *, days: float) -> int:
        """Remove what was not used for ``days``, and give the room back. Returns the number of rows removed."""
        before = self._now() - days * DAY_S
        last = self._select("SELECT max(row) FROM kept")[0][0] or 0
        removed = sum(
            self._change("DELETE FROM kept WHERE row >= ? AND row < ? AND used_s < ?", start, start + CHUNK, before)
            for start in range(0, last + 1, CHUNK)
        )
        free = self._select("PRAGMA freelist_count")[0][0]
        for _ in range(0, free, CHUNK):
            # As a script: a single statement is stepped once, and would free one page.
            self._mending(lambda: self._db.executescript(f"PRAGMA incremental_vacuum({CHUNK})"))
        return removed

    def faults(self) -> list[str]:
        """What SQLite finds wrong in the file's structure, a line each; damaged values are for ``rows`` to find."""
        with self._lock:
            try:
                return [line.decode() for (line,) in self._db.execute("PRAGMA integrity_check(20)") if line != b"ok"]
            except sqlite3.DatabaseError as error:
                return [str(error)]

    def close(self) -> None:
        self._db.close()

    def __len__(self) -> int:
        return int(self._select("SELECT count(*) FROM kept")[0][0])

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, key: bytes, created_s: int, used_s: int, packed: int, checksum: bytes, blob: bytes) -> Row:
        # A flipped byte can change a column's type, too: nothing here may trust it.
        name = key.decode("ascii", "replace") if isinstance(key, bytes) else repr(key)
        typed = all(isinstance(number, int) for number in (created_s, used_s, packed))
        typed = typed and isinstance(key, bytes) and isinstance(blob, bytes)
        if typed and checksum == _checksum(key, packed, blob):
            return Row(name, created_s, used_s, zlib.decompress(blob) if packed else blob)
        self.num_damaged += 1
        self._notify(f"{self.path}: row {name[:16]} is damaged and counts as absent")
        return Row(name, created_s, used_s, None)

    def _select(self, sql: str, *fields: object) -> list[tuple[Any, ...]]:
        return self._mending(lambda: self._db.execute(sql, fields).fetchall())

    def _change(self, sql: str, *fields: object) -> int:
        return self._mending(lambda: self._db.execute(sql, fields).rowcount)

    def _mending(self, run: Callable[[], T]) -> T:
        """``run()``; where the file turns out broken, once more in a fresh one."""
        with self._lock:
            try:
                return run()
            except sqlite3.ProgrammingError:
                raise  # closed, or a mistake of ours
            except sqlite3.DatabaseError as error:
                if not is_broken(error):
                    raise _cannot(self.path, error) from error
                self._reopen(broken=str(error))
            try:
                return run()
            except sqlite3.DatabaseError as error:
                raise _cannot(self.path, error) from error

    def _reopen(self, broken: str | None = None) -> None:
        old, inode = self._db, self._inode
        self._db, self._inode = self._open(broken=broken, inode=inode)
        old.close()  # after the renaming: SQLite sees that its file has moved, and leaves the new one's log alone

    def _open(self, *, broken: str | None = None, inode: int = 0) -> tuple[sqlite3.Connection, int]:
        """A connection to a file that is ours and whole; what stands in its way is set aside."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with directory_lock(self.path.parent):
                if broken and not is_moved(self.path, inode):
                    self._put_aside(broken)
                prepare(self.path)
                try:
                    db = connect(self.path)
                except sqlite3.DatabaseError as error:
                    if not is_broken(error):
                        raise
                    self._put_aside(str(error))
                    prepare(self.path)
                    db = connect(self.path)
                return db, self.path.stat().st_ino
        except (OSError, sqlite3.Error) as error:
            raise _cannot(self.path, error) from error

    def _put_aside(self, why: str) -> None:
        aside = set_aside(self.path, self._now())
        self.set_aside.append(aside)
        self._notify(f"{self.path}: {why}; set aside as {aside.name}, a fresh store is begun")


def _checksum(key: bytes, packed: int, blob: bytes) -> bytes:
    return hashlib.sha256(b"%s %d %s" % (key, packed, blob)).digest()


def _cannot(path: Path, error: Exception) -> OutputError:
    return OutputError(
        f"{path}: the store cannot be written ({error}); what it holds is kept. Make room, name another file with "
        "--store, or go on without one with --no-store"
    )
