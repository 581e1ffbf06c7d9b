"""Files that were cut, bent or built to hurt: each is decoded or refused with one line, within its means."""

import gc
import io
import multiprocessing
import os
import struct
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import soundfile

from flexreward.errors import MediaError
from flexreward.media.bounds import read_media
from flexreward.media.decoder import Decoder, shared_decoder
from flexreward.media.digest import check_unchanged
from flexreward.media.limits import CAPS, LIMITS, MIB, FilmCaps, Limits
from flexreward.types import Media

NOISE = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))
TONE_N = 0.5 * np.sin(np.arange(12_000) / 9)


def image_file(format: str, image: PIL.Image.Image = NOISE, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def sound_file(format: str, samples: np.ndarray = TONE_N, rate: int = 16_000) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format=format)
    return out.getvalue()


def film_file(num_frames: int = 16, *, size: tuple[int, int] = (64, 48), rate: int = 8, codec: str = "mpeg4") -> bytes:
    av = pytest.importorskip("av", reason="films need PyAV")
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((size[1], size[0], 3), np.uint8), format="rgb24")
        for i in range(num_frames):
            frame.pts = i
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return out.getvalue()


def outcome(decoder: Decoder, kind: str, data: bytes) -> str:
    """``decoded``, or the line of the refusal; anything else is raised."""
    try:
        decoder.decode(Media(kind=kind, data=data))
    except MediaError as error:
        line = str(error)
        assert line.startswith(f"the {kind}: ")
        assert line.isprintable()
        assert " at 0x" not in line
        assert "cannot be decoded (" not in line, "an error that nobody has thought of"
        return line
    return "decoded"


