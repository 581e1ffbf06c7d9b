"""A film file, or packed frames, as frames. Runs in the worker.

PyAV is the one dependency that brings FFmpeg inside a wheel, reads from memory and opens one named format only: FFmpeg
that guesses the format would follow playlists to other files and hosts. Without it frames can still be given.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from math import floor, isfinite, sqrt
from typing import TYPE_CHECKING, Any

from flexreward.errors import MediaError
from flexreward.media.images import as_rgb, check_size, opened
from flexreward.media.limits import FilmCaps, Limits

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    import numpy.typing as npt
    from PIL.Image import Image

FACTOR = 28
"""Sides of frames are multiples of it: 2 merged patches of 14 pixels."""
FPS_TAG = 270
"""``ImageDescription``: where ``video_of`` notes the frames per second of packed frames."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """Frames that were picked, all of one size."""

    frames: list[npt.NDArray[np.uint8]]
    """Each (H, W, 3)."""
    indices: list[int]
    source_fps: float
    source_frames: int


def picked(total: int, source_fps: float, caps: FilmCaps, limits: Limits) -> list[int]:
    """Which of ``total`` frames are shown: as many as ``caps.fps`` asks for, an even number, evenly spread.

    A film of one frame shows it twice, since the models look at frames in pairs.

    Source: QwenLM/Qwen2.5-VL:qwen-vl-utils/src/qwen_vl_utils/vision_process.py, ``smart_nframes``.
    """
    if total == 1:
        return [0, 0]
    wanted = min(max(total / source_fps * caps.fps, caps.min_frames), limits.video_frames, total)
    count = max(2, floor(wanted / 2) * 2)
    return [round(i * (total - 1) / (count - 1)) for i in range(count)]


def fitted(width: int, height: int, caps: FilmCaps) -> tuple[int, int]:
    """Width and height to multiples of 28 with the shape kept about, within ``caps.frame_pixels``."""
    if max(width, height) > 200 * min(width, height):
        raise MediaError(f"has frames of {width} x {height} pixels, more than 200 times as long as wide")
    wide, high = (max(FACTOR, round(side / FACTOR) * FACTOR) for side in (width, height))
    if wide * high > caps.frame_pixels:
        shrink = sqrt(width * height / caps.frame_pixels)
        wide, high = (max(FACTOR, floor(side / shrink / FACTOR) * FACTOR) for side in (width, height))
    return wide, high


def decode_film(data: bytes, format: str, limits: Limits, caps: FilmCaps) -> Strip:
    """The frames that are shown.

    Raises:
        MediaError: It cannot be decoded, exceeds a limit, or is a file and PyAV is not installed.
    """
    if format == "TIFF":
        return _packed(data, limits, caps)
    try:
        import av
    except ImportError as error:
        raise MediaError("is a film, and PyAV is not installed: pip install av, or give its frames") from error
    try:
        total, fps = _counted(data, format, limits)
        strip = _decoded(data, format, total, fps, limits, caps)
        if strip.source_frames != total and strip.source_frames:  # hidden packets, as VP8 has them
            strip = _decoded(data, format, strip.source_frames, fps, limits, caps)
    except (av.FFmpegError, ValueError, IndexError, OverflowError) as error:
        if isinstance(error, MediaError):
            raise
        reason = " ".join(str(error).split())[:120]
        raise MediaError(f"is a broken or truncated film ({reason})") from error
    if not strip.frames:
        raise MediaError("holds no frame that can be decoded")
    return strip


def _stream(data: bytes, format: str, limits: Limits) -> Any:
    import av

    container = av.open(
        io.BytesIO(data), format=format, options={"protocol_whitelist": "none", "err_detect": "explode"}
    )
    if not container.streams.video:
        raise MediaError("holds no film")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise MediaError("is of a codec that is not known here; save it as H.264, VP9 or MPEG-4")
    check_size(stream.codec_context.width, stream.codec_context.height, limits)
    stream.thread_type = "NONE"
    return container, stream


def _counted(data: bytes, format: str, limits: Limits) -> tuple[int, float]:
    """How many frames there are and how fast they go, by reading every packet and believing no header."""
    container, stream = _stream(data, format, limits)
    with container:
        count, first, last = 0, float("inf"), float("-inf")
        for packet in container.demux(stream):
            if not packet.size:
                continue
            count += 1
            time = packet.pts if packet.pts is not None else packet.dts
            if time is not None:
                first = min(first, float(time * packet.time_base))
                last = max(last, float((time + (packet.duration or 0)) * packet.time_base))
        if stream.frames > count:
            raise MediaError(f"is truncated: {count} of {stream.frames} frames are there")
        rate = float(stream.average_rate or 0)
    seconds = last - first if isfinite(last - first) else 0.0
    if seconds > limits.video_seconds:
        raise MediaError(f"lasts {seconds:.1f} s, the limit video_seconds is {limits.video_seconds:g}")
    if not 0.01 <= rate <= 1000:
        rate = count / seconds if seconds > 0 else 0.0
    if not count or not 0.01 <= rate <= 1000:
        raise MediaError(f"has {count} frames at {rate:g} a second, expected at least one, at 0.01 to 1000 a second")
    if count / rate > limits.video_seconds:
        raise MediaError(f"lasts {count / rate:.1f} s, the limit video_seconds is {limits.video_seconds:g}")
    return count, rate


def _decoded(data: bytes, format: str, total: int, fps: float, limits: Limits, caps: FilmCaps) -> Strip:
    wanted = picked(total, fps, caps, limits)
    left = set(wanted)
    container, stream = _stream(data, format, limits)
    kept: dict[int, npt.NDArray[np.uint8]] = {}
    size: tuple[int, int] | None = None
    found = 0
    with container:
        for frame in container.decode(stream):
            check_size(frame.width, frame.height, limits)
            if found in left:
                image = _upright(frame)
                size = size or fitted(image.width, image.height, caps)
                kept[found] = _resized(image, size)
            found += 1
    frames = [kept[index] for index in wanted if index in kept]
    return Strip(frames=frames, indices=wanted, source_fps=fps, source_frames=found)


def _upright(frame: Any) -> Image:
    import PIL.Image

    image = PIL.Image.fromarray(frame.to_ndarray(format="rgb24"))
    return image.rotate(frame.rotation, expand=True) if frame.rotation % 360 else image


def _packed(data: bytes, limits: Limits, caps: FilmCaps) -> Strip:
    """Frames that were given as such: all of them are shown, none is left out."""
    image = opened(data, "TIFF", limits)
    note = str(getattr(image, "tag_v2", {}).get(FPS_TAG, ""))
    fps = float(note.removeprefix("fps=")) if note.startswith("fps=") else caps.fps
    if not 0.01 <= fps <= 1000:
        raise MediaError(f"has frames at {fps:g} a second, expected 0.01 to 1000")
    size: tuple[int, int] | None = None
    frames = []
    for frame in _pages(image, limits):
        size = size or fitted(frame.width, frame.height, caps)
        frames.append(_resized(frame, size))
    frames += frames[-1:] * (len(frames) % 2)  # as the reference: the last again where the number is odd
    count = len(frames)
    return Strip(frames=frames, indices=list(range(count)), source_fps=fps, source_frames=count)


def _pages(image: Image, limits: Limits) -> Iterator[Image]:
    for page in range(limits.video_frames + 1):
        try:
            image.seek(page)
        except EOFError:
            return
        if page == limits.video_frames:
            raise MediaError(f"has more than {page} frames, the limit video_frames")
        check_size(image.width, image.height, limits)
        yield as_rgb(image.copy())


def _resized(image: Image, size: Sequence[int]) -> npt.NDArray[np.uint8]:
    import numpy as np
    from PIL.Image import Resampling

    return np.asarray(image.resize((size[0], size[1]), Resampling.BICUBIC), dtype=np.uint8)
