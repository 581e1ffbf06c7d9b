"""Images, samples and frames that lie in memory, as files: a medium is always a whole file, and its digest its name.

Nothing is lost: PNG for images, WAV for sounds, TIFF for frames. The bytes of PNG and TIFF depend on the compressor
that Pillow was built with; a path or a file's own bytes have the same name on every machine.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flexreward.errors import MediaError
from flexreward.media.films import FPS_TAG
from flexreward.media.limits import Limits
from flexreward.media.sounds import LOUDEST, RATES

if TYPE_CHECKING:
    from PIL.Image import Image

PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")


def is_picture(value: object) -> bool:
    """Whether it is a PIL image, told without importing Pillow."""
    return any(f"{base.__module__}.{base.__name__}" == "PIL.Image.Image" for base in type(value).__mro__)


def is_array(value: object) -> bool:
    """Whether it is a numpy array, told without importing numpy."""
    return type(value).__module__ == "numpy" and type(value).__name__ == "ndarray"


def picture_bytes(image: Any, where: str, limits: Limits) -> bytes:
    """A PIL image as PNG, upright. What it was opened from is decoded here, by the caller's own choice.

    Raises:
        MediaError: It has no pixels, too many, or cannot be decoded.
    """
    out = io.BytesIO()
    _upright(image, where, limits).save(out, "PNG", compress_level=1)
    return out.getvalue()


def array_picture(array: Any, where: str) -> Image:
    """(H, W) or (H, W, 1 | 3 | 4) as a PIL image: uint8, floats in [0, 1], or 16-bit grey.

    Raises:
        MediaError: Its shape or its values are something else.
    """
    import numpy as np
    import PIL.Image

    shape = tuple(array.shape)
    if array.ndim == 3 and shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and shape[2] in (3, 4))) or 0 in shape:
        swap = "; transpose it, channels come last" if len(shape) == 3 and shape[0] in (1, 3, 4) else ""
        raise MediaError(f"{where}: is an array of shape {shape}, expected (H, W) or (H, W, 1, 3 or 4){swap}")
    if array.dtype.kind == "f":
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise MediaError(f"{where}: holds floats outside of 0 to 1; give bytes (uint8) or divide by 255")
        array = np.rint(array * 255).astype(np.uint8)
    if array.dtype != np.uint8 and not (array.dtype == np.uint16 and array.ndim == 2):
        raise MediaError(f"{where}: is an array of {array.dtype}, expected uint8, floats in 0 to 1, or grey uint16")
    return PIL.Image.fromarray(np.ascontiguousarray(array))


def sound_bytes(array: Any, rate: int, where: str, limits: Limits) -> bytes:
    """(N,) or (N, C) as WAV: int16, or floats in [-1, 1].

    Raises:
        MediaError: Its shape, rate or values are something else, or it is too long.
    """
    import numpy as np

    if array.ndim not in (1, 2) or 0 in array.shape:
        raise MediaError(
            f"{where}: is an array of shape {tuple(array.shape)}, expected (samples,) or (samples, channels)"
        )
    channels = 1 if array.ndim == 1 else array.shape[1]
    if channels > limits.audio_channels:
        raise MediaError(
            f"{where}: has {channels} channels, the limit audio_channels is {limits.audio_channels}; "
            "expected (samples, channels)"
        )
    if not RATES[0] <= rate <= RATES[1]:
        raise MediaError(f"{where}: has a sampling rate of {rate}, expected {RATES[0]} to {RATES[1]}")
    if array.shape[0] > limits.audio_seconds * rate:
        raise MediaError(
            f"{where}: lasts {array.shape[0] / rate:.1f} s, the limit audio_seconds is {limits.audio_seconds:g}"
        )
    if array.dtype.kind == "f":
        peak = float(np.abs(array).max())
        if not peak <= LOUDEST:  # NaN is not
            raise MediaError(
                f"{where}: holds samples up to {peak:g}, expected -1 to 1; divide integers by their full scale"
            )
        form, width, samples = 3, 4, array.astype("<f4")
    elif array.dtype == np.int16:
        form, width, samples = 1, 2, array.astype("<i2")
    else:
        raise MediaError(f"{where}: is an array of {array.dtype}, expected floats in -1 to 1, or int16")
    body: bytes = samples.tobytes()
    layout = struct.pack("<HHIIHH", form, channels, rate, rate * channels * width, channels * width, 8 * width)
    chunks = b"fmt " + struct.pack("<I", len(layout)) + layout
    if form == 3:
        chunks += b"fact" + struct.pack("<II", 4, array.shape[0])
    chunks += b"data" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def frames_bytes(frames: Sequence[Any], fps: float, where: str, limits: Limits) -> bytes:
    """PIL images or arrays of one size as the pages of a TIFF, ``fps`` noted in it.

    Raises:
        MediaError: There are none, too many, of different sizes, or one is no picture.
    """
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    if not 0 < len(frames) <= limits.video_frames:
        raise MediaError(
            f"{where}: has {len(frames)} frames, expected 1 to {limits.video_frames}, the limit video_frames"
        )
    if not 0.01 <= fps <= 1000:
        raise MediaError(f"{where}: has frames at {fps:g} a second, expected 0.01 to 1000")
    pages: list[Image] = []
    for i, frame in enumerate(frames):
        name = f"{where}, frame {i}"
        if not is_picture(frame) and not is_array(frame):
            raise MediaError(f"{name}: is {type(frame).__name__}, expected a PIL image or a numpy array")
        page = _upright(frame if is_picture(frame) else array_picture(frame, name), name, limits).convert("RGB")
        size = f"{pages[0].width} x {pages[0].height}" if pages else ""
        if pages and page.size != pages[0].size:
            raise MediaError(f"{name}: has {page.width} x {page.height} pixels, the first {size}")
        pages.append(page)
    note = ImageFileDirectory_v2()
    note[FPS_TAG] = f"fps={float(fps)!r}"
    out = io.BytesIO()
    pages[0].save(out, "TIFF", save_all=True, append_images=pages[1:], compression="tiff_adobe_deflate", tiffinfo=note)
    return out.getvalue()


def _upright(image: Any, where: str, limits: Limits) -> Image:
    from PIL import ImageOps

    from flexreward.media.images import HOSTILE, check_size

    try:
        check_size(image.width, image.height, limits)
        image = ImageOps.exif_transpose(image)
    except MediaError as error:
        raise MediaError(f"{where}: {error}") from error
    except HOSTILE as error:
        raise MediaError(f"{where}: cannot be decoded; is the file that it was opened from whole?") from error
    found: Image = image if image.mode in PNG_MODES else image.convert("RGB")
    found.info = {key: value for key, value in found.info.items() if key == "transparency"}  # no text, no profile
    return found
