"""How a medium's bytes are read: of plain files only, and never more than a limit allows."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader

from flexreward.errors import MediaError
from flexreward.media.kinds import HEAD_BYTES
from flexreward.media.limits import Limits
from flexreward.types import Media


def name_of(media: Media) -> str:
    """The path, fit for a line; or what it is, where it is bytes."""
    if media.path is None:
        return f"the {media.kind}"
    text = str(media.path)
    return text if text.isprintable() and len(text) <= 200 else repr(text)[:200]


def read_media(media: Media, limits: Limits) -> bytes:
    """All of the file, or the bytes.

    Raises:
        MediaError: It is no plain file, cannot be read, changes meanwhile, or is larger than its kind may be.
    """
    where, most = name_of(media), limits.bytes_of(media.kind)
    if media.data is not None:
        data, size = media.data, len(media.data)
    else:
        with plain_file(media) as file:
            before = os.fstat(file.fileno())
            # A file that would be waited for (some of /proc) gives None.
            data = file.read(most + 1) or b""
            after = os.fstat(file.fileno())
        size = max(len(data), after.st_size)
        if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise MediaError(f"{where}: changes while it is read; run again when it is whole")
    if size > most:
        raise MediaError(f"{where}: has {size} bytes, the limit {media.kind}_bytes is {most}")
    return data


def head_of(media: Media) -> bytes:
    """The first bytes, by which its kind is told.

    Raises:
        MediaError: As ``read_media``.
    """
    if media.data is not None:
        return media.data[:HEAD_BYTES]
    with plain_file(media) as file:
        return file.read(HEAD_BYTES) or b""


@contextmanager
def plain_file(media: Media) -> Iterator[BufferedReader]:
    """The file of a medium that is a path, open: a plain file, so that none is waited for and none is without end.

    Raises:
        MediaError: It is none, or cannot be read.
    """
    assert media.path is not None, "a medium is a path or bytes"
    where, kind = name_of(media), media.kind
    try:
        # Without O_NONBLOCK a named pipe would hold us here for ever.
        handle = os.open(media.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise MediaError(f"{where}: is no plain file; expected the {kind} itself")
        with open(handle, "rb") as file:
            yield file
    except (OSError, ValueError) as error:
        if isinstance(error, MediaError):
            raise
        reason = getattr(error, "strerror", None) or "not a path"
        raise MediaError(f"{where}: cannot be read: {reason}; put the {kind} back") from error


def check_request(media: Sequence[Media], limits: Limits, *, where: str = "the request") -> None:
    """Hold all media of a request together to the limits.

    Raises:
        MediaError: There are too many, or they are too large together.
    """
    if len(media) > limits.media_per_request:
        raise MediaError(f"{where} has {len(media)} media, the limit media_per_request is {limits.media_per_request}")
    try:
        size = sum(len(one.data) if one.data is not None else os.stat(one.path or "").st_size for one in media)
    except (OSError, ValueError):
        return  # said of the one file when it is read
    if size > limits.bytes_per_request:
        raise MediaError(
            f"{where} has {size} bytes of media, the limit bytes_per_request is {limits.bytes_per_request}"
        )
