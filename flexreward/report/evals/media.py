"""Pictures, sounds and films of a row: in the page where they are small, else by their path below the folder."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from flexreward.report.text import visible

TYPES = {
    **{".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp", ".gif": "image/gif"},
    **{".wav": "audio/wav", ".mp3": "audio/mpeg", ".flac": "audio/flac", ".ogg": "audio/ogg", ".m4a": "audio/mp4"},
    **{".mp4": "video/mp4", ".webm": "video/webm"},
}
"""What browsers show. Anything else is named and not shown."""
COLUMNS = {"images": "image", "videos": "video", "audios": "audio"}
SMALL_BYTES = 48_000


def media_of(row: Mapping[str, Any], folder: Path, *, inline: bool, prefix: str = "") -> list[dict[str, str]]:
    """``kind``, ``name``, and ``src`` where it can be shown, in the order of the row.

    Args:
        folder: The run folder; files lie in its ``media``, and nothing outside of it is ever named as a source.
        inline: Whether small files go into the page.
        prefix: The way from the page to the run folder, where it is not in it: ``../a/``.
    """
    found = []
    for column, kind in COLUMNS.items():
        for name in row.get(column) or ():
            one = {"kind": kind, "name": visible(str(name))}
            if src := _source(str(name), kind, folder / "media", inline=inline):
                one["src"] = src if src.startswith("data:") else prefix + src
            found.append(one)
    return found


def _source(name: str, kind: str, media: Path, *, inline: bool) -> str | None:
    path, known = PurePosixPath(name), TYPES.get(PurePosixPath(name).suffix.lower(), "")
    if path.is_absolute() or ".." in path.parts or "\\" in name or not known.startswith(kind):
        return None
    file = media / path
    if not file.is_file():
        return None
    if inline and file.stat().st_size <= SMALL_BYTES:
        return f"data:{known};base64,{base64.b64encode(file.read_bytes()).decode()}"
    return "media/" + quote(str(path))
