"""A sound file as 16 kHz mono. Runs in the worker.

The reference reads with soundfile, averages the channels and resamples what is not at 16 kHz, as here; then it turns
what was resampled into int16 and leaves the rest as floats, so that clips of 24 and 48 kHz (SOMOS, NISQA) reach its
model 32767 times louder than those of 16 kHz (BVCC, VoxSim). That slip is not repeated: every sound is float32 in
[-1, 1]. Figures on NISQA and SOMOS can differ from the published ones by it.
"""

from __future__ import annotations

import io
import re
import struct
from math import gcd
from typing import TYPE_CHECKING

from flexreward.errors import MediaError
from flexreward.media.limits import Limits

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

RATE = 16_000
RATES = (1_000, 768_000)
"""Lowest and highest sampling rate that is believed."""
ADDRESS = re.compile(r"<[^>]* at 0x[0-9a-f]+>")
"""How an object in memory is called, otherwise in every run."""
LENGTH_UNKNOWN = 0x7FFFF000
"""Bits of the lengths that a writer to a pipe fills in: 0xFFFFFFFF, 0x7FFFFFFF, and those less their own header."""
LOUDEST = 8.0
"""18 dB over full scale. What is above that is no loud sound but integers written as floats."""


def decode_sound(data: bytes, format: str, limits: Limits) -> npt.NDArray[np.float32]:
    """(N,) float32 in [-1, 1] at 16 kHz, N at least 1: the mean of all channels, overshoot clipped.

    Raises:
        MediaError: It cannot be decoded whole, holds no finite sound, or exceeds a limit.
    """
    import soundfile

    if format == "WAV":
        _whole(data)
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            if file.format not in (format, f"{format}EX", f"{format}X"):  # WAVEX is WAV with a longer header
                raise MediaError(f"is {file.format} inside, and {format} by its first bytes")
            return _resampled(_mono(file, limits), file.samplerate)
    except (soundfile.LibsndfileError, RuntimeError, ValueError, TypeError) as error:
        if isinstance(error, MediaError):
            raise
        reason = " ".join(ADDRESS.sub("it", str(error)).split())[:120]
        raise MediaError(f"is a broken or truncated {format} ({reason})") from error


def _whole(data: bytes) -> None:
    """Refuse a WAV that ends before its samples do; libsndfile would take what is there.

    A length of zero, or with no bit of the lower 31 unset, is none: recorders and pipes write it before they know.
    """
    at = 12
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        left = len(data) - at - 8
        if name == b"data":
            if left < size and size & LENGTH_UNKNOWN != LENGTH_UNKNOWN:
                raise MediaError(f"is truncated: {left} of {size} bytes of sound are there")
            return
        at += 8 + size + size % 2


def _mono(file: object, limits: Limits) -> npt.NDArray[np.float64]:
    import numpy as np
    import soundfile

    assert isinstance(file, soundfile.SoundFile), "opened by soundfile"
    rate, channels = file.samplerate, file.channels
    if not RATES[0] <= rate <= RATES[1]:
        raise MediaError(f"has a sampling rate of {rate}, expected {RATES[0]} to {RATES[1]}")
    if channels > limits.audio_channels:
        raise MediaError(f"has {channels} channels, the limit audio_channels is {limits.audio_channels}")
    most = int(limits.audio_seconds * rate)
    promised = file.frames
    if promised > most and file.format != "MP3":  # of an MP3 without a header the count is a guess
        raise MediaError(f"lasts {promised / rate:.1f} s, the limit audio_seconds is {limits.audio_seconds:g}")
    parts: list[npt.NDArray[np.float64]] = []
    found = 0
    while len(part := file.read(1 << 16, dtype="float64", always_2d=True)):
        found += len(part)
        if found > most:
            raise MediaError(f"lasts longer than {limits.audio_seconds:g} s, the limit audio_seconds")
        parts.append(part.mean(axis=1))
    if not found:
        raise MediaError("holds no sound at all")
    if found < promised and file.format != "MP3":
        raise MediaError(f"is truncated: {found} of {promised} samples are there")
    samples_N = np.concatenate(parts)
    peak = float(np.abs(samples_N).max())
    if not np.isfinite(peak):
        raise MediaError("holds samples that are no finite numbers")
    if peak > LOUDEST:
        raise MediaError(f"holds samples up to {peak:g}, expected -1 to 1; divide integers by their full scale")
    return samples_N


def _resampled(samples_N: npt.NDArray[np.float64], rate: int) -> npt.NDArray[np.float32]:
    import numpy as np

    if rate != RATE:
        from scipy.signal import resample_poly

        shared = gcd(rate, RATE)
        samples_N = resample_poly(samples_N, RATE // shared, rate // shared)
    return np.clip(samples_N, -1.0, 1.0).astype(np.float32)
