"""A medium as it is sent to a server that decodes it again: bounded, decoded here once, and in a form that all read.

Images go as PNG of what was decoded (upright, RGB, the first frame), so that a server gets what a local engine is
shown, and no file's own tricks; sounds as WAV of 16 bits, mono at 16 kHz. A film goes as the file that it is, once it
was decoded here within the limits.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, NamedTuple

from flexreward.errors import RefusedError, SampleError
from flexreward.media.bounds import name_of, read_media
from flexreward.media.decoder import Decoder, Film, Sound
from flexreward.types import Media

if TYPE_CHECKING:
    from PIL.Image import Image

NAME = "png, wav-16k-1"
"""What a fingerprint calls these forms."""
MAX_BYTES = 20 << 20
"""Of one medium as it is sent, before it grows by a third as base64."""
JPEG_QUALITY = 95
"""Of an image whose PNG is larger than that."""


class Sent(NamedTuple):
    type: str
    """``image/png`` and its like."""
    data: bytes


def sendable(media: Media, decoder: Decoder) -> Sent:
    """The medium as it is sent.

    Raises:
        RefusedError: It is broken, beyond a limit, or of a form that servers do not take; one line.
    """
    where = name_of(media)
    try:
        decoded = decoder.decode(media)
        if isinstance(decoded, Film):
            sent = Sent(_film_type(data := read_media(media, decoder.limits)), data)
        else:
            sent = _sound(decoded) if isinstance(decoded, Sound) else _image(decoded)
    except SampleError as error:
        raise RefusedError(str(error)) from error
    if not sent.type:
        raise RefusedError(
            f"{where}: frames and films of this kind cannot be sent to a server; give an MP4 or WebM file"
        )
    if len(sent.data) > MAX_BYTES:
        raise RefusedError(f"{where}: has {len(sent.data)} bytes, {MAX_BYTES} can be sent to a server")
    return sent


def _image(image: Image) -> Sent:
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)
    if out.tell() <= MAX_BYTES:
        return Sent("image/png", out.getvalue())
    out = io.BytesIO()
    image.save(out, "JPEG", quality=JPEG_QUALITY)
    return Sent("image/jpeg", out.getvalue())


def _sound(sound: Sound) -> Sent:
    import soundfile

    out = io.BytesIO()
    soundfile.write(out, sound.samples_N, sound.rate, format="WAV", subtype="PCM_16")
    return Sent("audio/wav", out.getvalue())


def _film_type(data: bytes) -> str:
    """By the first bytes, never by the name; empty for what is not sent."""
    if data[4:8] == b"ftyp":
        return "video/mp4"
    return "video/webm" if data.startswith(b"\x1aE\xdf\xa3") else ""
