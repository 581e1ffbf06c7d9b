import http.server
import io
import sys
import threading

import numpy as np
import PIL.Image
import pytest

from flexreward.errors import MediaError
from flexreward.media.decoder import Decoder, Film
from flexreward.media.films import decode_film, fitted, picked
from flexreward.media.intake import video_of
from flexreward.media.limits import CAPS, LIMITS, FilmCaps, Limits
from flexreward.types import Media

av = pytest.importorskip("av", reason="films need PyAV")


def film(
    num_frames: int = 40,
    *,
    rate: int = 8,
    format: str = "mp4",
    codec: str = "mpeg4",
    size: tuple[int, int] = (320, 180),
) -> bytes:
    """Frame i is grey, 6 * i bright."""
    out = io.BytesIO()
    with av.open(out, "w", format=format) as container:
        stream = container.add_stream(
            codec, rate=rate, options={"deadline": "realtime", "cpu-used": "8"} if codec == "libvpx" else {}
        )
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for i in range(num_frames):
            grey = np.full((size[1], size[0], 3), 6 * i % 256, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode())
    return out.getvalue()


def decoded(decoder: Decoder, data: bytes) -> Film:
    found = decoder.decode(Media(kind="video", data=data))
    assert isinstance(found, Film)
    return found


def refused(decoder: Decoder, data: bytes) -> str:
    with pytest.raises(MediaError) as error:
        decoder.decode(Media(kind="video", data=data))
    assert str(error.value).isprintable()
    return str(error.value)


@pytest.mark.parametrize(
    ("format", "codec"),
    [
        ("mp4", "mpeg4"),
        ("mov", "libx264"),
        pytest.param("webm", "libvpx", marks=pytest.mark.slow),
        ("webm", "libvpx-vp9"),
        ("avi", "mpeg4"),
        ("matroska", "ffv1"),
    ],
)
def test_frames_are_taken_evenly_at_one_a_second(decoder, format, codec):
    found = decoded(decoder, film(format=format, codec=codec))
    assert found.indices == (0, 13, 26, 39)
    assert found.frames_THWC.shape == (4, 168, 280, 3)
    assert (found.source_fps, found.source_frames) == (8.0, 40)
    assert found.fps == pytest.approx(0.8)
    assert np.abs(found.frames_THWC[:, 80, 140, 0].astype(int) - [0, 78, 156, 234]).max() < 8


@pytest.mark.parametrize(
    ("total", "fps", "count"),
    [(40, 8, 4), (80, 8, 10), (88, 8, 10), (2, 8, 2), (3, 8, 2), (5, 8, 4), (300_000, 30, 768)],
)
def test_as_many_frames_are_picked_as_the_reference_picks(total, fps, count):
    indices = picked(total, fps, CAPS, LIMITS)
    assert len(indices) == count
    assert (indices[0], indices[-1]) == (0, total - 1)
    assert indices == sorted(set(indices))


def test_a_film_of_one_frame_shows_it_twice(decoder):
    assert decoded(decoder, film(1)).indices == (0, 0)


@pytest.mark.parametrize(
    ("size", "fits"),
    [
        ((640, 360), (280, 168)),
        ((224, 224), (224, 224)),
        ((1920, 1080), (280, 168)),
        ((100, 60), (112, 56)),
        ((3, 3), (28, 28)),
    ],
)
def test_frames_have_sides_of_28_within_the_cap(size, fits):
    assert fitted(*size, CAPS) == fits
    assert fits[0] * fits[1] <= CAPS.frame_pixels


