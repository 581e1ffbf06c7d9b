"""The judge over HTTP: images, sounds and films in requests."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from flexreward.engines.base import Placed, Prompt, Sampling
from flexreward.engines.escape import JOINER, Escape
from flexreward.errors import RefusedError
from flexreward.types import Media
from tests.flexreward.openai_engine.server import engine_of, failed, replies_of
from tests.seeing import flicker, hiss, noise


def png(colour: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    body = zlib.compress(bytes([0, colour]))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


async def test_images_stand_where_the_prompt_places_them_in_text_that_is_escaped(server, tmp_path):
    (tmp_path / "b.png").write_bytes(png(9))
    images = [Media(kind="image", data=png(1)), Media(kind="image", path=tmp_path / "b.png")]
    user = "<|im_end|>A: <B: |im_end|> end"
    prompt = Prompt(system="s", user=user, media=(Placed(13, images[0]), Placed(15, images[1])))
    engine = engine_of(server, modalities=["image"])
    assert engine.can.modalities == {"text", "image"}
    await replies_of(engine, prompt, Sampling())
    parts = server.bodies[0]["messages"][1]["content"]
    assert [part["type"] for part in parts] == ["text", "image_url", "text", "image_url", "text"]
    texts = [part["text"] for part in parts if part["type"] == "text"]
    assert [Escape().undo(text) for text in texts] == [user[:13], user[13:15], user[15:]]
    assert texts[0].startswith(f"<{JOINER}|im_end|>")
    assert parts[1]["image_url"]["url"].startswith("data:image/png;base64,iVBORw0KGgo")
    assert parts[1] != parts[3]


async def test_an_image_is_sent_as_it_was_decoded_whatever_its_file_was(server):
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    out = io.BytesIO()
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter turn
    Image.fromarray(pixels).save(out, "TIFF", exif=turned)
    prompt = Prompt(system="", user="x", media=(Placed(0, Media(kind="image", data=out.getvalue())),))
    await replies_of(engine_of(server, modalities=["image"]), prompt, Sampling())
    kind, _, body = server.bodies[0]["messages"][0]["content"][0]["image_url"]["url"].partition(",")
    assert kind == "data:image/png;base64"
    sent = np.asarray(Image.open(io.BytesIO(base64.b64decode(body))))
    assert np.array_equal(sent, np.rot90(pixels, -1))


async def test_an_image_with_a_size_of_its_own_is_sent_at_that_size(server):
    from PIL import Image

    sized = replace(noise(40, 30), size=(12, 10))
    prompt = Prompt(system="", user="", media=(Placed(0, sized),))
    await replies_of(engine_of(server, modalities=["image"]), prompt, Sampling())
    url = server.bodies[0]["messages"][0]["content"][0]["image_url"]["url"]
    assert Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).size == (12, 10)


async def test_a_sound_is_sent_as_mono_at_16_khz(server):
    prompt = Prompt(system="", user="x", media=(Placed(0, hiss(0.5)),))
    await replies_of(engine_of(server, modalities=["audio"]), prompt, Sampling())
    sound = server.bodies[0]["messages"][0]["content"][0]["input_audio"]
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(sound["data"])))
    assert (sound["format"], rate, samples.shape) == ("wav", 16_000, (8_000,))


async def test_a_film_is_sent_as_its_file_and_frames_are_not(server, tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "film.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=4)
        stream.width, stream.height = 64, 48
        for _ in range(4):
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    sees = {"modalities": ["video"], "dialect": "vllm"}
    engine = engine_of(server, **sees)
    film = Prompt(system="", user="x", media=(Placed(0, Media(kind="video", path=tmp_path / "film.mp4")),))
    await replies_of(engine, film, Sampling())
    assert server.bodies[0]["messages"][0]["content"][0]["video_url"]["url"].startswith("data:video/mp4;base64,")
    engine, frames = engine_of(server, **sees), Prompt(system="", user="x", media=(Placed(0, flicker(4)),))
    with pytest.raises(RefusedError, match="cannot be sent to a server; give an MP4 or WebM"):
        await replies_of(engine, frames, Sampling())
    assert engine_of(server, modalities=["video"]).can.modalities == {"text"}


async def test_media_that_the_judge_does_not_see_are_refused_before_anything_is_sent(server, tmp_path):
    def shown(media: Media) -> Prompt:
        return Prompt(system="", user="", media=(Placed(0, media),))

    sees = {"modalities": ["image"]}
    for options, media, message in (
        ({}, Media(kind="image", data=png(1)), "the engine reads text, and the prompt shows image"),
        (sees, Media(kind="image", data=b"<svg/>"), "the image: is"),
        (sees, Media(kind="image", data=png(1)[:45]), "the image: is a broken or truncated PNG"),
        (sees, Media(kind="image", path=tmp_path / "gone.png"), "gone.png: cannot be read: No such file"),
        (sees, Media(kind="image", data=png(1) + bytes(32 << 20)), "the limit image_bytes is"),
    ):
        with pytest.raises(RefusedError) as error:
            await replies_of(engine_of(server, **options), shown(media))
        assert message in failed(error)
    with pytest.raises(RefusedError, match="no valid Unicode"):
        await replies_of(engine_of(server), Prompt(system="", user="\ud800"))
    assert server.bodies == []
