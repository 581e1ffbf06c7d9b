import io
import json

import pytest
from PIL import Image

from flexreward.errors import RecipeError
from flexreward.pairs.build import PACKED, TRAIN, template_for, train_file
from tests.flexreward.test_pairs import command, load, write
from tests.seeing import noise

LONG, SHORT = "A red square on white.", "A square."


def picture(path, *, seed: int = 0, size: int = 60):
    path.write_bytes(noise(size, size, seed=seed).data)
    return path.name


def pairs(tmp_path, *rows, code: int = 0, options=()):
    out = tmp_path / "pairs"
    told = ("--out", out, "--judge", "scripted:longer", "--no-store", *options)
    assert command("pairs", write(tmp_path / "s.jsonl", *rows), *told) == code
    return out


def texts(turns) -> list[list[str | None]]:
    return [[part["text"] if part["type"] == "text" else None for part in turn["content"]] for turn in turns]


def test_images_stand_in_the_file_with_a_place_for_each_in_the_prompt(tmp_path):
    names = [picture(tmp_path / f"{n}.png", seed=n, size=60 + n) for n in range(2)]
    rows = [
        {"id": f"q{n}", "prompt": "What is shown?", "completions": [SHORT, LONG], "images": [name], "topic": n}
        for n, name in enumerate(names)
    ]
    out = pairs(tmp_path, *rows)
    for name in names:
        (tmp_path / name).unlink()  # the folder holds them
    found = load(out)
    assert not (out / TRAIN).exists()
    assert train_file(out) == out / PACKED
    assert [row["images"][0].size for row in found] == [(60, 60), (61, 61)]
    first = found[0]
    assert [turn["role"] for turn in first["prompt"]] == ["user"]
    assert texts(first["prompt"]) == [[None, "What is shown?"]]
    assert texts(first["chosen"]) == [[LONG]]
    assert texts(first["rejected"]) == [[SHORT]]
    assert (first["id"], first["topic"], first["template"], len(first["judge"])) == ("q0#0-1", 0, "image-pair", 64)


def test_images_follow_their_places_through_a_conversation_and_rows_without_any_have_none(tmp_path):
    one, two = (picture(tmp_path / f"{n}.png", seed=n, size=60 + n) for n in range(2))
    see = {"type": "text", "text": "See"}
    turns = [
        {"role": "user", "content": [see, {"type": "image", "image": two}]},
        {"role": "assistant", "content": "Seen."},
        {"role": "user", "content": [{"type": "image", "image": one}, see]},
    ]
    rows = [
        {"prompt": "Hi", "completions": [LONG, SHORT], "note": None},
        {"prompt": turns, "completions": [LONG, SHORT], "note": "x"},
    ]
    plain, seen = load(pairs(tmp_path, *rows))
    assert plain["images"] == []
    assert texts(plain["prompt"]) == [["Hi"]]
    assert texts(seen["prompt"]) == [["See", None], ["Seen."], [None, "See"]]
    assert [image.size[0] for image in seen["images"]] == [61, 60]
    assert (plain["note"], seen["note"]) == (None, "x")


def test_pairs_of_one_prompt_share_the_bytes_of_its_image(tmp_path):
    name = picture(tmp_path / "a.png", size=300)
    row = {"prompt": "What?", "completions": ["x" * n for n in range(1, 7)], "images": [name]}
    out = pairs(tmp_path, row)
    assert len(load(out)) == 15
    assert (out / PACKED).stat().st_size < 2 * (tmp_path / "a.png").stat().st_size


def test_the_bytes_are_those_of_the_file(tmp_path):
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(buffer, "JPEG")
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue())
    out = pairs(tmp_path, {"prompt": "What?", "completions": [LONG, SHORT], "images": ["a.jpg"]})
    (row,) = pq.read_table(out / PACKED).to_pylist()
    assert row["images"] == [{"bytes": buffer.getvalue(), "path": None}]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"completions": [{"image": "a.png"}, {"image": "b.png"}]}, "line 1: brings image in a completion, and pairs"),
        ({"completions": [LONG, SHORT], "videos": ["a.png"]}, "line 1: brings video, and pairs are of texts"),
        ({"completions": [LONG, SHORT], "images": ["a.png", "b.png"]}, "no bundled template shows"),
        ({"completions": [LONG, SHORT], "image": "a.png"}, "the column 'image' has the name of one of ours"),
        ({"completions": [LONG, SHORT], "messages": []}, "the column 'messages' has the name of one of ours"),
        ({"completions": [LONG, SHORT], "label": True}, "the column 'label' has the name of one of ours"),
    ],
)
def test_what_pairs_cannot_hold_is_refused_in_one_line(tmp_path, capsys, row, complaint):
    for n, name in enumerate("ab"):
        picture(tmp_path / f"{name}.png", seed=n)
    pairs(tmp_path, {"prompt": "What?", **row}, code=2)
    (line,) = capsys.readouterr().err.splitlines()
    assert complaint in line


def test_a_row_whose_image_the_template_does_not_show_is_refused(tmp_path, capsys):
    name = picture(tmp_path / "a.png")
    row = {"prompt": "What?", "completions": [LONG, SHORT]}
    pairs(tmp_path, {**row, "images": [name]}, code=2, options=("--template", "pair"))
    assert "the template pair shows no media there; --template image-pair" in capsys.readouterr().err


def test_a_column_of_several_kinds_is_refused_by_its_kind(tmp_path, capsys):
    name = picture(tmp_path / "a.png")
    row = {"prompt": "What?", "completions": [LONG, SHORT], "images": [name]}
    out = pairs(tmp_path, {**row, "topic": "x"}, {**row, "topic": 3}, code=2)
    assert "holds values of different kinds" in capsys.readouterr().err
    assert not (out / PACKED).exists()
    assert json.loads((out / "pair_outcomes.jsonl").read_text().splitlines()[1])["status"] == "scored"


def test_texts_alone_are_judged_by_the_pair_template():
    assert template_for(None, None) == "pair"
    with pytest.raises(RecipeError, match="compares two completions"):
        template_for("score", None)
