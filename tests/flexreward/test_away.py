"""A run's folder that stands at an address: files are made here, sent there whole and found there again."""

from __future__ import annotations

import uuid
from pathlib import Path

import fsspec
import pytest

from flexreward.errors import OutputError
from flexreward.files.away import Place, away, is_address


@pytest.fixture(params=["memory", "file"])
def address(request, tmp_path) -> str:
    return f"memory://{uuid.uuid4().hex}/run" if request.param == "memory" else f"file://{tmp_path}/deep/run"


def text_at(address: str) -> str:
    with fsspec.open(address, "rt") as file:
        return file.read()


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_what_was_sent_is_found_by_the_next_run(address):
    with away(address) as place:
        assert place.folder.name == "run"
        place.send(write(place.folder, "parts/one", "1"))
        place.send(write(place.folder, "parts/two", "2"))
    assert not place.folder.exists()
    with away(address) as place:
        assert {path.name: path.read_text() for path in place.fetch_all("parts")} == {"one": "1", "two": "2"}
        write(place.folder, "all/of/them", "1 2")
        place.send_all()
        place.remove("parts")
    assert text_at(f"{address}/all/of/them") == "1 2"
    with away(address) as place:
        assert place.fetch_all("parts") == []
        place.remove("parts")
        place.fetch("all/of/them", "absent")
        assert [path.read_text() for path in place.folder.rglob("*") if path.is_file()] == ["1 2"]


def test_what_was_fetched_and_did_not_change_is_not_sent_again(address):
    with away(address) as place:
        place.send(write(place.folder, "large", "as it was"))
        place.send(write(place.folder, "small", "as it was"))
    with away(address) as place:
        place.fetch("large", "small")
        with fsspec.open(f"{address}/large", "wt") as file:
            file.write("touched by another")
        write(place.folder, "small", "new")
        place.send_all()
    assert text_at(f"{address}/large") == "touched by another"
    assert text_at(f"{address}/small") == "new"


def test_lines_and_errors_name_the_address_and_a_full_disk_the_folder_here(address):
    with away(address) as place:
        assert place.told(f"3 pairs kept: {place.folder}/train.jsonl") == f"3 pairs kept: {address}/train.jsonl"
    with pytest.raises(OutputError, match=f"^{address}/train.jsonl: is of another judge"), away(address) as place:
        raise OutputError(f"{place.folder}/train.jsonl: is of another judge")
    with pytest.raises(OutputError, match=r"flexreward-out-\S+/run/train.jsonl: no room"), away(address) as place:
        raise OutputError(f"{place.folder}/train.jsonl: no room") from OSError("no room")


def test_an_address_that_means_nothing_or_cannot_be_reached_is_one_line(tmp_path):
    with (
        pytest.raises(OutputError, match=r"nonsense://bucket/run: cannot be reached \(.*nonsense"),
        away("nonsense://bucket/run"),
    ):
        pass
    write(tmp_path, "file", "is no folder")
    with (
        pytest.raises(OutputError, match=r"/file/run: cannot be reached \(.*Not a directory"),
        away(f"file://{tmp_path}/file/run") as place,
    ):
        place.send(write(place.folder, "one", "1"))


def test_a_folder_here_is_what_it_is(tmp_path):
    place = Place(tmp_path)
    path = write(tmp_path, "parts/one", "1")
    place.send(path)
    place.send_all()
    place.remove("parts")
    assert path.read_text() == "1"
    assert place.told(f"{tmp_path}: x") == f"{tmp_path}: x"
    assert [is_address(out) for out in ("runs/pairs", "s3://bucket/run", "C:/runs", "./a://b")] == [
        False,
        True,
        False,
        False,
    ]
