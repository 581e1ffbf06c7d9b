"""Benchmarks of images and speech, run by models that see and hear: weights at random, the road real."""

import json
from pathlib import Path

import pytest

from flexreward.cli import run
from flexreward.evals import load_benchmark
from flexreward.evals.run import Selection
from flexreward.evals.source import open_folder
from flexreward.files.outcomes import read_outcomes
from flexreward.media.decoder import shared_decoder
from tests.seeing import tiny_omni, tiny_vl


def recipe(folder: Path, model: Path, more: str = "") -> str:
    path = folder / "judge.yaml"
    path.write_text(f"model: {model}\nthink: 4\ndtype: float32\n{more}")
    return str(path)


def mj_bench(data: Path, folder: Path, num_rows: int) -> Path:
    """The first rows of the real set whose images are there."""
    folder.mkdir()
    (folder / "images").symlink_to(data / "images")
    rows = json.loads((data / "quality_human_captions.json").read_bytes())
    there = [row for row in rows if (data / "images" / row["image_0"]).is_file()]
    (folder / "quality_human_captions.json").write_text(json.dumps(there[:num_rows]))
    return folder


@pytest.mark.slow
def test_real_pairs_of_images_are_judged_by_a_model_that_sees(tmp_path, shared_data):
    folder = mj_bench(shared_data / "mj_bench", tmp_path / "mj", 2)
    judge = recipe(tmp_path, tiny_vl(tmp_path / "vl"), f"options: {{max_pixels: {448 * 448}}}\n")
    tokens = {}
    for protocol in ("published", "strict"):
        out = tmp_path / protocol
        command = ["eval", "mj-bench-quality", "--data", str(folder), "--out", str(out), "--protocol", protocol]
        assert run([*command, "--judge", judge, "--no-store"]) == 0
        rows = list(read_outcomes(out / "outcomes.jsonl"))
        assert [row["status"] for row in rows] == ["scored"] * 2
        assert {len(row["orders"]) for row in rows} == {2}
        tokens[protocol] = [row["tokens"]["prompt"] for row in rows]
    # An image at 336 x 336 is 144 rows of the model's input, one of 1024 x 1024 pixels 256 at 448 x 448.
    pairs = zip(tokens["strict"], tokens["published"], strict=True)
    assert [strict - published for strict, published in pairs] == [2 * 2 * (256 - 144)] * 2


def test_the_images_of_a_published_run_have_the_size_of_the_source(tmp_path, shared_data):
    folder = mj_bench(shared_data / "mj_bench", tmp_path / "mj", 2)
    benchmark = load_benchmark("mj-bench-quality")
    selection = Selection(
        benchmark=benchmark, folder=open_folder(benchmark.source, folder), image_size=benchmark.drawn.image_size
    )
    images = [image for row in selection.rows() for image in row.request.completions]
    assert {image.size for image in shared_decoder().decode_all(images)} == {(336, 336)}


@pytest.mark.slow
def test_real_speech_is_rated_by_a_model_that_hears(tmp_path, shared_data):
    clips = sorted((shared_data / "speech_p835" / "wav").glob("*_f1.wav"))[:3]
    rows = [{"prompt": "Say it.", "completions": [{"audio": str(clip)}]} for clip in clips]
    (tmp_path / "s.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out, judge = tmp_path / "o.jsonl", recipe(tmp_path, tiny_omni(tmp_path / "omni"))
    assert run(["judge", str(tmp_path / "s.jsonl"), "--out", str(out), "--judge", judge, "--no-store"]) == 0
    found = list(read_outcomes(out))
    assert {row["template"] for row in found} == {"mos"}
    assert [row["status"] for row in found] == ["scored"] * 3
