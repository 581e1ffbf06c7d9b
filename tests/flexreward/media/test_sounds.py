import io
import struct

import numpy as np
import pytest
import soundfile
from scipy.signal import resample_poly

from flexreward.errors import MediaError
from flexreward.media.decoder import Decoder, Sound
from flexreward.media.intake import audio_of
from flexreward.media.limits import Limits
from flexreward.types import Media

TIME_N = np.arange(4_000) / 16_000
TONE_N = 0.5 * np.sin(2 * np.pi * 440 * TIME_N)


def file_of(samples: np.ndarray, rate: int = 16_000, format: str = "WAV", **options: object) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format=format, **options)
    return out.getvalue()


def decoded(decoder: Decoder, data: bytes) -> np.ndarray:
    sound = decoder.decode(Media(kind="audio", data=data))
    assert isinstance(sound, Sound)
    assert (sound.rate, sound.samples_N.dtype) == (16_000, np.float32)
    assert np.abs(sound.samples_N).max() <= 1
    return sound.samples_N


def refused(decoder: Decoder, data: bytes) -> str:
    with pytest.raises(MediaError) as error:
        decoder.decode(Media(kind="audio", data=data))
    assert str(error.value).isprintable()
    return str(error.value)


def wav(*, rate: int = 16_000, channels: int = 1, bits: int = 16, size: int = 0, body: bytes = b"") -> bytes:
    """A WAV whose header says whatever it is told to."""
    width = channels * bits // 8
    layout = struct.pack("<HHIIHH", 1, channels, rate, rate * width % 2**32, width % 2**16, bits)
    return (
        b"RIFF"
        + struct.pack("<I", 36 + len(body))
        + b"WAVEfmt \x10\0\0\0"
        + layout
        + b"data"
        + struct.pack("<I", size)
        + body
    )


@pytest.mark.parametrize(
    ("format", "subtype", "near"),
    [
        ("WAV", "PCM_16", 1e-4),
        ("WAV", "FLOAT", 1e-6),
        ("WAV", "PCM_24", 1e-6),
        ("FLAC", "PCM_16", 1e-4),
        ("WAV", "PCM_U8", 1e-2),
    ],
)
def test_a_file_at_sixteen_kilohertz_comes_out_as_it_was_written(decoder, format, subtype, near):
    samples_N = decoded(decoder, file_of(TONE_N, format=format, subtype=subtype))
    assert np.abs(samples_N - TONE_N).max() < near


def test_mp3_and_ogg_sound_alike(decoder):
    for format in ("MP3", "OGG"):
        samples_N = decoded(decoder, file_of(TONE_N, format=format))
        assert abs(len(samples_N) - 4_000) < 3_000
        assert 0.3 < np.abs(samples_N).max() < 0.7


@pytest.mark.parametrize("rate", [8_000, 22_050, 24_000, 44_100, 48_000])
def test_whatever_the_rate_the_scale_is_the_same(decoder, rate):
    """The reference hands on int16 at full scale where it has resampled, and floats where it has not."""
    tone_N = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    samples_N = decoded(decoder, file_of(tone_N, rate, subtype="FLOAT"))
    assert len(samples_N) == 16_000
    inner = slice(500, -500)
    assert np.abs(samples_N[inner] - 0.5 * np.sin(2 * np.pi * 440 * np.arange(16_000)[inner] / 16_000)).max() < 2e-3
    assert np.abs(samples_N).max() == pytest.approx(0.5, abs=0.02)


def test_channels_are_averaged(decoder):
    stereo = np.stack([TONE_N, -0.5 * TONE_N], axis=1)
    assert np.abs(decoded(decoder, file_of(stereo, subtype="FLOAT")) - 0.25 * TONE_N).max() < 1e-6


def test_a_sound_slightly_too_loud_is_clipped_and_integers_as_floats_are_refused(decoder):
    assert np.abs(decoded(decoder, file_of(3 * TONE_N, subtype="FLOAT"))).max() == 1
    assert "divide integers by their full scale" in refused(decoder, file_of(32767 * TONE_N, subtype="FLOAT"))
    assert "no finite numbers" in refused(decoder, file_of(TONE_N * np.nan, subtype="FLOAT"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty; put the audio back"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 60, "is PNG by its first bytes, expected an audio"),
        (b"#EXTM3U\nhttp://127.0.0.1/a.wav\n", "is no audio by its first bytes; expected WAV, FLAC, MP3, Ogg"),
        (b"RIFF\x24\0\0\0WAVE", "is a broken or truncated WAV"),
        (b"fLaC" + b"\0" * 60, "is a broken or truncated FLAC"),
        (b"ID3" + b"\0" * 60, "is a broken or truncated MP3"),
        (b"OggS" + b"\0" * 60, "is a broken or truncated OGG"),
        (wav(), "holds no sound at all"),
        (wav(rate=1, size=4, body=b"\0" * 4), "has a sampling rate of 1, expected 1000 to 768000"),
        (wav(rate=2**31 - 1, size=4, body=b"\0" * 4), "sampling rate"),
        (wav(channels=200, size=400, body=b"\0" * 400), "has 200 channels, the limit audio_channels is 8"),
        (wav(channels=0, size=4, body=b"\0" * 4), "is a broken or truncated WAV"),
    ],
)
def test_what_is_no_sound_is_one_line(decoder, data, message):
    assert message in refused(decoder, data)


def test_a_file_that_ends_too_early_is_defined(decoder):
    whole = file_of(np.random.default_rng(0).uniform(-1, 1, 40_000), format="FLAC")
    assert "truncated" in refused(decoder, whole[: len(whole) // 2])
    half = file_of(TONE_N)[: 44 + 4_000]
    assert "is truncated: 4000 of 8000 bytes of sound are there" in refused(decoder, half)
    # What is written to a pipe has no length yet.
    assert len(decoded(decoder, half[:40] + b"\xff" * 4 + half[44:])) == 2_000


def test_a_long_sound_is_refused_by_its_header_and_by_its_samples():
    decoder = Decoder(Limits(audio_seconds=0.2))
    try:
        assert "lasts 0.2 s, the limit audio_seconds is 0.2" in refused(decoder, file_of(TONE_N))
        assert "the limit audio_seconds" in refused(decoder, file_of(np.tile(TONE_N, 9), format="MP3"))
        assert len(decoded(decoder, file_of(TONE_N[:3_200]))) == 3_200
    finally:
        decoder.close()


def test_real_speech_decodes_as_the_reference_reads_it_but_for_its_slip(decoder, shared_data):
    paths = sorted([*(shared_data / "speech_misc").glob("*.*a*"), *(shared_data / "speech_p835" / "wav").glob("*.wav")])
    if not paths:
        pytest.skip("shared/data/speech_misc and shared/data/speech_p835 are not there")
    rates = set()
    for path in paths:
        found = decoder.decode(audio_of(path)).samples_N
        samples, rate = soundfile.read(path, always_2d=True)
        rates.add(rate)
        mono_N = samples.mean(axis=1)
        want_N = mono_N if rate == 16_000 else resample_poly(mono_N, 16_000, rate)
        assert np.abs(found - np.clip(want_N, -1, 1)).max() < 1e-6, path.name
        assert 0.01 < np.abs(found).max() <= 1, path.name
    assert rates > {16_000}
