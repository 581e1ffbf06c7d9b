"""What a medium is called: the digest of its content. Files are read here and not decoded."""

from __future__ import annotations

import hashlib
from functools import lru_cache

from flexreward.errors import SampleError
from flexreward.types import Media


def digest_of(media: Media) -> str:
    """sha256 of the content in hex, wherever it lies: the same image is the same request on every machine.

    A file is read once; again only when its size or its time of change is another.

    Raises:
        SampleError: The file cannot be read.
    """
    if media.data is not None:
        return hashlib.sha256(media.data).hexdigest()
    assert media.path is not None, "a medium is a path or bytes"
    try:
        stat = media.path.stat()
        return _of_file(str(media.path), stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise SampleError(f"{media.path}: cannot be read: {error.strerror}; put the {media.kind} back") from error


@lru_cache(maxsize=1 << 16)
def _of_file(path: str, size: int, changed_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
