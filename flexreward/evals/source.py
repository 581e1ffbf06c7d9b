"""A publisher's files: the folder that ``--data`` names, or a snapshot of the hub at a pinned revision.

    open_folder(benchmark.source, data) -> Folder -> folder.rows("testset-v1.json") -> benchmark's rows

Loaders name files as their publisher does; what is missing is one line that says where it is to be had.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from flexreward.errors import OutputError, SampleError
from flexreward.evals.base import Source
from flexreward.files.rows import Row as FileRow
from flexreward.files.rows import read_rows

MEDIA = {
    *(".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"),
    *(".wav", ".flac", ".mp3", ".ogg", ".m4a"),
    *(".mp4", ".webm", ".mkv", ".mov", ".avi"),
}
"""Files that hold what is judged, not what is said of it: found by name, never hashed."""

SEPARATORS = {".csv": ",", ".txt": ",", ".tsv": "\t"}

MAX_ROW_BYTES = 256 * 2**20
"""Publishers put whole images into a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """The files of one publisher on this disk."""

    path: Path
    source: Source = Source(files=())  # noqa: RUF009  # frozen
    """What the benchmark says of them; its ``remedy`` ends every message about a missing file."""
    revision: str | None = None
    """Commit of the hub's snapshot; ``None`` for a folder of the user's own."""

    def find(self, *names: str) -> list[Path]:
        """The files that match the first of ``names`` that any matches, sorted by path; empty where there is none.

        A name may be a pattern, and is looked for at the top of the folder before anywhere below.
        """
        for name in names:
            for pattern in (name, f"**/{name}"):
                if found := sorted(path for path in self.path.glob(pattern) if path.is_file()):
                    return found
        return []

    def file(self, *names: str) -> Path:
        """The one file that has one of these names, the first name that is there.

        Raises:
            SampleError: None is there, or a pattern fits several.
        """
        found = self.files(*names)
        if len(found) > 1:
            several = ", ".join(str(path.relative_to(self.path)) for path in found[:3])
            raise SampleError(f"{self.path}: expected one {names[0]}, found {len(found)} ({several}); keep one of them")
        return found[0]

    def files(self, *names: str) -> list[Path]:
        """As ``find``, but none is an error.

        Raises:
            SampleError: None is there.
        """
        if not (found := self.find(*names)):
            raise SampleError(f"{self.path}: holds no {' or '.join(names)}; {self.remedy}")
        return found

    def rows(
        self, *names: str, columns: Sequence[str] | None = None, separator: str | None = None
    ) -> Iterator[FileRow]:
        """The rows of all files that match, one after the other: ``number``, ``where`` for messages, ``fields``.

        JSON lines, JSON arrays and Parquet are told apart by their first bytes; ``.csv``, ``.txt`` and ``.tsv`` are
        lists, whose fields are text. Nothing is decoded.

        Args:
            columns: Names for the fields of a list that has no header line; a row may have more fields, not fewer.
            separator: Of a list, instead of the comma or, in ``.tsv``, the tab.

        Raises:
            SampleError: No such file, or a row cannot be read; the rows before it were already yielded.
        """
        for path in self.files(*names):
            if path.suffix in SEPARATORS:
                yield from _list_rows(path, columns, separator or SEPARATORS[path.suffix])
            else:
                yield from read_rows(str(path), max_row_bytes=MAX_ROW_BYTES)

    def media(self, name: str, *, under: Sequence[str] = ("image", "images")) -> Path:
        """The image, sound or video that a row calls ``name``: ``image/201.jpg`` or ``201.jpg``, in either layout.

        Looked for as written, then below each folder of ``under``, then there by its last part.

        Raises:
            SampleError: None of the folders is there, the file is not, or the name leaves the folder.
        """
        tail = Path(name).name
        for found in (self.path / name, *(self.path / f / n for f in under for n in (name, tail)), self.path / tail):
            if found.is_file():
                if not found.absolute().is_relative_to(self.path.absolute()) or ".." in Path(name).parts:
                    raise SampleError(f"{self.path}: {name!r} leaves the folder; only files inside of it are read")
                return found
        if not any((self.path / folder).is_dir() for folder in under):
            folders = " or ".join(f"{folder}/" for folder in under)
            raise SampleError(f"{self.path}: has no folder {folders} with {tail}; {self.remedy}")
        raise SampleError(f"{self.path}: {name} is missing; {self.remedy}")

    @property
    def remedy(self) -> str:
        """How a person gets what is missing."""
        if self.source.remedy:
            return self.source.remedy
        return f"it is part of {self.source.hub} on the hub" if self.source.hub else "copy its publisher's files there"

    def identity(self) -> dict[str, Any]:
        """What the rows come from: ``{"revision", "files": {name: sha256}}`` over the label files, media left out."""
        found = {path for pattern in self.source.files for path in self.find(pattern)}
        labels = sorted(path for path in found if path.suffix.lower() not in MEDIA)
        return {
            "revision": self.revision,
            "files": {path.relative_to(self.path).as_posix(): _sha256(path) for path in labels},
        }


