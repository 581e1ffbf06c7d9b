"""Media of a row: small ones in the page, others by a path that cannot leave the run folder."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from flexreward.report.evals.media import SMALL_BYTES, media_of
from flexreward.report.evals.verdict import question


def put(folder: Path, name: str, data: bytes) -> None:
    (folder / "media").mkdir(exist_ok=True)
    (folder / "media" / name).write_bytes(data)


def test_a_small_picture_goes_into_the_page_and_a_large_one_stays_beside_it(tmp_path: Path):
    put(tmp_path, "small.png", b"small")
    put(tmp_path, "large one.jpg", b"x" * (SMALL_BYTES + 1))
    row = {"images": ["small.png", "large one.jpg"], "videos": None}
    small, large = media_of(row, tmp_path, inline=True)
    assert small["src"] == "data:image/png;base64," + base64.b64encode(b"small").decode()
    assert large == {"kind": "image", "name": "large one.jpg", "src": "media/large%20one.jpg"}
    assert media_of(row, tmp_path, inline=False)[0]["src"] == "media/small.png"
    assert media_of(row, tmp_path, inline=False, prefix="../a/")[0]["src"] == "../a/media/small.png"


def test_a_name_that_leaves_the_folder_or_is_of_another_kind_is_told_and_not_loaded(tmp_path: Path):
    put(tmp_path, "a.mp4", b"film")
    put(tmp_path, "page.html", b"<script>")
    (tmp_path / "secret.png").write_bytes(b"secret")
    names = ["../secret.png", str(tmp_path / "secret.png"), "a.mp4", "page.html", "gone.png", "..\\secret.png"]
    assert [one.get("src") for one in media_of({"images": names}, tmp_path, inline=True)] == [None] * len(names)
    [film] = media_of({"videos": ["a.mp4"]}, tmp_path, inline=False)
    assert film["src"] == "media/a.mp4"


def test_media_that_are_completions_stand_with_them_and_a_source_picture_with_the_prompt(tmp_path: Path):
    for name in ("source.png", "left.png", "right.png"):
        put(tmp_path, name, b"x")
    line: dict[str, Any] = {"human": [1, 0], "group": "g", "systems": ["one"]}
    sample = {"prompt": "make it blue", "completions": [None, None], "images": ["source.png", "left.png", "right.png"]}
    found = question(line, sample, tmp_path, inline=False)
    assert [one["name"] for one in found["media"]] == ["source.png"]
    assert [[one["name"] for one in c["media"]] for c in found["completions"]] == [["left.png"], ["right.png"]]
    assert [c["text"] for c in found["completions"]] == [None, None]
    assert [c["best"] for c in found["completions"]] == [True, False]
    texts = question(line, sample | {"completions": ["a", "b"]}, tmp_path, inline=False)
    assert len(texts["media"]) == 3
    assert question(line, None, tmp_path, inline=False)["prompt"] is None
