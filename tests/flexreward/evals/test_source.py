"""A publisher's folder: files by name, rows that stream, media in two layouts, and one line for each mistake."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from flexreward.errors import OutputError, SampleError
from flexreward.evals.base import Source
from flexreward.evals.source import Folder, open_folder, refuse_changed

REMEDY = "copy it from https://example.org/data"


@pytest.fixture
def folder(tmp_path):
    return Folder(path=tmp_path, source=Source(files=("*.jsonl", "labels.csv", "image/*"), remedy=REMEDY))


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_is_found_by_any_of_its_names_at_the_top_or_below(folder, tmp_path):
    below = write(tmp_path / "Dataset" / "data" / "test.jsonl", "{}")
    assert folder.file("other.jsonl", "test.jsonl") == below
    assert folder.file("data/test.jsonl") == below
    top = write(tmp_path / "test.jsonl", "{}")
    assert folder.file("test.jsonl") == top
    assert folder.find("nothing.*") == []
    assert folder.files("**/test.jsonl") == sorted([below, top])
    with pytest.raises(SampleError, match=r"expected one \*\*/test.jsonl, found 2 \(Dataset/data/test.jsonl, test.jso"):
        folder.file("**/test.jsonl")


def test_a_missing_file_is_one_line_with_folder_names_and_address(folder, tmp_path):
    with pytest.raises(SampleError) as error:
        next(folder.rows("a.jsonl", "b.parquet"))
    assert str(error.value) == f"{tmp_path}: holds no a.jsonl or b.parquet; {REMEDY}"


def test_rows_come_from_json_lines_arrays_parquet_and_lists_alike(folder, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    expected = [{"wav": "a.wav", "score": "3.0"}, {"wav": "b.wav", "score": "4.5"}]
    write(tmp_path / "l.jsonl", "".join(json.dumps(row) + "\n" for row in expected))
    write(tmp_path / "a.json", json.dumps(expected))
    pq.write_table(pa.Table.from_pylist(expected), tmp_path / "p.parquet")
    write(tmp_path / "h.csv", "\ufeffwav,score\na.wav,3.0\n\nb.wav,4.5\n")
    write(tmp_path / "t.tsv", "wav\tscore\na.wav\t3.0\nb.wav\t4.5\n")
    for name in ("l.jsonl", "a.json", "p.parquet", "h.csv", "t.tsv"):
        rows = list(folder.rows(name))
        assert [row.fields for row in rows] == expected, name
        assert [row.number for row in rows] == [1, 2], name
    write(tmp_path / "b.txt", "a.wav,3.0,x\nb.wav,4.5,y\n")
    assert [row.fields for row in folder.rows("b.txt", columns=("wav", "score"))] == expected


def test_a_pattern_reads_all_files_that_match_in_their_order(folder, tmp_path):
    for name in ("b", "a"):
        write(tmp_path / f"part-{name}.jsonl", json.dumps({"id": name}))
    assert [row.fields["id"] for row in folder.rows("part-*.jsonl")] == ["a", "b"]


def test_a_short_line_of_a_list_names_the_fields_that_it_lacks(folder, tmp_path):
    write(tmp_path / "test.txt", "a.wav,3.0\nb.wav\n")
    rows = folder.rows("test.txt", columns=("wav", "score"))
    assert next(rows).fields["score"] == "3.0"
    with pytest.raises(
        SampleError, match=r"test.txt: line 2: expected 2 fields \(wav, score\), found 1; copy the file"
    ):
        next(rows)


def test_a_list_that_is_not_utf8_is_one_line(folder, tmp_path):
    (tmp_path / "x.csv").write_bytes(b"wav,score\n\xff\xfe,1\n")
    with pytest.raises(SampleError, match=r"x.csv: cannot be read as a list"):
        list(folder.rows("x.csv"))


def test_rows_stream(folder, tmp_path):
    write(tmp_path / "big.jsonl", '{"id": 1}\nthis is no JSON\n')
    rows = folder.rows("big.jsonl")
    assert next(rows).fields == {"id": 1}  # before the broken line is looked at
    with pytest.raises(SampleError, match=r"line 2: broken JSON"):
        next(rows)


@pytest.mark.parametrize("name", ["image/201.jpg", "201.jpg", "old/images/201.jpg"])
def test_media_are_found_by_either_style_of_path(folder, tmp_path, name):
    image = write(tmp_path / "image" / "201.jpg", "")
    assert folder.media(name) == image


def test_media_below_a_subfolder_win_over_another_of_the_same_name(folder, tmp_path):
    write(tmp_path / "image" / "1.jpg", "")
    nested = write(tmp_path / "image" / "b" / "1.jpg", "")
    assert folder.media("b/1.jpg") == nested


def test_a_missing_image_folder_a_missing_image_and_a_way_out_of_the_folder_are_one_line_each(folder, tmp_path):
    with pytest.raises(SampleError) as error:
        folder.media("image/201.jpg")
    assert str(error.value) == f"{tmp_path}: has no folder image/ or images/ with 201.jpg; {REMEDY}"
    (tmp_path / "image").mkdir()
    with pytest.raises(SampleError) as error:
        folder.media("image/201.jpg")
    assert str(error.value) == f"{tmp_path}: image/201.jpg is missing; {REMEDY}"
    write(tmp_path.parent / "secret.txt", "")
    for name in ("../secret.txt", str(tmp_path.parent / "secret.txt")):
        with pytest.raises(SampleError, match="leaves the folder; only files inside of it are read"):
            folder.media(name)


def test_the_identity_is_of_the_label_files_and_leaves_media_out(folder, tmp_path):
    write(tmp_path / "a.jsonl", "{}")
    write(tmp_path / "image" / "1.jpg", "x")
    write(tmp_path / "notes.md", "not named by the source")
    before = folder.identity()
    assert list(before["files"]) == ["a.jsonl"]
    assert before["files"]["a.jsonl"] == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    write(tmp_path / "image" / "1.jpg", "y")
    write(tmp_path / "notes.md", "changed")
    assert folder.identity() == before
    refuse_changed(tmp_path, before, folder.identity())


@pytest.mark.parametrize(("was", "now", "message"), [
    ({"revision": "a" * 40, "files": {}}, {"revision": "b" * 40, "files": {}},
     "was begun on revision aaaaaaaaaaaa, the data is now bbbbbbbbbbbb"),
    ({"revision": "a" * 40, "files": {}}, {"revision": None, "files": {}}, "the data is now a local folder"),
    ({"revision": None, "files": {"x": "1"}}, {"revision": None, "files": {"x": "2"}}, "other data: x changed"),
    ({"revision": None, "files": {"x": "1"}}, {"revision": None, "files": {}}, "other data: x is gone"),
    ({"revision": None, "files": {}}, {"revision": None, "files": {"x": "1"}}, "other data: x is new"),
])  # fmt: skip
def test_changed_data_is_refused_in_one_line(tmp_path, was, now, message):
    with pytest.raises(OutputError) as error:
        refuse_changed(tmp_path, was, now)
    assert message in str(error.value)
    remedy = f"take --revision {was['revision']}" if was["revision"] != now["revision"] else "take the old data"
    assert str(error.value).endswith(f"; {remedy}, another --out, or --overwrite")
    assert "\n" not in str(error.value)


def test_data_that_is_no_folder_and_data_that_is_on_no_hub_say_what_to_name(tmp_path):
    source = Source(files=("a.json",), remedy=REMEDY)
    with pytest.raises(SampleError, match=r"--data .*gone: is not there, expected a folder; copy it from"):
        open_folder(source, tmp_path / "gone")
    with pytest.raises(SampleError, match=r"is a file, expected a folder"):
        open_folder(source, write(tmp_path / "a.json", "[]"))
    with pytest.raises(SampleError, match=r"on no hub; name its folder with --data DIR \(copy it from"):
        open_folder(source)
    assert open_folder(source, tmp_path).path == tmp_path


HUB = Source(files=("data/*.parquet",), hub="someone/judged", revision="c" * 40)


def test_a_snapshot_takes_the_pinned_revision_and_only_the_files_that_are_named(tmp_path, monkeypatch):
    import huggingface_hub

    asked = {}

    def snapshot_download(repo, **options):
        asked.update(options, repo=repo)
        return str(tmp_path / "snapshots" / options["revision"])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    folder = open_folder(HUB)
    assert folder.revision == "c" * 40
    assert asked == {
        "repo": "someone/judged", "repo_type": "dataset", "revision": "c" * 40, "allow_patterns": ["data/*.parquet"],
    }  # fmt: skip
    assert open_folder(HUB, revision="d" * 40).revision == asked["revision"] == "d" * 40
    with pytest.raises(SampleError, match=r"a folder has no --revision; leave one of them out"):
        open_folder(HUB, tmp_path, revision="d" * 40)


def hub_errors():
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    def http(kind):
        return kind("no\nmore", response=SimpleNamespace(headers={}, status_code=403, request=None))

    return [
        (
            http(GatedRepoError),
            "its licence must be accepted first: click it on https://huggingface.co/datasets/someone",
        ),
        (http(RepositoryNotFoundError), "log in with HF_TOKEN"),
        (http(RevisionNotFoundError), "the hub has no such revision any more; --data DIR takes a copy of it"),
        (LocalEntryNotFoundError("no net\nand more"), r"(no net); connect and unset HF_HUB_OFFLINE, or --data DIR"),
        (OfflineModeIsEnabled("offline"), "unset HF_HUB_OFFLINE, or --data DIR"),
        (ConnectionError("unreachable"), "cannot be had from the hub (unreachable)"),
        (HfHubHTTPError.__bases__[0](""), "cannot be had from the hub (HTTPError)"),
    ]


@pytest.mark.parametrize("which", range(7))
def test_whatever_the_hub_refuses_is_one_line_that_says_what_to_do(monkeypatch, which):
    import huggingface_hub

    raised, message = hub_errors()[which]

    def snapshot_download(repo, **options):
        raise raised

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(SampleError) as error:
        open_folder(HUB)
    assert str(error.value).startswith("someone/judged@cccccccccccc: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_without_a_network_and_a_cache_the_hub_is_one_line(tmp_path):
    import subprocess
    import sys

    program = "from flexreward.evals.source import *; from flexreward.evals.base import Source\n"
    program += "try: open_folder(Source(files=('a',), hub='someone/judged'))\n"
    program += "except SampleError as error: print(error)"
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": ""}
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert found.stdout.startswith("someone/judged: cannot be had from the hub (")
    assert found.stdout.endswith("connect and unset HF_HUB_OFFLINE, or --data DIR\n")
    assert found.stdout.count("\n") == 1