def open_folder(source: Source, data: str | Path | None = None, *, revision: str | None = None) -> Folder:
    """The publisher's files: ``data`` where it is given, else a snapshot of the hub.

    Args:
        revision: Another commit, tag or branch of the hub than the one that the figures belong to.

    Raises:
        SampleError: There is no such folder, or the hub cannot give the files: one line with what to do.
    """
    if data is None:
        return _snapshot(replace(source, revision=revision) if revision else source)
    if revision is not None:
        raise SampleError(f"--data {data}: a folder has no --revision; leave one of them out")
    path = Path(data)
    if not path.is_dir():
        found = "is a file" if path.exists() else "is not there"
        remedy = source.remedy or "name the folder that its publisher's files were copied to"
        raise SampleError(f"--data {path}: {found}, expected a folder; {remedy}")
    return Folder(path=path, source=source)


def refuse_changed(path: Path, was: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Say what changed between the data of a begun run and the data of this one.

    Args:
        path: What the run was begun in, for the message.
        was, now: Two ``Folder.identity()``.

    Raises:
        OutputError: Another revision, or a file came, went or changed.
    """
    remedy = "take the old data, another --out, or --overwrite"
    if was.get("revision") != now.get("revision"):
        if was.get("revision"):
            remedy = f"take --revision {was['revision']}, another --out, or --overwrite"
        old, new = ((one.get("revision") or "")[:12] or "a local folder" for one in (was, now))
        raise OutputError(f"{path}: was begun on revision {old}, the data is now {new}; {remedy}")
    old_files, new_files = was.get("files", {}), now.get("files", {})
    for name in sorted({*old_files, *new_files}):
        if old_files.get(name) != new_files.get(name):
            what = (
                "changed" if name in old_files and name in new_files else "is new" if name in new_files else "is gone"
            )
            raise OutputError(f"{path}: was begun on other data: {name} {what}; {remedy}")


def _snapshot(source: Source) -> Folder:
    if source.hub is None:
        remedy = source.remedy or "see its publisher's page"
        raise SampleError(f"the data is on no hub; name its folder with --data DIR ({remedy})")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    # Which HTTP client the hub uses has changed before, and not all of its failures are OSErrors.
    client = cast("tuple[type[Exception], ...]", HfHubHTTPError.__bases__)
    failures: tuple[type[Exception], ...] = (OSError, ValueError, *client)
    where = f"{source.hub}@{source.revision[:12]}" if source.revision else source.hub
    page = f"https://huggingface.co/datasets/{source.hub}"
    try:
        path = Path(
            snapshot_download(
                source.hub, repo_type="dataset", revision=source.revision, allow_patterns=list(source.files)
            )
        )
    except GatedRepoError as error:
        raise SampleError(
            f"{where}: its licence must be accepted first: click it on {page}, then set HF_TOKEN; or --data DIR"
        ) from error
    except RevisionNotFoundError as error:
        raise SampleError(f"{where}: the hub has no such revision any more; --data DIR takes a copy of it") from error
    except RepositoryNotFoundError as error:
        raise SampleError(f"{where}: not on the hub, or not for you; log in with HF_TOKEN, or --data DIR") from error
    except failures as error:  # offline, no connection, time out, disk full, a bad name
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
        raise SampleError(
            f"{where}: cannot be had from the hub ({reason}); connect and unset HF_HUB_OFFLINE, or --data DIR"
        ) from error
    return Folder(path=path, source=source, revision=path.name)


def _list_rows(path: Path, columns: Sequence[str] | None, separator: str) -> Iterator[FileRow]:
    csv.field_size_limit(max(csv.field_size_limit(), MAX_ROW_BYTES))
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=separator)
            names = list(columns) if columns is not None else next(reader, [])
            number = 0
            for cells in reader:
                if not cells:
                    continue
                number += 1
                where = f"{path}: line {reader.line_num}"
                if len(cells) < len(names):
                    expected = f"{len(names)} fields ({', '.join(names)})"
                    raise SampleError(f"{where}: expected {expected}, found {len(cells)}; copy the file again")
                yield FileRow(number=number, where=where, fields=dict(zip(names, cells, strict=False)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SampleError(f"{path}: cannot be read as a list ({error}); copy it again") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
