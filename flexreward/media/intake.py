"""Whatever a user holds an image, a sound or a film in, as ``Media``. Nothing is decoded; files are only looked at."""

from __future__ import annotations

import base64
import binascii
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flexreward.errors import MediaError
from flexreward.media.fetch import fetch
from flexreward.media.limits import LIMITS, Limits
from flexreward.types import Media, Modality


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What the name of a medium may lead to."""

    folder: Path | None = None
    """Where relative paths begin; ``None`` opens no path at all, as it must be for what comes over HTTP."""
    hosts: frozenset[str] = frozenset()
    """Hosts that may be asked, ``example.org`` or ``example.org:8443``; none unless an operator names them."""


HERE = Reach(folder=Path())
"""Paths as they are, and no host."""


def image_of(value: Any, *, limits: Limits = LIMITS, reach: Reach = HERE, where: str = "the image") -> Media:
    """An image.

    Args:
        value: A path, a file's bytes, a data URI, a URL of an allowed host, ``{"bytes": ..., "path": ...}`` as a column
            of ``datasets`` has it, a PIL image, or an array (see ``flexreward.media.arrays.array_picture``).
        where: What a refusal begins with.

    Raises:
        MediaError: One line: it is nothing of these, too large, or not within reach.
    """
    from flexreward.media.arrays import array_picture, is_array, is_picture, picture_bytes

    if is_array(value):
        value = array_picture(value, where)
    if is_picture(value):
        return _held("image", picture_bytes(value, where, limits), limits, where)
    return _file("image", value, limits, reach, where, "a PIL image or an array")


def audio_of(
    value: Any, *, rate: int | None = None, limits: Limits = LIMITS, reach: Reach = HERE, where: str = "the audio"
) -> Media:
    """A sound.

    Args:
        value: As for ``image_of``; or an array with its ``rate``, or ``{"array": ..., "sampling_rate": ...}``.
        rate: Samples a second of an array.

    Raises:
        MediaError: As ``image_of``; or an array came without a rate.
    """
    from flexreward.media.arrays import is_array, sound_bytes

    if isinstance(value, Mapping) and value.get("array") is not None:
        value, rate = value["array"], value.get("sampling_rate")
        if isinstance(value, list):
            import numpy as np

            try:
                value = np.asarray(value, dtype=np.float64)
            except (TypeError, ValueError, OverflowError) as error:
                raise MediaError(f"{where}: its array holds something else than numbers") from error
    if is_array(value):
        if rate is None:
            raise MediaError(f"{where}: is an array without its sampling rate; give rate, in samples a second")
        if isinstance(rate, bool) or not isinstance(rate, int | float) or rate != rate or abs(rate) > 1e9:
            raise MediaError(f"{where}: has a sampling rate of {str(rate)[:40]!r}, expected samples a second")
        return _held("audio", sound_bytes(value, int(rate), where, limits), limits, where)
    return _file("audio", value, limits, reach, where, "an array with its rate")


def video_of(
    value: Any, *, fps: float = 1.0, limits: Limits = LIMITS, reach: Reach = HERE, where: str = "the video"
) -> Media:
    """A film.

    Args:
        value: As for ``image_of``; or its frames: PIL images, arrays, or one array (T, H, W, 3). Frames are all shown.
        fps: Frames a second of frames.

    Raises:
        MediaError: As ``image_of``; or the frames do not fit together.
    """
    from flexreward.media.arrays import frames_bytes, is_array

    if is_array(value) and value.ndim != 4:
        raise MediaError(f"{where}: is an array of shape {tuple(value.shape)}, expected (frames, height, width, 3)")
    if is_array(value) or isinstance(value, list | tuple):
        return _held("video", frames_bytes(list(value), fps, where, limits), limits, where)
    return _file("video", value, limits, reach, where, "frames")


TAKES: Mapping[Modality, Callable[..., Media]] = {"image": image_of, "audio": audio_of, "video": video_of}


def media_of(
    kind: Modality, values: Sequence[Any], *, limits: Limits = LIMITS, reach: Reach = HERE, where: str
) -> tuple[Media, ...]:
    """A list of media of one kind; refusals begin with ``where[i]``."""
    if len(values) > limits.media_per_request:
        raise MediaError(f"{where}: holds {len(values)}, the limit media_per_request is {limits.media_per_request}")
    take = TAKES[kind]
    return tuple(take(value, limits=limits, reach=reach, where=f"{where}[{i}]") for i, value in enumerate(values))


def _file(kind: Modality, value: Any, limits: Limits, reach: Reach, where: str, more: str) -> Media:
    if isinstance(value, Mapping):
        value = value["bytes"] if value.get("bytes") is not None else value.get("path")
        if isinstance(value, str) and value.startswith("data:"):
            raise MediaError(f"{where}: has a data URI inside of an object; give it as it is")
    if isinstance(value, bytes | bytearray | memoryview):
        return _held(kind, bytes(value), limits, where)
    if isinstance(value, Path):
        return _path(kind, value, limits, reach, where)
    if not isinstance(value, str) or not value:
        found = "nothing" if value is None or value == "" else type(value).__name__
        raise MediaError(f"{where}: is {found}, expected a path, bytes, a data URI, a URL, {more}")
    if value[:5].lower() == "data:":
        return _held(kind, _uri(kind, value, limits, where), limits, where)
    if "://" in value[:16]:
        return _held(kind, fetch(value, hosts=reach.hosts, max_bytes=limits.bytes_of(kind), where=where), limits, where)
    return _path(kind, Path(value), limits, reach, where)


def _held(kind: Modality, data: bytes, limits: Limits, where: str) -> Media:
    if not data:
        raise MediaError(f"{where}: is empty; put the {kind} back")
    if len(data) > limits.bytes_of(kind):
        raise MediaError(f"{where}: has {len(data)} bytes, the limit {kind}_bytes is {limits.bytes_of(kind)}")
    return Media(kind=kind, data=data)


def _path(kind: Modality, path: Path, limits: Limits, reach: Reach, where: str) -> Media:
    if reach.folder is None:
        raise MediaError(f"{where}: is no data URI, and paths are not opened for requests from outside")
    path = reach.folder / path
    shown = str(path) if str(path).isprintable() else repr(str(path))
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a path"
        raise MediaError(f"{where}: {shown[:200]}: {reason}; paths begin at {reach.folder}") from error
    if not stat.S_ISREG(found.st_mode):
        raise MediaError(f"{where}: {shown}: is no plain file; expected the {kind} itself")
    if found.st_size > limits.bytes_of(kind):
        raise MediaError(
            f"{where}: {shown}: has {found.st_size} bytes, the limit {kind}_bytes is {limits.bytes_of(kind)}"
        )
    return Media(kind=kind, path=path)


def _uri(kind: Modality, uri: str, limits: Limits, where: str) -> bytes:
    """The bytes of ``data:<kind>/...;base64,...``. What the URI calls itself is only held against the kind."""
    head, comma, body = uri.partition(",")
    named = head[5:].lower()
    if not comma or not named.endswith(";base64"):
        raise MediaError(f"{where}: is a data URI without ;base64, ; expected data:{kind}/...;base64,...")
    if not named.startswith((f"{kind}/", "application/octet-stream", ";")):
        raise MediaError(f"{where}: is a data URI of {named.partition(';')[0][:60]!r}, expected data:{kind}/...")
    if len(body) * 3 // 4 > limits.bytes_of(kind) + 2:
        raise MediaError(
            f"{where}: has about {len(body) * 3 // 4} bytes, the limit {kind}_bytes is {limits.bytes_of(kind)}"
        )
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MediaError(f"{where}: is a data URI with broken base64") from error