def test_a_film_that_a_telephone_held_sideways_is_turned_upright(decoder):
    data = film(4, size=(320, 160))
    at = data.index(b"tkhd") + 4 + 40  # its matrix, 16.16 fixed point
    sideways = b"".join(
        value.to_bytes(4, "big", signed=True) for value in (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    )
    assert decoded(decoder, data).frames_THWC.shape[1:3] == (140, 308)
    assert decoded(decoder, data[:at] + sideways + data[at + 36 :]).frames_THWC.shape[1:3] == (308, 140)


def test_frames_are_all_shown_as_they_were_given(decoder):
    frames_THWC = np.random.default_rng(0).integers(0, 256, (6, 56, 84, 3), dtype=np.uint8)
    for given in (frames_THWC, list(frames_THWC), [PIL.Image.fromarray(frame) for frame in frames_THWC]):
        media = video_of(given, fps=2.5)
        assert media == video_of(frames_THWC, fps=2.5)
        found = decoder.decode(media)
        assert np.array_equal(found.frames_THWC, frames_THWC)
        assert (found.fps, found.indices) == (2.5, (0, 1, 2, 3, 4, 5))
    still = np.repeat(frames_THWC[:1], 3, axis=0)
    assert decoder.decode(video_of(still)).frames_THWC.shape == (4, 56, 84, 3)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "has 0 frames, expected 1 to 768, the limit video_frames"),
        (np.zeros((769, 1, 1, 3), np.uint8), "has 769 frames, expected 1 to 768, the limit video_frames"),
        (np.zeros((4, 4, 3), np.uint8), "is an array of shape (4, 4, 3), expected (frames, height, width, 3)"),
        (["a.png"], "frame 0: is str, expected a PIL image or a numpy array"),
        ([np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8)], "frame 1: has 5 x 4 pixels, the first 4 x 4"),
    ],
)
def test_frames_that_are_no_film_are_one_line(frames, message):
    with pytest.raises(MediaError) as error:
        video_of(frames)
    assert message in str(error.value)


def test_what_is_no_film_is_one_line(decoder):
    assert "is no video by its first bytes; expected MP4" in refused(decoder, b"#EXTM3U\n#EXTINF:1\na.ts\n")
    assert "is a broken or truncated film" in refused(decoder, b"\0\0\0\x18ftypmp42" + b"\0" * 60)
    assert "is a broken or truncated film" in refused(decoder, b"\x1aE\xdf\xa3" + b"\0" * 60)
    assert "is GIF by its first bytes" in refused(decoder, b"GIF89a" + b"\0" * 60)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_film_is_refused(decoder, share):
    data = film(40, codec="libx264")
    assert "truncated" in refused(decoder, data[: int(share * len(data))])


def test_a_film_that_ends_before_its_index_says_is_refused(decoder, tmp_path):
    out = tmp_path / "a.mp4"
    with (
        av.open(io.BytesIO(film(40))) as source,
        av.open(str(out), "w", options={"movflags": "faststart"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    data = out.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    assert len(decoded(decoder, data).indices) == 4
    assert "truncated" in refused(decoder, data[: data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 2])


def test_garbage_in_a_film_is_refused_or_decoded_and_never_more(decoder):
    data = film(8, codec="libx264")
    rng = np.random.default_rng(0)
    for _ in range(25):
        hurt = bytearray(data)
        for place in rng.integers(40, len(data), 6):
            hurt[place] = rng.integers(0, 256)
        try:
            assert isinstance(decoder.decode(Media(kind="video", data=bytes(hurt))), Film)
        except MediaError as error:
            assert str(error).startswith("the video: ")  # noqa: PT017


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(video_seconds=2), "lasts 5.0 s, the limit video_seconds is 2"),
        (Limits(image_pixels=10_000), "has 320 x 180 pixels, the limit image_pixels is 10000"),
        (Limits(video_bytes=1_000), "bytes, the limit video_bytes is 1000"),
    ],
)
def test_a_film_beyond_a_limit_is_one_line(limits, message):
    decoder = Decoder(limits)
    try:
        assert message in refused(decoder, film())
    finally:
        decoder.close()


def test_without_pyav_a_film_is_refused_with_a_line_and_frames_are_not(monkeypatch):
    frames_THWC = np.zeros((2, 28, 28, 3), np.uint8)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MediaError, match="is a film, and PyAV is not installed: pip install av, or give its frames"):
        decode_film(b"\0\0\0\x18ftypmp42", "mov", LIMITS, CAPS)
    assert len(decode_film(video_of(frames_THWC).data, "TIFF", LIMITS, CAPS).frames) == 2


def test_a_film_shows_no_more_frames_than_the_limit():
    decoder = Decoder(Limits(video_frames=6), caps=FilmCaps(fps=8.0))
    try:
        assert len(decoded(decoder, film()).indices) == 6
    finally:
        decoder.close()


def test_a_playlist_dressed_as_a_film_asks_nobody(decoder):
    asked = []

    class Host(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *parts: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Host) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        list_of = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:{server.server_port}/a.ts\n"
        for head in (b"", b"\0\0\0\x18ftypmp42", b"\x1aE\xdf\xa3", b"RIFF\0\0\0\0AVI "):
            refused(decoder, head + list_of.encode() * 4)
        server.shutdown()
    assert asked == []