FILES = {
    **{f"image {name}": name for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")},
    **{f"audio {name}": name for name in ("WAV", "FLAC", "OGG", "MP3")},
    "video mp4": "mp4",
}


def file_of(name: str) -> tuple[str, bytes]:
    kind, _, format = name.partition(" ")
    return kind, {"image": image_file, "audio": sound_file}[kind](format) if kind != "video" else film_file()


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_at_any_sixteenth_is_refused_unless_its_format_is_a_stream(decoder, name):
    kind, data = file_of(name)
    found = {i: outcome(decoder, kind, data[: i * len(data) // 16]) for i in range(16)}
    assert "is empty" in found[0]
    if kind == "video":
        del found[15]  # all frames and their index are there; who wrote them is not
    # An MP3 has no length to be held against, an Ogg ends where its pages do.
    may_be_short = name in ("audio MP3", "audio OGG")
    assert may_be_short or "decoded" not in found.values(), found


@pytest.mark.parametrize("name", FILES)
def test_a_file_with_bent_bits_is_decoded_or_refused_with_a_line(decoder, name):
    kind, data = file_of(name)
    rng = np.random.default_rng(7)
    for _ in range(40):
        bent = bytearray(data)
        for place in rng.integers(0, len(data), 4):
            bent[place] ^= 1 << int(rng.integers(8))
        outcome(decoder, kind, bytes(bent))


@pytest.mark.slow
def test_real_files_cut_and_bent_are_decoded_or_refused_with_a_line(decoder, shared_data):
    paths = {
        "image": sorted([*(shared_data / "images").glob("*.jpg"), *(shared_data / "mj_bench").glob("images/*.jpg")]),
        "audio": sorted([*(shared_data / "speech_misc").glob("*.*a*"), *(shared_data / "speech_p835").glob("wav/*")]),
    }
    if not all(paths.values()):
        pytest.skip("shared/data/images, mj_bench, speech_misc and speech_p835 are not all there")
    rng = np.random.default_rng(3)
    for kind, several in paths.items():
        for path in several:
            data = path.read_bytes()
            for i in range(1, 16):
                assert outcome(decoder, kind, data[: i * len(data) // 16]) != "decoded", (path.name, i)
            for _ in range(4):
                bent = bytearray(data)
                for place in rng.integers(0, len(data), 8):
                    bent[place] ^= 1 << int(rng.integers(8))
                outcome(decoder, kind, bytes(bent))


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def after_header(data: bytes, *chunks: bytes) -> bytes:
    """A PNG with further chunks before its pixels."""
    return data[:33] + b"".join(chunks) + data[33:]


PNG = image_file("PNG")


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (after_header(PNG, chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(b" " * 50_000_000))), "too large"),
        (after_header(PNG, chunk(b"iCCP", b"a\0\0" + zlib.compress(b"\0" * 50_000_000))), "too large"),
        (after_header(PNG, *[chunk(b"zTXt", b"a\0\0" + zlib.compress(b" " * 1_000_000))] * 80), "is no readable PNG"),
        (image_file("JPEG", icc_profile=os.urandom(2 * MIB)), "decoded"),
        (image_file("JPEG", exif=b"Exif\0\0MM\0*" + b"\xff" * 60_000), "decoded"),
        (image_file("PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08" + b"\xff" * 60_000), "decoded"),
        (image_file("MPO", save_all=True, append_images=[NOISE]), "decoded"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0" * 60, "is no image by its first bytes"),
        (b"\0\0\0\x18ftypheic" + b"\0" * 60, "is HEIC or AVIF by its first bytes, which is not decoded; save it as"),
        (b"\0\0\0\x18ftypavif" + b"\0" * 60, "is HEIC or AVIF by its first bytes"),
        (b"\0\0\0\x18ftypisom" + b"\0" * 60, "is mov by its first bytes, expected an image"),
        (b"\0\0\1\0\1\0" + b"\0" * 60, "is no image by its first bytes"),
        (b"<html><img src=x onerror=alert(1)>", "markup (SVG and HTML are never rendered)"),
        (b"GIF89a/*" + b"\0" * 8 + b"*/=1;alert(1)", "GIF"),
        (b"BM" + struct.pack("<IIIIiiHHII", 0, 0, 54, 40, 2**31 - 1, 2**31 - 1, 1, 24, 0, 0) + b"\0" * 60, "pixels"),
        (b"BM" + struct.pack("<IIIIiiHHII", 0, 0, 54, 40, -5, 5, 1, 24, 0, 0) + b"\0" * 60, "too many pixels"),
        (
            b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8L" + struct.pack("<I", 10) + b"\x2f\xff\xff\xff\xff" * 2,
            "too many pixels",
        ),
        (b"II*\0\x08\0\0\0\xff\xff" + b"\xff" * 200, "TIFF"),
    ],
)
def test_what_was_built_to_hurt_ends_as_it_should(decoder, data, found):
    assert found in outcome(decoder, "image", data)


def test_a_tiff_whose_pages_lead_back_to_each_other_ends(decoder):
    data = bytearray(image_file("TIFF", save_all=True, append_images=[NOISE]))
    first = struct.unpack_from("<I", data, 4)[0]
    num = struct.unpack_from("<H", data, first)[0]
    second = struct.unpack_from("<I", data, first + 2 + 12 * num)[0]
    struct.pack_into("<I", data, second + 2 + 12 * struct.unpack_from("<H", data, second)[0], first)
    assert outcome(decoder, "image", bytes(data)) == "decoded"
    assert "decoded" in outcome(decoder, "video", bytes(data)) or "video_frames" in outcome(
        decoder, "video", bytes(data)
    )


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "I;16", "CMYK"])
def test_the_largest_image_that_is_allowed_decodes_within_its_memory(decoder, mode):
    image = PIL.Image.new(mode, (8_000, 8_000))
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    more = {"exif": exif} if mode != "CMYK" else {}
    assert outcome(decoder, "image", image_file("JPEG" if mode == "CMYK" else "PNG", image, **more)) == "decoded"


@pytest.mark.slow
def test_a_photograph_of_ever_more_scans_ends_by_its_processor_time():
    data = image_file("JPEG", PIL.Image.new("L", (8_000, 8_000)), progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    bomb = data[:-2] + scan * 2_000 + data[-2:]
    assert len(bomb) < MIB
    decoder = Decoder(Limits(cpu_s=2), workers=1)
    began = time.monotonic()
    try:
        assert "more than 2 s of processor time to decode, the limit cpu_s" in outcome(decoder, "image", bomb)
    finally:
        decoder.close()
    assert time.monotonic() - began < 60


def id3(size: int, *, says: int | None = None) -> bytes:
    length = size if says is None else says
    return b"ID3\4\0\0" + bytes(length >> shift & 127 for shift in (21, 14, 7, 0)) + b"\0" * size


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (id3(8 * MIB) + sound_file("MP3"), "decoded"),
        (id3(64, says=2**28 - 1) + sound_file("MP3"), "is a broken or truncated MP3 (Error opening it: "),
        (id3(MIB), "is a broken or truncated MP3"),
        (b"ID3\4\0\0\0\0\0\0" + sound_file("FLAC"), "is a broken or truncated MP3"),
        (sound_file("WAV")[:-400], "is truncated: 23600 of 24000 bytes of sound are there"),
        (sound_file("WAV")[:40] + b"\xff\xff\xff\xff" + sound_file("WAV")[44:], "decoded"),
        (sound_file("WAV")[:40] + b"\xfe\xff\xff\xff" + sound_file("WAV")[44:], "decoded"),
        (sound_file("WAV")[:40] + b"\xff\xff\xff\x0f" + sound_file("WAV")[44:], "is truncated: 24000 of 268435455"),
        (b"RIFF\0\0\0\0WAVE" + b"LIST" + struct.pack("<I", 2**32 - 1) + b"\0" * 60, "WAV"),
    ],
)
def test_a_sound_whose_header_lies_ends_as_it_should(decoder, data, found):
    line = outcome(decoder, "audio", data)
    assert found in line


def test_a_film_of_very_many_tiny_frames_ends_by_its_length_or_its_processor_time():
    data = film_file(30_000, size=(16, 16), rate=1_000)
    assert len(data) < MIB
    short = Decoder(Limits(video_seconds=20), workers=1)
    quick = Decoder(Limits(video_cpu_s=0), workers=1)
    try:
        assert "lasts 30.0 s, the limit video_seconds is 20" in outcome(short, "video", data)
        assert outcome(quick, "video", data) in (
            "decoded",  # by a machine that needs less than the second it is given to begin with
            "the video: took more than 0 s of processor time to decode, the limit cpu_s or video_cpu_s",
        )
    finally:
        short.close()
        quick.close()


# Files that are none, or change


def test_to_name_a_medium_nothing_is_waited_for_and_nothing_without_end_is_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(MediaError, match="is no plain file; expected the image itself"):
            _ = Media(kind="image", path=path).digest


def test_a_link_is_what_it_leads_to_at_the_time(decoder, tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "link").symlink_to("a.png")
    media = Media(kind="image", path=tmp_path / "link")
    assert decoder.decode(media).size == NOISE.size
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to("/dev/zero")
    with pytest.raises(MediaError, match="is no plain file"):
        decoder.decode(media)


def test_a_file_of_the_system_gives_nothing_away(decoder):
    if not Path("/proc/self/environ").exists():
        pytest.skip("no /proc here")
    with pytest.raises(MediaError) as error:
        decoder.decode(Media(kind="image", path=Path("/proc/self/environ")))
    assert "is no image by its first bytes; expected" in str(error.value)


def test_a_file_that_was_replaced_after_it_was_named_is_refused(decoder, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    media = Media(kind="image", path=path)
    named = media.digest
    assert decoder.decode(media).size == NOISE.size
    path.write_bytes(image_file("PNG", NOISE.rotate(90, expand=True)))
    with pytest.raises(MediaError, match="changed after its request was named; run again"):
        decoder.decode(media)
    assert media.digest != named
    assert decoder.decode(media).size == NOISE.size[::-1]


def test_a_file_of_the_same_length_and_time_is_still_another(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"one")
    times = os.stat(path)
    media = Media(kind="image", path=path)
    named = media.digest
    path.write_bytes(b"two")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert media.digest != named
    check_unchanged(media, b"two")


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"x" * MIB)
    stop = threading.Event()

    def grow() -> None:
        with path.open("ab", buffering=0) as file:
            while not stop.wait(0.0005):
                file.write(b"x" * 65_536)

    thread = threading.Thread(target=grow)
    thread.start()
    lines = set()
    try:
        until = time.monotonic() + 20
        while not lines and time.monotonic() < until:
            try:
                read_media(Media(kind="video", path=path), Limits(video_bytes=2048 * MIB))
            except MediaError as error:
                lines.add(str(error).partition(": ")[2])
    finally:
        stop.set()
        thread.join()
    assert lines == {"changes while it is read; run again when it is whole"}


# Many at once, and ends


def test_many_threads_share_few_workers_and_lose_none():
    decoder = Decoder(workers=3)
    kept = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(24) as pool:
            found = list(pool.map(lambda i: outcome(decoder, "image", PNG if i % 3 else b"no"), range(300)))
        assert found.count("decoded") == 200
        assert not decoder._busy
        assert 1 <= len(decoder._idle) <= 3
    finally:
        sys.setswitchinterval(kept)
        decoder.close()


def busy(decoder: Decoder) -> tuple[ThreadPoolExecutor, object]:
    """A decoder with one sound under way that takes long."""
    pool = ThreadPoolExecutor(1)
    data = sound_file("FLAC", np.zeros(100 * 47_999), 47_999)
    doing = pool.submit(decoder.decode, Media(kind="audio", data=data))
    until = time.monotonic() + 10
    while not decoder._busy and time.monotonic() < until:
        time.sleep(0.005)
    time.sleep(0.1)
    return pool, doing


def test_closing_ends_what_is_being_decoded_and_leaves_no_process():
    decoder = Decoder(Limits(cpu_s=60), workers=1)
    pool, doing = busy(decoder)
    (worker,) = decoder._busy
    began = time.monotonic()
    decoder.close()
    with pytest.raises(MediaError, match="the audio: the decoder was closed while it was decoded"):
        doing.result(timeout=20)
    pool.shutdown()
    assert time.monotonic() - began < 5
    assert worker._process.poll() is not None
    assert not decoder._busy
    assert not decoder._idle


def _decode_in_fork(decoder: Decoder, pipe: object) -> None:
    pipe.send(outcome(decoder, "image", PNG))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_amid_decoding_neither_waits_for_nor_hurts_what_its_parent_does():
    decoder = Decoder(Limits(cpu_s=60), workers=1)
    pool, doing = busy(decoder)
    try:
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        child = context.Process(target=_decode_in_fork, args=(decoder, theirs))
        child.start()
        assert ours.poll(20)
        assert ours.recv() == "decoded"
        child.join(20)
        assert child.exitcode == 0
        assert doing.result(timeout=60).rate == 16_000
    finally:
        pool.shutdown()
        decoder.close()
        gc.collect()


def test_a_worker_that_answers_too_much_is_refused(tmp_path, monkeypatch):
    liar = (
        "import sys, struct, json\nsys.stdin.buffer.read(4)\n"
        "head = json.dumps({'width': 2, 'height': 2, 'size': 10**6}).encode()\n"
        "sys.stdout.buffer.write(struct.pack('<I', len(head)) + head + bytes(10**6))\n"
    )
    (tmp_path / "liar.py").write_text(liar)
    (tmp_path / "python").write_text(f"#!/bin/sh\nexec {sys.executable} {tmp_path / 'liar.py'}\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    decoder = Decoder(Limits(image_pixels=100), workers=1)
    try:
        assert "the decoder broke on it" in outcome(decoder, "image", image_file("PNG", PIL.Image.new("L", (4, 4))))
    finally:
        decoder.close()


# Under limits of one's own


def test_engines_of_the_same_limits_share_one_decoder():
    own = (Limits(image_bytes=5), FilmCaps(fps=2.0))
    decoder = shared_decoder(*own)
    assert (decoder.limits, decoder.caps) == own
    assert shared_decoder(*own) is decoder
    assert (shared_decoder().limits, shared_decoder().caps) == (LIMITS, CAPS)


def test_an_image_is_shown_at_the_size_that_its_request_names(decoder, tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    plain = Media(kind="image", path=tmp_path / "a.png")
    square = Media(kind="image", path=tmp_path / "a.png", size=(448, 448))
    found = decoder.decode(square)
    assert np.array_equal(np.asarray(found), np.asarray(NOISE.resize((448, 448), PIL.Image.Resampling.BICUBIC)))
    assert len({plain.digest, square.digest, Media(kind="image", data=PNG, size=(336, 336)).digest}) == 3
    assert square.digest == Media(kind="image", data=PNG, size=(448, 448)).digest
    for wrong in ({"kind": "audio", "size": (4, 4)}, {"kind": "image", "size": (0, 4)}):
        with pytest.raises(ValueError, match="only images have one, of at least one pixel"):
            Media(data=PNG, **wrong)
    with pytest.raises(MediaError, match="has 90000 x 90000 pixels, the limit image_pixels"):
        decoder.decode(Media(kind="image", data=PNG, size=(90_000, 90_000)))
