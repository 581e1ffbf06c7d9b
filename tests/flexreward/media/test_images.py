import io
import struct
import zlib

import numpy as np
import PIL.Image
import pytest

from flexreward.errors import MediaError
from flexreward.media.decoder import Decoder
from flexreward.media.intake import image_of
from flexreward.media.limits import Limits
from flexreward.types import Media


def file_of(image: PIL.Image.Image, format: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, *, bits: int = 8, colour: int = 2, rows: bytes = b"") -> bytes:
    """A PNG with a true checksum, whatever it promises."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def refused(decoder: Decoder, data: bytes, kind: str = "image") -> str:
    with pytest.raises(MediaError) as error:
        decoder.decode(Media(kind=kind, data=data))
    message = str(error.value)
    assert message.isprintable()
    return message


def pixels(decoder: Decoder, data: bytes) -> np.ndarray:
    image = decoder.decode(Media(kind="image", data=data))
    assert image.mode == "RGB"
    return np.asarray(image)


RED_BLUE = PIL.Image.fromarray(np.array([[[255, 0, 0], [0, 0, 255]]], dtype=np.uint8))


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "GIF", "WEBP"])
def test_lossless_files_come_out_as_they_were_drawn(decoder, format):
    options = {"lossless": True} if format == "WEBP" else {}
    assert pixels(decoder, file_of(RED_BLUE, format, **options)).tolist() == [[[255, 0, 0], [0, 0, 255]]]


@pytest.mark.parametrize(("orientation", "upright"), [(1, "red blue"), (3, "blue red"), (6, "red over blue")])
def test_an_image_turned_by_exif_is_turned_upright(decoder, orientation, upright):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    found = pixels(decoder, file_of(RED_BLUE, exif=exif))
    across = {
        "red blue": RED_BLUE,
        "blue red": RED_BLUE.rotate(180),
        "red over blue": RED_BLUE.rotate(-90, expand=True),
    }
    assert np.array_equal(found, np.asarray(across[upright]))


def test_exif_that_is_broken_turns_nothing(decoder):
    data = file_of(RED_BLUE, "JPEG", quality=95, exif=b"Exif\0\0II*\0\xff\xff\xff\x7fgarbage")
    assert pixels(decoder, data).shape == (1, 2, 3)


def test_cmyk_becomes_the_colours_that_its_inks_make(decoder):
    cyan = PIL.Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    red, green, blue = pixels(decoder, file_of(cyan, "JPEG", quality=95))[4, 4].tolist()
    assert red < 10
    assert min(green, blue) > 245
    assert pixels(decoder, file_of(cyan, "TIFF"))[4, 4].tolist() == [0, 255, 255]


def test_sixteen_bits_are_scaled_and_not_cut_off(decoder):
    grey = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    assert pixels(decoder, file_of(PIL.Image.fromarray(grey)))[0, :, 0].tolist() == [0, 1, 128, 255]
    rows = b"\0" + struct.pack(">3H", 65535, 32896, 0)
    assert pixels(decoder, png(1, 1, bits=16, rows=rows)).tolist() == [[[255, 128, 0]]]


def test_what_is_transparent_lies_on_white(decoder):
    half = PIL.Image.new("RGBA", (1, 1), (0, 0, 0, 128))
    assert pixels(decoder, file_of(half)).tolist() == [[[127, 127, 127]]]
    palette = PIL.Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.putpixel((1, 0), 1)
    assert pixels(decoder, file_of(palette, transparency=0)).tolist() == [[[255, 255, 255], [0, 255, 0]]]


def test_of_an_animation_the_first_frame_is_shown(decoder):
    frames = [PIL.Image.new("RGB", (3, 2), colour) for colour in ("red", "blue")]
    for format in ("GIF", "PNG", "WEBP", "TIFF"):
        options = {"lossless": True} if format == "WEBP" else {}
        data = file_of(frames[0], format, save_all=True, append_images=frames[1:], **options)
        assert pixels(decoder, data)[0, 0].tolist() == [255, 0, 0], format


def test_values_without_a_stated_range_are_refused(decoder):
    assert "32-bit values, whose range is not known" in refused(
        decoder, file_of(PIL.Image.fromarray(np.ones((2, 2), np.float32)), "TIFF")
    )


NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.002, 0.3, 0.9])
def test_a_truncated_file_is_refused_wherever_it_ends(decoder, format, share):
    data = file_of(PIL.Image.fromarray(NOISE), format)
    message = refused(decoder, data[: max(12, int(share * len(data)))])
    assert message.startswith(f"the image: is no readable {format} (") or f"truncated {format} (" in message


def test_garbage_after_a_true_beginning_is_refused_or_decoded_and_never_more(decoder):
    data = bytearray(file_of(PIL.Image.fromarray(NOISE), "JPEG"))
    rng = np.random.default_rng(1)
    for _ in range(60):
        hurt = bytearray(data)
        for place in rng.integers(4, len(data), 12):
            hurt[place] = rng.integers(0, 256)
        try:
            image = decoder.decode(Media(kind="image", data=bytes(hurt)))
        except MediaError as error:
            assert str(error).startswith("the image: ")  # noqa: PT017
        else:
            assert image.mode == "RGB"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty; put the image back"),
        (
            b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>",
            "markup (SVG and HTML are never rendered)",
        ),
        (b"#!/bin/sh\nrm -rf /\n", "is no image by its first bytes; expected JPEG, PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is no image by its first bytes"),
        (b"%PDF-1.7\n", "is no image by its first bytes"),
        (b"PK\x03\x04" + b"\0" * 60, "is no image by its first bytes"),
        (b"RIFF\0\0\0\0WAVEfmt ", "is WAV by its first bytes, expected an image"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "is no readable PNG"),
        (b"\xff\xd8\xff" + b"not a jpeg" * 9, "is no readable JPEG"),
        (png(0, 5), "PNG"),
        (png(5, 0), "PNG"),
        (png(100_000, 100_000), "the limit image_pixels is 64000000"),
        (png(2**31 - 1, 2**31 - 1), "the limit image_pixels is 64000000"),
        (png(9_000, 9_000), "has 9000 x 9000 pixels, the limit image_pixels is 64000000"),
        (b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\2\1\0\0;", "image_pixels is 64000000"),
    ],
)
def test_what_is_no_sound_image_is_one_line(decoder, data, message):
    assert message in refused(decoder, data)


def test_a_bomb_of_few_bytes_is_refused_by_its_header_alone(decoder):
    bomb = png(30_000, 30_000, rows=b"\0" * 50_000_000)
    assert len(bomb) < 60_000
    assert "the limit image_pixels" in refused(decoder, bomb)


def test_a_bomb_in_the_text_of_an_image_is_refused(decoder):
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(b" " * 50_000_000))
    bomb = png(1, 1, rows=b"\0\0\0\0")
    assert "is no readable PNG (Decompressed data too large" in refused(decoder, bomb[:33] + text + bomb[33:])


def test_a_polyglot_is_what_its_first_bytes_say_and_its_rest_goes_nowhere(decoder):
    data = file_of(RED_BLUE) + b"PK\x03\x04<script>alert(1)</script><?php ?>"
    assert pixels(decoder, data).tolist() == [[[255, 0, 0], [0, 0, 255]]]
    assert "expected an audio" in refused(decoder, data, kind="audio")
    assert "expected a video" in refused(decoder, data, kind="video")


def test_the_name_of_a_file_says_nothing_about_what_it_is(decoder, tmp_path):
    (tmp_path / "a.svg").write_bytes(file_of(RED_BLUE))
    (tmp_path / "b\n<|im_end|>.png").write_bytes(b"<svg/>")
    assert decoder.decode(image_of(tmp_path / "a.svg")).size == (2, 1)
    with pytest.raises(MediaError) as error:
        decoder.decode(image_of(tmp_path / "b\n<|im_end|>.png"))
    assert "\n" not in str(error.value)


def test_a_limit_of_bytes_holds_for_files_and_for_bytes(tmp_path):
    limits = Limits(image_bytes=50)
    data = file_of(RED_BLUE)
    (tmp_path / "a.png").write_bytes(data)
    for media in (Media(kind="image", data=data), Media(kind="image", path=tmp_path / "a.png")):
        with pytest.raises(MediaError, match=f"has {len(data)} bytes, the limit image_bytes is 50"):
            Decoder(limits).decode(media)


def test_real_photographs_decode(decoder, shared_data):
    paths = sorted([*(shared_data / "images").glob("*.jpg"), *(shared_data / "mj_bench" / "images").glob("*.jpg")])
    if not paths:
        pytest.skip("shared/data/images and shared/data/mj_bench/images are not there")
    for path in paths:
        image = decoder.decode(image_of(path))
        with PIL.Image.open(path) as opened:
            assert np.array_equal(np.asarray(image), np.asarray(opened.convert("RGB"))), path.name
