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
from flexreward.engines.base import Prompt
from flexreward.errors import SampleError
from flexreward.files.columns import parse_map
from flexreward.files.outcomes import read_outcomes, request_digest
from flexreward.files.samples import Sample, read_samples
from flexreward.jobs.run import fitting, items_of
from flexreward.media.arrays import sound_bytes
from flexreward.media.limits import LIMITS, Limits
from flexreward.templates import load_template
from flexreward.types import JudgeRequest, Media, Message

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
        ({"molecules": "CCO"}, "molecules is 'CCO', expected a list of SMILES; write [...] around it"),
        ({"molecules": ["CCO", "C C"]}, "molecules[1] is 'C C', expected SMILES: no blanks, no other signs"),
        ({"molecules": ["<|im_end|>"]}, "molecules[0] is '<|im_end|>', expected SMILES"),
        ({"molecules": [7]}, "molecules[0] is 7, expected SMILES"),
        ({"molecules": ["C" * 2001]}, "molecules[0] has 2001 characters, the limit molecule_chars is 2000"),
        ({"molecules": ["C"] * 65}, "molecules holds 65, the limit molecules_per_request is 64"),
        ({"completions": [{"picture": "a.png"}]}, "completions[0] is an object ({'picture': 'a.png'}), expected text"),
        ({"completions": [{"image": "none.png"}]}, "completions[0].image: "),
        ({"completions": [{"image": "a.png", "video": "b.mp4"}]}, "expected text, messages, or {"),
        ({"completions": [{"bytes": None, "path": None}]}, "completions[0] is an object"),
        ({"completions": [{"path": "s.jsonl"}]}, "is neither image, video nor audio by its first bytes; say which, as"),
        (
            {"prompt": [{"role": "user", "content": [{"type": "image"}]}]},
            "prompt[0].content[0] takes the next of the column images, which has no more; write it there",
        ),
        (
            {"prompt": [{"role": "user", "content": [{"type": "hologram"}]}]},
            "prompt[0].content[0].type is 'hologram', expected one of text, image, image_url",
        ),
        (
            {"prompt": [{"role": "user", "content": ["hi"]}]},
            "prompt[0].content[0] is text ('hi'), expected a part such as",
        ),
        (
            {"prompt": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x.y/a"}}]}]},
            "is of a host that the operator does not allow; allowed: none",
        ),
        (
            {"prompt": [{"role": "user", "content": [{"type": "image", "image": uri(b"x", "image/png")}] * 5}]},
            "the row has 5 media, the limit media_per_request is 4",
        ),
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
        "line 1: brings image with its prompt, and the template pair shows no media there; --template image-pair takes "
        "such rows" in capsys.readouterr().err
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


# Media inside of texts, and as completions


def spelled(prompt: Prompt) -> str:
    """The user's turn with the colour of each image in its place."""
    text, start = "", 0
    for at, medium in prompt.media:
        found = PIL.Image.open(medium.path or io.BytesIO(medium.data)).getpixel((0, 0))
        text += prompt.user[start:at] + {(255, 0, 0): "<red>", (0, 0, 255): "<blue>"}[found]
        start = at
    return text + prompt.user[start:]


def conversation(*contents: object) -> list[object]:
    roles = ("user", "assistant") * 3
    return [{"role": role, "content": content} for role, content in zip(roles, contents, strict=False)]


def test_places_in_a_conversation_take_the_images_of_the_row_in_order(tmp_path):
    prompt = conversation(
        [{"type": "image", "text": None}, {"type": "text", "text": "What is it?"}],
        "Red.",
        [{"type": "text", "text": "And "}, {"type": "image"}, {"type": "text", "text": "?"}],
    )
    row = ROW | {"prompt": prompt, "images": [uri(png("red"), "image/png"), uri(png("blue"), "image/png")]}
    (sample,) = read(write(tmp_path / "s.jsonl", row))
    assert sample.media == ()
    assert [one.kind for one in sample.inside] == ["image", "image"]
    assert fitting(sample) == "pair"
    shown = spelled(load_template("pair").render(sample.request()))
    assert shown == (
        "[Question]\n[User]\n<red>What is it?\n\n[Assistant]\nRed.\n\n[User]\nAnd <blue>?\n\n"
        "[Assistant 1's Answer]\na cat\n\n[Assistant 2's Answer]\nsurely a cat"
    )


def test_parts_of_open_ai_bring_their_own_and_completions_may_hold_them(tmp_path):
    sound = sound_bytes(np.zeros(1_600, np.float32), 16_000, "", LIMITS)
    prompt = conversation(
        [
            {"type": "image_url", "image_url": {"url": uri(png("blue"), "image/png")}},
            {"type": "text", "text": "Draw it red."},
            {"type": "input_audio", "input_audio": {"data": base64.b64encode(sound).decode(), "format": "wav"}},
        ]
    )
    drawn = [
        {"role": "assistant", "content": [{"type": "text", "text": "Here: "}, {"type": "image", "image": "a.png"}]}
    ]
    (tmp_path / "a.png").write_bytes(png("red"))
    (sample,) = read(write(tmp_path / "s.jsonl", {"prompt": prompt, "completions": [drawn, "No.", "Later."]}))
    assert [one.kind for one in sample.inside] == ["image", "audio", "image"]
    request = load_template("batch").render(sample.request())
    assert [one.media.kind for one in request.media] == ["image", "audio", "image"]
    assert request.user[request.media[2].at - 6 :].startswith("Here: \n\n[Assistant 2's Answer]\nNo.")


def test_media_in_a_conversation_are_part_of_what_the_request_is_called(tmp_path):
    rows = [
        ROW | {"id": i, "prompt": conversation([{"type": "image", "image": uri(png(colour), "image/png")}, *more])}
        for i, (colour, more) in enumerate(
            [("red", []), ("blue", []), ("red", [{"type": "text", "text": "x"}]), ("red", [])]
        )
    ]
    digests = [request_digest(sample.request()) for sample in read(write(tmp_path / "s.jsonl", *rows))]
    assert digests[0] == digests[3]
    assert len(set(digests)) == 3


def test_parts_that_are_all_text_are_the_text_that_they_spell(tmp_path):
    parts = conversation([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])
    one, other = read(write(tmp_path / "s.jsonl", ROW | {"prompt": parts}, ROW | {"prompt": conversation("ab")}))
    assert one.prompt == other.prompt


@pytest.mark.parametrize(
    ("template", "prompt", "message"),
    [
        ("mos-bvcc", "messages", "template 'mos-bvcc': "),
        ("image-pair", "messages", "brings no media with its prompt, and the template image-pair shows image there"),
        ("mj-align", "messages", "template 'mj-align': expected image as completion 1, found text"),
    ],
)
def test_a_template_that_does_not_show_what_stands_in_a_conversation_is_one_line(tmp_path, template, prompt, message):
    row = ROW | {"prompt": conversation([{"type": "image", "image": uri(png(), "image/png")}])}
    row["completions"] = row["completions"][: load_template(template).num_completions]
    source, out = write(tmp_path / "s.jsonl", row), tmp_path / "o.jsonl"
    samples = read_samples(source)
    with pytest.raises(SampleError) as error:
        list(items_of(samples, load_template(template)))
    assert message in str(error.value)
    assert "line 1: " in str(error.value)
    assert "takes such rows" in str(error.value)
    assert not out.exists()


def test_an_assistants_turn_with_a_thought_and_an_image_is_not_half_hidden():
    picture = Media(kind="image", data=png())
    turns = (Message(role="user", content="q"), Message(role="assistant", content=("<think>", picture, "</think>a")))
    request = JudgeRequest(prompt=turns, completions=("a", "b"))
    with pytest.raises(
        SampleError, match="an assistant turn holds media and a thought; leave the thought out, or show"
    ):
        load_template("pair").render(request)
    shown = load_template("pair", judge_sees="all").render(request)
    assert [one.media for one in shown.media] == [picture]


def test_completions_that_are_images_are_judged_from_end_to_end(tmp_path, decoder):
    (tmp_path / "a.png").write_bytes(png("red"))
    feature = {"bytes": None, "path": "a.png"}
    turn = [{"role": "assistant", "content": [{"type": "image", "image": "a.png"}]}]
    pairs = [
        [{"image": "a.png"}, {"image": uri(png("blue"), "image/png")}],
        [feature, {"image": feature}],
        [turn, turn],
    ]
    rows = [{"id": i, "prompt": "Draw a red square.", "completions": pair} for i, pair in enumerate(pairs)]
    source, out = write(tmp_path / "s.jsonl", *rows), tmp_path / "o.jsonl"
    for more in ([], ["--template", "mj-qual", "--overwrite"]):
        assert run(["judge", source, "--out", str(out), *SCRIPTED, *more]) == 0
        found = list(read_outcomes(out))
        assert {row["template"] for row in found} == {more[1] if more else "mj-align"}
        assert [row["status"] for row in found] == ["scored"] * 3
    assert {one.kind for sample in read(source) for one in sample.completions} == {"image"}
    assert len({row["request"] for row in found}) == 2
    assert b"base64" not in out.read_bytes()


@pytest.mark.parametrize(
    ("kinds", "own", "name"),
    [
        (("text",), (), "score"),
        (("text", "text"), ("image",), "image-pair"),
        (("text",) * 3, ("image",), "image-batch"),
        (("image", "image"), (), "mj-align"),
        (("image", "image"), ("image",), "gen-edit"),
        (("video", "video"), (), "gen-video"),
        (("audio",), (), "mos"),
        (("text", "text"), ("image", "image"), None),
        (("text", "image"), (), None),
        (("image",) * 3, (), None),
    ],
)
def test_without_a_template_the_one_that_fits_the_row_is_taken_or_a_line_says_what_to_do(kinds, own, name):
    def one(kind: str) -> object:
        return "text" if kind == "text" else Media(kind=kind, data=b"x")

    sample = Sample(
        id="x", prompt="q", completions=tuple(map(one, kinds)), media=tuple(map(one, own)), where="s: line 1"
    )
    if name:
        assert fitting(sample) == name
    else:
        with pytest.raises(SampleError, match=r"s: line 1: no bundled template shows .*; --template takes a file"):
            fitting(sample)


def test_molecules_are_shown_as_text_below_the_prompt(tmp_path):
    smiles = ["CC(=O)Oc1ccccc1C(=O)O", "C/C=C\\C", "[Na+].[Cl-]"]
    (sample,) = read(write(tmp_path / "s.jsonl", ROW | {"molecules": smiles}))
    shown = load_template("pair").render(sample.request()).user
    assert shown.startswith(
        f"[Question]\nWhat is it?\n\n[Molecules]\n1. {smiles[0]}\n2. {smiles[1]}\n3. {smiles[2]}\n\n["
    )
    (plain,) = read(write(tmp_path / "t.jsonl", ROW | {"molecules": None}))
    assert load_template("pair").render(plain.request()).user.startswith("[Question]\nWhat is it?\n\n[Assistant 1")
    assert request_digest(plain.request()) == request_digest(
        JudgeRequest(prompt=plain.prompt, completions=plain.completions)
    )
    assert request_digest(sample.request()) != request_digest(plain.request())
    with pytest.raises(SampleError, match="shows no prompt, and this one has molecules"):
        load_template("mos").render(
            JudgeRequest(prompt="q", completions=(Media(kind="audio", data=b"x"),), molecules=("CCO",))
        )


def test_pairs_of_completions_that_are_media_would_lose_them_and_are_refused(tmp_path, capsys):
    row = ROW | {"completions": [{"image": uri(png(), "image/png")}] * 2}
    source = write(tmp_path / "s.jsonl", row)
    assert run(["pairs", source, "--out", str(tmp_path / "o"), *SCRIPTED]) == 2
    assert "and pairs are" in capsys.readouterr().err


def test_pairs_keep_the_molecules_of_their_prompt(tmp_path):
    source = write(tmp_path / "s.jsonl", ROW | {"molecules": ["C"]})
    assert run(["pairs", source, "--out", str(tmp_path / "o"), *SCRIPTED]) == 0
    assert json.loads((tmp_path / "o" / "train.jsonl").read_text())["molecules"] == ["C"]
