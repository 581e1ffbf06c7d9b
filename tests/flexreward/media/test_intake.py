import base64
import io
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from flexreward.errors import MediaError, SampleError
from flexreward.media.intake import HERE, Reach, audio_of, image_of, media_of, video_of
from flexreward.media.limits import Limits
from flexreward.types import Media

OUTSIDE = Reach()
PICTURE = PIL.Image.fromarray(np.arange(24, dtype=np.uint8).reshape(2, 4, 3))


def png() -> bytes:
    out = io.BytesIO()
    PICTURE.save(out, "PNG")
    return out.getvalue()


def uri(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def refused(take, value: object, **options: object) -> str:
    with pytest.raises(MediaError) as error:
        take(value, **options)
    message = str(error.value)
    assert message.isprintable()
    assert isinstance(error.value, SampleError)
    return message


def test_one_image_in_every_shape_is_the_same_image(decoder, tmp_path):
    data = png()
    (tmp_path / "a.png").write_bytes(data)
    shapes = [
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        data,
        bytearray(data),
        uri(data),
        {"bytes": data, "path": None},
        {"bytes": data, "path": "gone.png"},
        {"bytes": None, "path": str(tmp_path / "a.png")},
        PICTURE,
        np.asarray(PICTURE),
        np.asarray(PICTURE) / 255,
    ]
    for value in shapes:
        assert np.array_equal(np.asarray(decoder.decode(image_of(value))), np.asarray(PICTURE)), type(value)
    assert len({image_of(value).digest for value in shapes[:8]}) == 1
    assert image_of(PICTURE).digest == image_of(np.asarray(PICTURE)).digest


def test_an_image_of_datasets_is_taken_from_its_column_as_it_lies_there(decoder):
    import datasets

    column = datasets.Dataset.from_dict({"image": [PICTURE]}).cast_column("image", datasets.Image(decode=False))
    assert np.array_equal(np.asarray(decoder.decode(image_of(column[0]["image"]))), np.asarray(PICTURE))
    decoded = datasets.Dataset.from_dict({"image": [PICTURE]}).cast_column("image", datasets.Image())
    assert np.array_equal(np.asarray(decoder.decode(image_of(decoded[0]["image"]))), np.asarray(PICTURE))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_a_pil_image_of_any_mode_is_taken_and_left_as_it_was(decoder, mode):
    image = PICTURE.convert("RGBA").convert("RGB").convert(mode) if mode != "LA" else PICTURE.convert("L").convert("LA")
    image.info["comment"] = "ignored"
    found = np.asarray(decoder.decode(image_of(image))).astype(int)
    assert np.abs(found - np.asarray(image.convert("RGB"))).max() <= 1
    assert image.info["comment"] == "ignored"


def test_a_pil_image_keeps_its_transparency_and_its_turn(decoder):
    palette = PIL.Image.new("P", (1, 1))
    palette.putpalette([255, 0, 0])
    palette.info["transparency"] = 0
    assert decoder.decode(image_of(palette)).getpixel((0, 0)) == (255, 255, 255)
    out = io.BytesIO()
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PICTURE.save(out, "PNG", exif=exif)
    assert decoder.decode(image_of(PIL.Image.open(out))).size == (2, 4)


def test_an_array_with_its_rate_is_a_sound(decoder):
    tone = (0.25 * np.sin(np.arange(1_600) / 5)).astype(np.float32)
    stereo = np.stack([tone, tone], axis=1)
    for media in (
        audio_of(tone, rate=16_000),
        audio_of(stereo, rate=16_000),
        audio_of({"array": tone, "sampling_rate": 16_000, "path": None}),
        audio_of({"array": tone.tolist(), "sampling_rate": 16_000}),
        audio_of((tone * 32768).astype(np.int16), rate=16_000),
    ):
        assert media == audio_of(Media(kind="audio", data=media.data).data)
        assert np.abs(decoder.decode(media).samples_N - tone).max() < 1e-4


@pytest.mark.parametrize(
    ("take", "value", "options", "message"),
    [
        (
            image_of,
            None,
            {},
            "the image: is nothing, expected a path, bytes, a data URI, a URL, a PIL image or an array",
        ),
        (image_of, 3, {}, "is int, expected a path"),
        (image_of, b"", {}, "is empty; put the image back"),
        (image_of, {"bytes": None, "path": None}, {}, "is nothing, expected"),
        (image_of, "data:image/png,abc", {}, "data URI without ;base64, ; expected data:image/...;base64"),
        (image_of, "data:image/png;base64,@@@", {}, "a data URI with broken base64"),
        (image_of, uri(b"x", "audio/wav"), {}, "is a data URI of 'audio/wav', expected data:image/"),
        (image_of, uri(b"x" * 99), {"limits": Limits(image_bytes=9)}, "the limit image_bytes is 9"),
        (image_of, b"x" * 99, {"limits": Limits(image_bytes=9)}, "has 99 bytes, the limit image_bytes is 9"),
        (image_of, PICTURE, {"limits": Limits(image_pixels=7)}, "has 4 x 2 pixels, the limit image_pixels is 7"),
        (image_of, np.zeros((3, 4, 9)), {}, "shape (3, 4, 9), expected (H, W) or (H, W, 1, 3 or 4); transpose it"),
        (image_of, np.zeros((0, 4)), {}, "is an array of shape (0, 4)"),
        (image_of, np.full((2, 2), 200.0), {}, "floats outside of 0 to 1"),
        (image_of, np.full((2, 2), np.nan), {}, "floats outside of 0 to 1"),
        (image_of, np.zeros((2, 2), np.int64), {}, "is an array of int64"),
        (audio_of, np.zeros(9), {}, "an array without its sampling rate"),
        (audio_of, np.zeros(9), {"rate": 1}, "has a sampling rate of 1, expected 1000 to 768000"),
        (audio_of, np.zeros((2, 99)), {"rate": 16_000}, "the limit audio_channels is 8; expected (samples, channels)"),
        (audio_of, np.full(9, 30_000.0), {"rate": 16_000}, "divide integers by their full scale"),
        (audio_of, np.full(9, np.nan), {"rate": 16_000}, "expected -1 to 1"),
        (audio_of, np.zeros(9, np.int32), {"rate": 16_000}, "is an array of int32"),
        (
            audio_of,
            np.zeros(16_000 * 601, np.float32),
            {"rate": 16_000},
            "lasts 601.0 s, the limit audio_seconds is 600",
        ),
        (video_of, "data:video/mp4,", {}, "data URI without"),
    ],
)
def test_what_cannot_be_taken_is_one_line(take, value, options, message):
    assert message in refused(take, value, **options)


def test_a_path_is_looked_at_before_it_is_taken(tmp_path):
    assert "No such file" in refused(image_of, tmp_path / "none.png")
    assert "is no plain file" in refused(image_of, tmp_path)
    assert "not a path" in refused(image_of, "a\0b")
    (tmp_path / "a\nb").write_bytes(b"123")
    assert "the limit image_bytes is 2" in refused(image_of, tmp_path / "a\nb", limits=Limits(image_bytes=2))


def test_relative_paths_begin_where_they_are_said_to(tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    assert image_of("a.png", reach=Reach(folder=tmp_path)).path == tmp_path / "a.png"
    assert f"paths begin at {tmp_path}" in refused(image_of, "b.png", reach=Reach(folder=tmp_path))
    assert HERE.hosts == frozenset()


@pytest.mark.parametrize(
    "value", ["/etc/hostname", "a.png", Path("/etc/hostname"), {"path": "/etc/hostname"}, "~/x.png"]
)
def test_a_path_in_a_request_from_outside_is_never_opened(value):
    assert "paths are not opened for requests from outside" in refused(image_of, value, reach=OUTSIDE)


@pytest.mark.parametrize("value", ["file:///etc/hostname", "ftp://example.org/a.png", "https://example.org/a.png"])
def test_no_host_is_asked_unless_an_operator_names_it(value):
    for reach in (OUTSIDE, HERE):
        message = refused(image_of, value, reach=reach)
        assert "is no http or https URL" in message or "does not allow; allowed: none" in message


def test_a_data_uri_is_taken_from_outside():
    assert image_of(uri(png()), reach=OUTSIDE) == Media(kind="image", data=png())


def test_a_list_of_media_is_held_to_a_number_and_says_which_is_wrong():
    assert len(media_of("image", [png(), uri(png())], where="images")) == 2
    assert "images[1]: is empty" in refused(lambda values: media_of("image", values, where="images"), [png(), b""])
    many = {"limits": Limits(media_per_request=1), "where": "images"}
    message = refused(lambda values: media_of("image", values, **many), [png()] * 2)
    assert message == "images: holds 2, the limit media_per_request is 1"
