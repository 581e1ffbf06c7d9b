import base64
import http.server
import io
import json
import threading
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from flexreward.cli import run
from flexreward.errors import SampleError
from flexreward.files.columns import parse_map
from flexreward.files.outcomes import read_outcomes
from flexreward.files.samples import Sample, read_samples
from flexreward.media.arrays import sound_bytes
from flexreward.media.limits import LIMITS, Limits
from flexreward.types import Media

ROW = {"prompt": "What is it?", "completions": ["a cat", "surely a cat"]}
SCRIPTED = ("--judge", "scripted:longer", "--no-store")


def png(colour: str = "red") -> bytes:
    out = io.BytesIO()
    PIL.Image.new("RGB", (2, 1), colour).save(out, "PNG")
    return out.getvalue()


def uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def write(path: Path, *rows: object) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(source: str, *maps: str, **options: object) -> list[Sample]:
    return list(read_samples(source, mapping=parse_map(maps), **options))


def refused(source: str, **options: object) -> str:
    with pytest.raises(SampleError) as error:
        read(source, **options)
    assert str(error.value).isprintable()
    return str(error.value)


def test_media_columns_stand_on_the_request_images_first(tmp_path, monkeypatch, decoder):
    (tmp_path / "rows" / "media").mkdir(parents=True)
    (tmp_path / "rows" / "media" / "a.png").write_bytes(png())
    sound = sound_bytes(np.zeros(1_600, np.float32), 16_000, "", LIMITS)
    row = ROW | {
        "audios": [uri(sound, "audio/wav")],
        "videos": None,
        "images": ["media/a.png", uri(png("blue"), "image/png"), {"bytes": None, "path": "media/a.png"}],
    }
    source = write(tmp_path / "rows" / "s.jsonl", row)
    monkeypatch.chdir("/")
    (sample,) = read(source)
    path = Media(kind="image", path=tmp_path / "rows" / "media" / "a.png")
    blue, heard = Media(kind="image", data=png("blue")), Media(kind="audio", data=sound)
    assert sample.request().media == sample.only([1], id="x").media == (path, blue, path, heard)
    assert sample.extra == {}
    assert [image.getpixel((0, 0)) for image in decoder.decode_all(sample.media[:2])] == [(255, 0, 0), (0, 0, 255)]


def test_columns_of_bytes_come_out_of_parquet_and_of_a_saved_data_set(tmp_path):
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "beside.png").write_bytes(png("blue"))
    values = [{"bytes": png(), "path": "a.png"}, {"bytes": None, "path": "beside.png"}]
    pq.write_table(pa.Table.from_pylist([ROW | {"images": values, "raw": [png()]}]), tmp_path / "s.parquet")
    want = (Media(kind="image", data=png()), Media(kind="image", path=tmp_path / "beside.png"))
    (sample,) = read(str(tmp_path / "s.parquet"), "raw=")
    assert sample.media == want
    (sample,) = read(str(tmp_path / "s.parquet"), "images=raw")
    assert sample.media == want[:1]
    features = datasets.Features(
        {
            "prompt": datasets.Value("string"),
            "completions": datasets.List(datasets.Value("string")),
            "images": datasets.List(datasets.Image()),
        }
    )
    picture = PIL.Image.new("RGB", (2, 1), "red")
    saved = datasets.Dataset.from_list([ROW | {"images": [picture]}], features=features)
    saved.save_to_disk(tmp_path / "saved")
    (sample,) = read(str(tmp_path / "saved"))
    assert [image.kind for image in sample.media] == ["image"]
    assert PIL.Image.open(io.BytesIO(sample.media[0].data)).getpixel((1, 0)) == (255, 0, 0)


