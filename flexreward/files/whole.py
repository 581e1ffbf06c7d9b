"""Files that are there whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from flexreward.errors import OutputError


@contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of ``path`` when the block ends well, and is gone when it does not.

    Raises:
        OutputError: It cannot be written; what stood at ``path`` still does.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}; make room and run the same again") from error


def update_summary(path: Path, fields: Mapping[str, Any]) -> None:
    """Set ``fields`` in a JSON file of results, and leave its other fields as they are."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        found = {}
    with replaced(path) as file:
        file.write(json.dumps({**found, **fields}, indent=2, ensure_ascii=False).encode() + b"\n")
