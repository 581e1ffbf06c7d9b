"""Rows as the page shows them: texts in ``samples.jsonl``, images, sounds and films as files in the run's ``media``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flexreward.errors import OutputError
from flexreward.evals.base import Row
from flexreward.types import Media, Modality, Text

COLUMNS: Mapping[Modality, str] = {"image": "images", "video": "videos", "audio": "audios"}

HEADS = (
    (b"\xff\xd8\xff", 0, ".jpg"),
    (b"\x89PNG", 0, ".png"),
    (b"GIF8", 0, ".gif"),
    (b"WEBP", 8, ".webp"),
    (b"WAVE", 8, ".wav"),
    (b"ID3", 0, ".mp3"),
    (b"fLaC", 0, ".flac"),
    (b"OggS", 0, ".ogg"),
    (b"ftyp", 4, ".mp4"),
    (b"\x1a\x45\xdf\xa3", 0, ".webm"),
)
"""What a file of a kind has at which place, and how such files are called."""


def shown(row: Row, media: Path) -> dict[str, Any]:
    """A row for ``samples.jsonl``, its media put into the folder ``media`` under names of their content.

    Media of the prompt come first, then those that are completions, which have ``null`` in place of a text.

    Raises:
        SampleError: A medium cannot be read.
        OutputError: The folder cannot be written.
    """
    request = row.request
    several = [*request.media, *(one for one in request.completions if isinstance(one, Media))]
    names: dict[str, list[str]] = {}
    for one in several:
        names.setdefault(COLUMNS[one.kind], []).append(_put(one, media))
    return {
        "id": request.id,
        "prompt": _text(request.prompt),
        "completions": [None if isinstance(one, Media) else _text(one) for one in request.completions],
        **{column: names.get(column) for column in COLUMNS.values()},
        "human": list(row.human),
        "group": row.group,
    }


def _put(one: Media, folder: Path) -> str:
    """Link or copy the medium into ``folder``, once; its name there."""
    name = one.digest[:24] + _suffix(one)
    target = folder / name
    if target.exists():
        return name
    part = folder / f"{name}.{os.getpid()}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if one.data is not None:
            part.write_bytes(one.data)
        else:
            assert one.path is not None, "a medium is a path or bytes"
            _link(one.path.resolve(), part)
        part.replace(target)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise OutputError(f"{target}: cannot be written: {error.strerror}; make room and run the same again") from error
    return name


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without links
        shutil.copyfile(source, target)


def _suffix(one: Media) -> str:
    if one.data is None:
        assert one.path is not None, "a medium is a path or bytes"
        return one.path.suffix.lower()
    return next((suffix for head, at, suffix in HEADS if one.data[at : at + len(head)] == head), "")


def _text(text: Text) -> Any:
    return text if isinstance(text, str) else [asdict(turn) for turn in text]