def test_media_of_the_hub_are_not_decoded_on_the_way(tmp_path, monkeypatch):
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    sound = sound_bytes(np.zeros(1_600, np.float32), 16_000, "", LIMITS)
    held = {"images": [{"bytes": png(), "path": "a.png"}], "audios": [{"bytes": sound, "path": None}]}
    pq.write_table(pa.Table.from_pylist([ROW | held]), tmp_path / "s.parquet")
    features = datasets.Features(
        {
            "prompt": datasets.Value("string"),
            "completions": datasets.List(datasets.Value("string")),
            "images": datasets.List(datasets.Image()),
            "audios": datasets.List(datasets.Audio()),
        }
    )
    load = datasets.load_dataset

    def from_the_hub(name: str, *, split: str, streaming: bool) -> object:
        assert name == "org/name"
        options = {"data_files": str(tmp_path / "s.parquet"), "cache_dir": str(tmp_path / "cache")}
        return load("parquet", split=split, streaming=streaming, features=features, **options)

    monkeypatch.setattr(datasets, "load_dataset", from_the_hub)
    (sample,) = read("org/name:train")
    assert sample.media == (Media(kind="image", data=png()), Media(kind="audio", data=sound))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"images": "a.png"}, "line 1: images is 'a.png', expected a list; write [...] around it"),
        ({"images": ["a.png"]}, "line 1: images[0]: "),
        ({"images": [None]}, "line 1: images[0]: is nothing, expected a path"),
        ({"images": [""]}, "line 1: images[0]: is nothing, expected a path"),
        ({"images": [7]}, "line 1: images[0]: is int, expected a path"),
        ({"videos": [["a.png", "b.png"]]}, "line 1: videos[0] is a list, expected a path, bytes or a data URI"),
        ({"audios": [uri(b"x", "image/png")]}, "line 1: audios[0]: is a data URI of 'image/png', expected data:audio/"),
        ({"images": ["https://example.org/a.png"]}, "is of a host that the operator does not allow; allowed: none"),
        ({"images": ["file:///etc/hostname"]}, "is no http or https URL"),
        ({"images": [uri(b"x" * 100, "image/png")]}, "the limit image_bytes is 60"),
        ({"images": [uri(b"x", "image/png")] * 5}, "images: holds 5, the limit media_per_request is 4"),
        (
            {"images": [uri(b"x", "image/png")] * 3, "audios": [uri(b"x", "audio/wav")] * 2},
            "the row has 5 media, the limit media_per_request is 4",
        ),
        ({"molecules": ["CCO"]}, "molecules are judged as text: write the SMILES into the prompt"),
    ],
)
def test_a_medium_that_cannot_be_taken_is_one_line_with_its_place(tmp_path, more, message):
    source = write(tmp_path / "s.jsonl", ROW | more)
    assert message in refused(source, limits=Limits(image_bytes=60, media_per_request=4))


def test_rows_with_an_image_are_judged_and_the_outcomes_hold_none_of_it(tmp_path, capsys):
    rows = [ROW | {"id": i, "images": [uri(png(), "image/png")]} for i in range(3)]
    source, out = write(tmp_path / "s.jsonl", *rows), tmp_path / "o.jsonl"
    assert run(["judge", source, "--out", str(out), *SCRIPTED]) == 0
    found = list(read_outcomes(out))
    assert [(row["template"], row["status"]) for row in found] == [("image-pair", "scored")] * 3
    text = out.read_text()
    assert "base64" not in text
    assert base64.b64encode(png())[:40].decode() not in text
    capsys.readouterr()
    assert run(["judge", source, "--out", str(out), *SCRIPTED]) == 0
    assert "(0 now, 0 from the store)" in capsys.readouterr().out
    assert out.read_text() == text


class Host(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(png())

    def log_message(self, *parts: object) -> None:
        pass


def test_the_command_line_fetches_from_the_hosts_that_it_names(tmp_path, capsys):
    with http.server.HTTPServer(("127.0.0.1", 0), Host) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{server.server_port}"
        source = write(tmp_path / "s.jsonl", ROW | {"images": [f"http://{host}/a.png"]})
        command = ["judge", source, "--out", str(tmp_path / "o.jsonl"), *SCRIPTED]
        assert run(command) == 2
        assert "is of a host that the operator does not allow; allowed: none" in capsys.readouterr().err
        assert run([*command, "--media-host", host]) == 0
        server.shutdown()
    fetched, held = (tmp_path / "o.jsonl").read_text(), tmp_path / "p.jsonl"
    source = write(tmp_path / "t.jsonl", ROW | {"images": [uri(png(), "image/png")]})
    assert run(["judge", source, "--out", str(held), *SCRIPTED]) == 0
    assert held.read_text() == fetched


def test_a_template_that_shows_no_such_media_is_one_line(tmp_path, capsys):
    source = write(tmp_path / "s.jsonl", ROW | {"images": [uri(png(), "image/png")]}, ROW)
    assert run(["judge", source, "--out", str(tmp_path / "o.jsonl"), "--template", "pair", *SCRIPTED]) == 2
    assert (
        "line 1: brings image with its prompt, and the template pair shows no media there; --template takes one with "
        "such slots, as image-pair, or a file" in capsys.readouterr().err
    )
    assert run(["judge", source, "--out", str(tmp_path / "p.jsonl"), *SCRIPTED]) == 2
    assert "line 2: brings no media with its prompt, and the template image-pair shows image" in capsys.readouterr().err


def test_a_judge_that_does_not_see_is_refused_with_a_line_before_any_row(tmp_path, checkpoint, capsys):
    rows = [ROW | {"id": i, "images": [uri(png(), "image/png")]} for i in range(2)]
    out = tmp_path / "o.jsonl"
    command = ["judge", write(tmp_path / "s.jsonl", *rows), "--out", str(out), "--judge", str(checkpoint), "--no-store"]
    assert run(command) == 2
    line = "reads text, and the template image-pair shows image; take a --judge that does"
    assert line in capsys.readouterr().err
    assert not out.exists()
