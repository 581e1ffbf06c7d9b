"""What a medium is called: the digest of its content, and of the size it is shown at. Nothing is decoded here."""

from __future__ import annotations

import hashlib
import os
from typing import TypeVar

from flexreward.errors import MediaError
from flexreward.media.bounds import name_of, plain_file
from flexreward.types import Media

Key = TypeVar("Key")

MOST_KEPT = 1 << 16
_of_file: dict[tuple[int, ...], str] = {}
"""By device, number, size, and times of change of a file: it is hashed again only when one of them is another."""
_named: dict[str, str] = {}
"""By path: what its content was when a request with it was last named."""


def digest_of(media: Media) -> str:
    """sha256 of the content in hex, wherever it lies: the same image is the same request on every machine.

    One that is shown at a size of its own (``Media.size``) is another question, and has another name.

    Raises:
        MediaError: The file cannot be read, or changes while it is.
    """
    content = _content(media)
    if media.size is None:
        return content
    return hashlib.sha256(f"{content} {media.size[0]} x {media.size[1]}".encode()).hexdigest()


def check_unchanged(media: Media, data: bytes) -> None:
    """Refuse content that is not what the request was named by.

    Raises:
        MediaError: The file was replaced since then.
    """
    named = _named.get(str(media.path)) if media.path is not None else None
    if named is not None and hashlib.sha256(data).hexdigest() != named:
        raise MediaError(f"{name_of(media)}: changed after its request was named; run again")


def _content(media: Media) -> str:
    if media.data is not None:
        return hashlib.sha256(media.data).hexdigest()
    with plain_file(media) as file:
        before = os.fstat(file.fileno())
        key = (before.st_dev, before.st_ino, before.st_size, before.st_mtime_ns, before.st_ctime_ns)
        found = _of_file.get(key)
        if found is None:
            found = hashlib.file_digest(file, "sha256").hexdigest()
            after = os.fstat(file.fileno())
            if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
                raise MediaError(f"{name_of(media)}: changes while it is read; run again when it is whole")
            _keep(_of_file, key, found)
    _keep(_named, str(media.path), found)
    return found


def _keep(kept: dict[Key, str], key: Key, value: str) -> None:
    if len(kept) >= MOST_KEPT:
        kept.clear()
    kept[key] = value
