"""What a file is, by its first bytes. What is not in this table is not decoded, whatever it is called."""

from __future__ import annotations

from typing import NamedTuple

from flexreward.errors import MediaError
from flexreward.types import Modality

HEAD_BYTES = 64


class Kind(NamedTuple):
    """A modality, and the one decoder of it that may read the file."""

    modality: Modality
    format: str
    """As Pillow (images), libsndfile (sounds) or FFmpeg (films) calls it."""


HEADS: tuple[tuple[int, bytes, tuple[Kind, ...]], ...] = (
    (0, b"\xff\xd8\xff", (Kind("image", "JPEG"),)),
    (0, b"\x89PNG\r\n\x1a\n", (Kind("image", "PNG"),)),
    (0, b"GIF87a", (Kind("image", "GIF"),)),
    (0, b"GIF89a", (Kind("image", "GIF"),)),
    (8, b"WEBP", (Kind("image", "WEBP"),)),
    (0, b"BM", (Kind("image", "BMP"),)),
    (0, b"II*\0", (Kind("image", "TIFF"), Kind("video", "TIFF"))),
    (0, b"MM\0*", (Kind("image", "TIFF"), Kind("video", "TIFF"))),
    (8, b"WAVE", (Kind("audio", "WAV"),)),
    (0, b"fLaC", (Kind("audio", "FLAC"),)),
    (0, b"OggS", (Kind("audio", "OGG"),)),
    (0, b"ID3", (Kind("audio", "MP3"),)),
    (8, b"AVI ", (Kind("video", "avi"),)),
    (4, b"ftyp", (Kind("video", "mov"),)),
    (0, b"\x1aE\xdf\xa3", (Kind("video", "matroska"),)),
)
"""Offset, bytes, and what they announce. A TIFF may be frames: ``video_of`` packs them so."""

STILLS = (b"heic", b"heix", b"heim", b"heis", b"mif1", b"avif", b"avis")
"""Brands of MP4-like files that hold an image, as telephones write them."""

KNOWN: dict[Modality, str] = {
    "image": "JPEG, PNG, GIF, WebP, BMP, TIFF",
    "audio": "WAV, FLAC, MP3, Ogg",
    "video": "MP4, MOV, MKV, WebM, AVI",
}


def kind_of(head: bytes, modality: Modality, where: str) -> Kind:
    """What a file that begins with ``head`` is.

    Raises:
        MediaError: It is empty, unknown, or of another modality.
    """
    found = _kinds(head)
    for kind in found:
        if kind.modality == modality:
            return kind
    article = "an" if modality[0] in "aeiou" else "a"
    if not head:
        raise MediaError(f"{where}: is empty; put the {modality} back")
    if modality == "image" and head[4:8] == b"ftyp" and head[8:12] in STILLS:
        raise MediaError(f"{where}: is HEIC or AVIF by its first bytes, which is not decoded; save it as JPEG or PNG")
    if found:
        raise MediaError(f"{where}: is {found[0].format} by its first bytes, expected {article} {modality}")
    markup = ", it looks like markup (SVG and HTML are never rendered)" if head.lstrip()[:1] == b"<" else ""
    raise MediaError(f"{where}: is no {modality} by its first bytes{markup}; expected {KNOWN[modality]}")


def modality_of(head: bytes, where: str) -> Modality:
    """What kind of medium a file that begins with ``head`` is; a TIFF is an image.

    Raises:
        MediaError: It is unknown.
    """
    if found := _kinds(head):
        return found[0].modality
    raise MediaError(f'{where}: is neither image, video nor audio by its first bytes; say which, as {{"image": ...}}')


def _kinds(head: bytes) -> tuple[Kind, ...]:
    for offset, mark, kinds in HEADS:
        if head[offset : offset + len(mark)] == mark and (offset != 8 or head[:4] == b"RIFF"):
            return kinds
    # The sync of an MPEG frame, layer III: eleven bits, a version, and 01.
    if len(head) > 2 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2:
        return (Kind("audio", "MP3"),)
    return ()
