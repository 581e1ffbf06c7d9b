"""An image file as RGB. Runs in the worker.

What becomes of what is not plain 8-bit RGB:

- turned by EXIF: turned upright;
- CMYK, YCbCr, LAB, greyscale, palette: converted by Pillow, colour profiles ignored;
- 16 bit: divided by 257 (Pillow's own conversion of grey clips at 255 instead);
- transparent, in whatever mode: laid on white, as qwen_vl_utils does it;
- animated, or of several pages: the first frame;
- 32-bit integers and floats: refused, their range is nowhere stated.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING

from flexreward.errors import MediaError
from flexreward.media.limits import Limits

if TYPE_CHECKING:
    from PIL.Image import Image

HOSTILE = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, OSError, SyntaxError, TypeError, ValueError),
    *(struct.error, zlib.error),
)
"""What Pillow's plugins make of bytes that no honest program wrote."""


def opened(data: bytes, format: str, limits: Limits) -> Image:
    """The image with its header read and held to the limits, nothing decoded yet.

    Raises:
        MediaError: The header cannot be read, or promises too much.
    """
    import PIL.Image

    PIL.Image.MAX_IMAGE_PIXELS = limits.image_pixels
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the bound is ours, below
        try:
            image = PIL.Image.open(io.BytesIO(data), formats=[format])
        except PIL.Image.DecompressionBombError as error:
            raise MediaError(f"has too many pixels, the limit image_pixels is {limits.image_pixels}") from error
        except HOSTILE as error:
            raise MediaError(f"is no readable {format} ({_line(error)})") from error
    check_size(image.width, image.height, limits)
    return image


def check_size(width: int, height: int, limits: Limits) -> None:
    """Hold what a header promises to the limits.

    Raises:
        MediaError: There is no pixel, or too many.
    """
    if width < 1 or height < 1:
        raise MediaError(f"has {width} x {height} pixels, expected at least one")
    if width * height > limits.image_pixels:
        raise MediaError(f"has {width} x {height} pixels, the limit image_pixels is {limits.image_pixels}")


def decode_image(data: bytes, format: str, limits: Limits, size: tuple[int, int] | None = None) -> Image:
    """The first frame, upright, mode RGB (see the module); brought to ``size`` by Pillow's default, bicubic.

    Raises:
        MediaError: It cannot be decoded whole, or exceeds a limit.
    """
    if size is not None:
        check_size(*size, limits)
    image = as_rgb(opened(data, format, limits))
    return image if size is None else image.resize(size)


def as_rgb(image: Image) -> Image:
    """The frame that ``image`` stands at.

    Raises:
        MediaError: It cannot be decoded whole, or its mode has no range.
    """
    from PIL import ImageOps

    try:
        image.load()
    except HOSTILE as error:
        raise MediaError(f"is a broken or truncated {image.format} ({_line(error)})") from error
    with suppress(*HOSTILE):  # EXIF that cannot be read turns nothing
        image = ImageOps.exif_transpose(image)
    return _rgb(image)


def _rgb(image: Image) -> Image:
    import numpy as np
    import PIL.Image

    if image.mode.startswith("I;16"):
        wide_HW = np.asarray(image).astype(np.float32)
        image = PIL.Image.fromarray(np.rint(wide_HW / 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise MediaError("holds 32-bit values, whose range is not known; save it with 8 or 16 bits")
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        white = PIL.Image.new("RGBA", layered.size, (255, 255, 255, 255))
        return PIL.Image.alpha_composite(white, layered).convert("RGB")
    return image.convert("RGB")


def _line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if text.startswith("cannot identify"):  # goes on with an address in memory
        return "its header cannot be read"
    return "".join(mark if mark.isprintable() else "?" for mark in text)[:120]
