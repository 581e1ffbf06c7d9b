"""Where a run's folder stands: here, or at an address that fsspec opens, such as ``s3://bucket/run``.

What stands elsewhere is made in a folder here and sent there file by file. A store of objects takes a file whole or not
at all; a protocol that writes in place may leave half of one behind a killed run, so a reader counts what it fetched.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flexreward.errors import OutputError, RecipeError, UserError
from flexreward.files.rows import URL


class Place:
    """A folder here: nothing is fetched and nothing sent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fetch(self, *names: str) -> None:
        """Bring those of these files that are there and not here yet."""

    def fetch_all(self, inside: str) -> list[Path]:
        """Bring every file of a folder in it; where they are now."""
        return []

    def send(self, path: Path) -> None:
        """Put one file there."""

    def send_all(self) -> None:
        """Put every file there that was made or changed here."""

    def remove(self, inside: str) -> None:
        """Remove a folder there."""

    def told(self, line: str) -> str:
        """A line that names a file by where it stands."""
        return line


class Away(Place):
    """What stands at ``address``, with the folder here that its files are made in.

    Every method raises OutputError where the address cannot be reached.
    """

    def __init__(self, address: str, folder: Path) -> None:
        super().__init__(folder)
        self.address = address.rstrip("/")
        self._sent: dict[Path, tuple[int, int]] = {}
        """Size and time of change of each file that is the same there."""
        with self._reached():
            from fsspec.core import url_to_fs

            self._there, self._root = url_to_fs(self.address)

    def fetch(self, *names: str) -> None:
        with self._reached():
            for name in names:
                if not (self.folder / name).exists() and self._there.exists(f"{self._root}/{name}"):
                    self._bring(f"{self._root}/{name}")

    def fetch_all(self, inside: str) -> list[Path]:
        with self._reached():
            return [self._bring(found) for found in self._there.find(f"{self._root}/{inside}")]

    def send(self, path: Path) -> None:
        target = f"{self._root}/{path.relative_to(self.folder).as_posix()}"
        with self._reached():
            try:
                self._there.put_file(str(path), target)
            except FileNotFoundError:
                bucket = self._root.partition("/")[0]
                if bucket and not self._there.exists(bucket):  # nobody asked for one: the name is wrong
                    raise
                self._there.makedirs(target.rpartition("/")[0], exist_ok=True)
                self._there.put_file(str(path), target)
        self._sent[path] = _stamp(path)

    def send_all(self) -> None:
        for path in sorted(self.folder.rglob("*")):
            if path.is_file() and self._sent.get(path) != _stamp(path):
                self.send(path)

    def remove(self, inside: str) -> None:
        with self._reached():
            if self._there.exists(f"{self._root}/{inside}"):
                self._there.rm(f"{self._root}/{inside}", recursive=True)

    def told(self, line: str) -> str:
        return line.replace(str(self.folder), self.address)

    def _bring(self, found: str) -> Path:
        path = self.folder / found[found.index(self._root) + len(self._root) :].lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._there.get_file(found, str(path))
        self._sent[path] = _stamp(path)
        return path

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # every protocol has errors of its own
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise OutputError(
                f"{self.address}: cannot be reached ({reason}); what is there stays: run the same again to go on"
            ) from error


@contextmanager
def away(address: str) -> Iterator[Away]:
    """The files of an address, made in a folder for temporary files that is gone with the block.

    Raises:
        OutputError: The address means nothing to fsspec.
    """
    with TemporaryDirectory(prefix="flexreward-out-") as name:
        folder = Path(name) / address.rstrip("/").rpartition("/")[2]
        folder.mkdir()
        place = Away(address, folder)
        try:
            yield place
        except UserError as error:
            told = place.told(str(error))
            if told == str(error) or isinstance(error.__cause__, OSError):  # a full disk is the one here
                raise
            raise type(error)(told) from error


def is_address(out: str) -> bool:
    """Whether it is one, and no folder here."""
    return bool(URL.match(out))


def here(out: Path) -> Path:
    """``--out`` where only this machine is written to. Raises RecipeError at an address."""
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(out)):  # a Path has one slash less
        raise RecipeError(f"--out {out}: is an address; give a path here, and copy it there")
    return out


def _stamp(path: Path) -> tuple[int, int]:
    found: Any = os.stat(path)
    return found.st_size, found.st_mtime_ns
