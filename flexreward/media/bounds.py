"""How a medium's bytes are read, and never more of them than a limit allows."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import BinaryIO

from flexreward.errors import MediaError
from flexreward.media.limits import Limits
from flexreward.types import Media, Modality


def name_of(media: Media) -> str:
    """The path, fit for a line; or what it is, where it is bytes."""
    if media.path is None:
        return f"the {media.kind}"
    text = str(media.path)
    return text if text.isprintable() and len(text) <= 200 else repr(text)[:200]


def read_media(media: Media, limits: Limits) -> bytes:
    """All of the file, or the bytes.

    Raises:
        MediaError: It is no plain file, cannot be read, or is larger than its kind may be.
    """
    where, most = name_of(media), limits.bytes_of(media.kind)
    if media.data is not None:
        data, size = media.data, len(media.data)
    else:
        assert media.path is not None, "a medium is a path or bytes"
        try:
            # Without O_NONBLOCK a named pipe would hold us here for ever.
            with _plain(os.open(media.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), where, media.kind) as file:
                data = file.read(most + 1)
                size = max(len(data), os.fstat(file.fileno()).st_size)
        except (OSError, ValueError) as error:
            if isinstance(error, MediaError):
                raise
            reason = getattr(error, "strerror", None) or "not a path"
            raise MediaError(f"{where}: cannot be read: {reason}; put the {media.kind} back") from error
    if size > most:
        raise MediaError(f"{where}: has {size} bytes, the limit {media.kind}_bytes is {most}")
    return data


def _plain(handle: int, where: str, kind: Modality) -> BinaryIO:
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return open(handle, "rb")
    os.close(handle)
    raise MediaError(f"{where}: is no plain file; expected the {kind} itself")


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
