"""The store's file: made for its owner alone, opened as WAL, checked to be ours, set aside when it is not readable."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

APPLICATION_ID = 0x666C7277
"""Tells our files from other people's databases."""
SCHEMA_VERSION = 1
BUSY_S = 30.0
"""Longest wait for another process's transaction."""
BROKEN = (
    *(sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT),
    *(sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH),
)

SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE kept (
    row INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    created_s INTEGER NOT NULL,
    used_s INTEGER NOT NULL,
    packed INTEGER NOT NULL,
    checksum BLOB NOT NULL,
    value BLOB NOT NULL
);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""


class NotOurs(sqlite3.DatabaseError):
    """A database, but none that this version can read."""

    sqlite_errorcode = sqlite3.SQLITE_NOTADB


def is_broken(error: sqlite3.DatabaseError) -> bool:
    """Whether the file is at fault, and not the disk, its mode or another process."""
    # The low byte is the kind, the rest its details. Our statements never change, so where SQLite finds a mistake in
    # one (no such column, a constraint) it is the schema in the file that is damaged.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in BROKEN


def prepare(path: Path) -> None:
    """Make sure that the file is there and for its owner alone; SQLite gives its log and its index the same mode."""
    if not path.exists():  # closing a file that is in use here would drop the locks that SQLite holds on it
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    for file in family(path):
        if file.exists() and file.stat().st_mode & 0o077:
            file.chmod(0o600)


def connect(path: Path) -> sqlite3.Connection:
    """A connection in autocommit; the file gets its schema if it is new.

    Raises:
        sqlite3.DatabaseError: The file ``is_broken`` or not one of ours, or cannot be opened for writing.
    """
    log = path.with_name(path.name + "-wal")
    if path.stat().st_size == 0 and log.exists() and log.stat().st_size:
        raise NotOurs("the file was cut to nothing beside its log")  # SQLite would throw the log away

    db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    db.text_factory = bytes  # a flipped byte need not be UTF-8
    try:
        (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables:
            (application,) = db.execute("PRAGMA application_id").fetchone()
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if (application, version) != (APPLICATION_ID, SCHEMA_VERSION):
                raise NotOurs(f"not a store of this version (application {application:#x}, schema {version})")
        else:
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        if not tables:
            db.executescript(SCHEMA)
        db.execute("SELECT key, created_s, used_s, packed, checksum FROM kept ORDER BY row DESC LIMIT 1").fetchall()
        db.execute("BEGIN IMMEDIATE")  # fails here and now where nothing can be written
        db.execute("COMMIT")
    except UnicodeDecodeError as error:  # SQLite quotes the damaged schema in its message, and Python cannot read that
        db.close()
        raise NotOurs("the schema is damaged") from error
    except BaseException:
        db.close()
        raise
    return db


def set_aside(path: Path, now: float) -> Path:
    """Rename the file and its log, so that SQLite can still open the pair by its new name. Returns that name."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    aside = path.with_name(f"{path.name}.corrupt-{stamp}")
    number = 0
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.corrupt-{stamp}-{number}")
    for old, new in zip(family(path), family(aside), strict=True):
        with suppress(FileNotFoundError):
            old.rename(new)
    return aside


def family(path: Path) -> tuple[Path, Path, Path]:
    """The database, its log and the log's index."""
    return path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")


def is_moved(path: Path, inode: int) -> bool:
    """Whether another file, or none, stands where ``inode`` stood."""
    try:
        return path.stat().st_ino != inode
    except FileNotFoundError:
        return True


@contextmanager
def directory_lock(directory: Path) -> Iterator[None]:
    """One process at a time makes a store in ``directory`` or sets one aside. TimeoutError after ``BUSY_S``."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        until = time.monotonic() + BUSY_S
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise TimeoutError(f"another process is still opening a store in {directory}") from None
                time.sleep(0.01)
        yield
    finally:
        os.close(handle)
