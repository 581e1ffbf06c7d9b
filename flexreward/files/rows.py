"""Files and data sets as rows: JSONL, a JSON array, Parquet, a saved ``datasets`` folder, a hub id. Rows stream."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, cast

from flexreward.errors import SampleError
from flexreward.files.json_rows import BOM, MAX_ROW_BYTES, Row, array_rows, line_rows

__all__ = ["MAX_ROW_BYTES", "Row", "is_local", "read_rows"]


URL = re.compile(r"[a-z][a-z0-9+.-]*://")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file that fsspec opens, such as ``s3://bucket/rows.jsonl``; some protocols need a package of their own."""

    url: str

    def open(self, mode: Literal["rb"]) -> BinaryIO:
        import fsspec

        try:
            return cast(BinaryIO, fsspec.open(self.url, mode).open())
        except (ImportError, ValueError, OSError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise SampleError(f"{self.url}: cannot be opened ({reason})") from error

    def __str__(self) -> str:
        return self.url


def read_rows(source: str, *, max_row_bytes: int = MAX_ROW_BYTES) -> Iterator[Row]:
    """The rows of ``source``, one at a time.

    Args:
        source: A file (told apart by its first bytes, not by its name), its URL as fsspec knows it, a folder made by
            ``save_to_disk`` (``folder:split`` where it holds several), or a hub id with its split, ``name:split``.
        max_row_bytes: Longest row of a JSON file that is read.

    Raises:
        SampleError: Nothing is there, or a row cannot be read; the rows before it were already yielded.
    """
    path = Path(source)
    if path.is_file():
        rows = _file_rows(path, max_row_bytes)
    elif URL.match(source):
        rows = _file_rows(RemoteFile(source), max_row_bytes)
    elif path.is_dir() or (":" in source and Path(source.rpartition(":")[0]).is_dir()):
        rows = _folder_rows(source)
    else:
        rows = _hub_rows(source)
    empty = True
    for row in rows:
        empty = False
        yield row
    if empty:
        raise SampleError(f"{source}: holds no rows; expected one JSON object a line, a JSON array, or Parquet")


def is_local(source: str) -> bool:
    """Whether a first pass over it, only to count, costs next to nothing."""
    return Path(source).exists() or Path(source.rpartition(":")[0] or source).is_dir()


def folder_of(source: str) -> Path:
    """Where relative paths in its rows begin: beside a file, in a folder, and here for what is elsewhere."""
    path = Path(source)
    if path.is_file():
        return path.parent
    if path.is_dir():
        return path
    split = Path(source.rpartition(":")[0] or ".")
    return split if split.is_dir() else Path()


def _kind(path: Path | RemoteFile) -> str:
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise SampleError(f"{path}: cannot be read: {error.strerror}") from error
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith((b"\x1f\x8b", b"PK\x03\x04", b"(\xb5/\xfd")):
        raise SampleError(f"{path}: is compressed; unpack it first")
    return "array" if head.removeprefix(BOM).lstrip().startswith(b"[") else "lines"


def _file_rows(path: Path | RemoteFile, max_row_bytes: int) -> Iterator[Row]:
    match _kind(path):
        case "parquet":
            return _parquet_rows(path)
        case "array":
            return array_rows(path, max_row_bytes)
        case _:
            return line_rows(path, max_row_bytes)


def _parquet_rows(path: Path | RemoteFile) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as file:
            batches = pq.ParquetFile(file).iter_batches(batch_size=64)
            for number, fields in enumerate((row for batch in batches for row in batch.to_pylist()), 1):
                yield Row(number=number, where=f"{path}: row {number}", fields=fields)
    except (pa.ArrowException, OSError) as error:
        raise SampleError(f"{path}: not a whole Parquet file ({str(error).splitlines()[0]}); copy it again") from error


def _folder_rows(source: str) -> Iterator[Row]:
    import datasets

    folder, split = (source, "") if Path(source).is_dir() else source.rsplit(":", 1)
    try:
        found = datasets.load_from_disk(folder)
    except (OSError, ValueError) as error:
        raise SampleError(
            f"{folder}: is a folder but not one made by save_to_disk; name a .jsonl, .json or .parquet file in it"
        ) from error
    if isinstance(found, datasets.DatasetDict):
        names = ", ".join(found)
        if not split and len(found) > 1:
            raise SampleError(f"{folder}: holds the splits {names}; name one, as in {folder}:{next(iter(found))}")
        if split and split not in found:
            raise SampleError(f"{folder}: has no split {split!r}; it holds {names}")
        found = found[split or next(iter(found))]
    # Arrow rows, so that no image or sound is decoded on the way.
    tables = found.with_format("arrow").iter(batch_size=64)
    for number, fields in enumerate((row for table in tables for row in table.to_pylist()), 1):
        yield Row(number=number, where=f"{source}: row {number}", fields=fields)


def _hub_rows(source: str) -> Iterator[Row]:
    name, _, split = source.rpartition(":")
    if not name or not split or Path(source).suffix in (".json", ".jsonl", ".parquet", ".csv"):
        raise SampleError(
            f"{source}: no such file or folder; a data set of the hub is named with its split, NAME:train"
        )
    import datasets

    try:
        # Undecoded: an image or a sound is not opened in this process, and sounds would want torchcodec.
        found = datasets.load_dataset(name, split=split, streaming=True).decode(False)
        for number, fields in enumerate(found, 1):
            yield Row(number=number, where=f"{source}: row {number}", fields=dict(fields))
    except (OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise SampleError(
            f"{source}: cannot be read from the hub ({reason}); is the name right, and HF_HUB_OFFLINE unset?"
        ) from error
