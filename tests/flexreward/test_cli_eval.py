"""``flexreward eval`` from end to end: rows in a publisher's layout, a run folder out."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flexreward.cli import run
from flexreward.evals import BENCHMARKS
from flexreward.files.outcome_file import timings_path
from flexreward.files.outcomes import read_header, read_outcomes

NUM_ROWS = 24
SCRIPTED = ("--judge", "scripted:longer")


def call(*arguments) -> int:
    return run([str(argument) for argument in arguments])


def mistake(capsys, *arguments) -> str:
    """The one line that a user's mistake ends in."""
    capsys.readouterr()
    assert call(*arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("flexreward: ")]
    assert len(lines) == 1
    return lines[0]


def write_pandalm(folder: Path, num_rows: int = NUM_ROWS) -> Path:
    """Rows in PandaLM's layout: the longer response is the better one in two of three, every sixth is a tie."""
    folder.mkdir(exist_ok=True)
    rows = []
    for i in range(num_rows):
        vote = 0 if i % 6 == 5 else 1 if i % 3 else 2
        rows.append(
            {
                **{"idx": i, "motivation_app": "app", "cmp_key": "one_two", "instruction": f"Say {i}.", "input": ""},
                **{"response1": "a long answer " * (2 + i % 4), "response2": "short"},
                **dict.fromkeys(("annotator1", "annotator2", "annotator3"), vote),
            }
        )
    (folder / "testset-v1.json").write_text(json.dumps(rows))
    return folder


@pytest.fixture
def data(tmp_path) -> Path:
    return write_pandalm(tmp_path / "data")


def summary(out: Path) -> dict:
    return json.loads((out / "summary.json").read_bytes())


def evaluate(data: Path, out: Path, *options, judge=SCRIPTED, store=("--no-store",)) -> int:
    return call("eval", "pandalm", "--data", data, "--out", out, *judge, *store, *options)


def test_a_benchmark_becomes_a_run_folder(data, tmp_path, capsys):
    out = tmp_path / "run"
    assert evaluate(data, out, "--json") == 0
    shown = capsys.readouterr()
    told = json.loads(shown.out)
    found = summary(out)
    assert (found["rows"], found["expected_rows"], found["complete"]) == (NUM_ROWS, NUM_ROWS, True)
    assert found["headline"] == "accuracy"
    # The longer one wins always: right where the first is better, wrong on ties and where the second is.
    firsts = sum(i % 6 != 5 and i % 3 != 0 for i in range(NUM_ROWS))
    assert found["published"]["accuracy"] == pytest.approx(firsts / NUM_ROWS)
    assert found["strict"]["accuracy"]["value"] == pytest.approx(firsts / NUM_ROWS)
    assert found["strict"]["accuracy"]["low"] < firsts / NUM_ROWS < found["strict"]["accuracy"]["high"]
    assert found["parse_rate"] == 1
    assert found["protocol"] | {"published_uses": 0, "strict_uses": 0} == {
        **{"name": "strict", "orders": "both", "votes": 1, "waits": 0, "temperature": 0.0, "top_p": 1.0, "seed": 0},
        **{"published_uses": 0, "strict_uses": 0},
    }
    assert found["protocol"]["published_uses"] == "the order of the file"
    assert found["judge"] == read_header(out / "outcomes.jsonl")["judge"]
    assert {"testset-v1.json"} == set(found["data"]["files"])
    assert found["calibration"]["over"] == "margin"
    assert [point["votes"] for point in found["scaling"]["votes"]] == [1]
    assert told["published"] == found["published"]
    assert Path(told["page"]).is_file()
    assert len((out / "samples.jsonl").read_bytes().splitlines()) == NUM_ROWS
    assert "accuracy" in shown.err
    rows = list(read_outcomes(out / "outcomes.jsonl"))
    assert [row["id"] for row in rows] == [str(i) for i in range(NUM_ROWS)]
    assert rows[0]["human"] == [0.0, 1.0]
    assert rows[0]["systems"] == ["one", "two"]


def test_the_table_shows_both_protocols_and_their_difference(data, tmp_path, capsys):
    assert evaluate(data, tmp_path / "run") == 0
    out = capsys.readouterr().out
    assert "PandaLM test set (pandalm): 24 rows, judge scripted:longer, template pair-sp" in out
    note, header, first = out.splitlines()[1:4]
    assert note == "note: the data has 24 rows, and published figures are of 999"
    assert header.split()[:2] == ["published", "strict"]
    assert first.split()[0] == "accuracy"
    assert "+0.0000" in first
    assert "published: the order of the file; strict: every reply of this run" in out
    assert f"page: {tmp_path / 'run' / 'report.html'}" in out


def test_a_second_run_of_the_same_judge_buys_nothing(data, tmp_path, capsys):
    store = ("--store", tmp_path / "store.sqlite")
    assert evaluate(data, tmp_path / "one", "--json", store=store) == 0
    first = json.loads(capsys.readouterr().out)
    assert evaluate(data, tmp_path / "two", "--json", store=store) == 0
    second = json.loads(capsys.readouterr().out)
    assert (first["from_store"], second["from_store"]) == (0, NUM_ROWS)
    assert (tmp_path / "one" / "outcomes.jsonl").read_bytes() == (tmp_path / "two" / "outcomes.jsonl").read_bytes()
    assert summary(tmp_path / "two")["cost"]["seconds_per_judgment"] is None
    assert summary(tmp_path / "one")["cost"]["seconds_per_judgment"] > 0


def test_a_judge_whose_votes_stop_early_is_refused_before_anything_is_written(data, tmp_path, capsys):
    recipe = tmp_path / "stop.yaml"
    recipe.write_text("model: scripted:longer\nengine: scripted\nvotes: 3\naggregate: majority\nstop: lossless\n")
    assert evaluate(data, tmp_path / "run", judge=("--judge", recipe)) == 2
    assert "stop: an evaluation tells what each vote is worth" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_limit_and_orders_are_named_in_the_summary(data, tmp_path, capsys):
    out = tmp_path / "run"
    assert evaluate(data, out, "--limit", 8, "--orders", "given", "--seed", 3) == 0
    found = summary(out)
    assert (found["limit"], found["subset"], found["rows"], found["protocol"]["orders"]) == (8, None, 8, "given")
    assert "8 rows (the first 8 at most)" in capsys.readouterr().out
    assert {len(row["orders"]) for row in read_outcomes(out / "outcomes.jsonl")} == {1}
    # A higher limit goes on.
    assert evaluate(data, out, "--limit", 12, "--orders", "given", "--seed", 3) == 0
    assert summary(out)["rows"] == 12


def test_random_orders_follow_from_the_seed_and_the_row(data, tmp_path):
    def orders(name: str, *options) -> dict[str, list[int]]:
        assert evaluate(data, tmp_path / name, "--orders", "random", *options) == 0
        return {row["id"]: row["orders"][0]["order"] for row in read_outcomes(tmp_path / name / "outcomes.jsonl")}

    one, again, other = orders("a", "--seed", 1), orders("b", "--seed", 1), orders("c", "--seed", 2)
    assert one == again != other
    assert {tuple(order) for order in one.values()} == {(0, 1), (1, 0)}
    assert orders("d", "--seed", 1, "--limit", 5) == {name: one[name] for name in list(one)[:5]}
    assert summary(tmp_path / "a")["judge"]["order_seed"] == 1


def test_the_published_protocol_asks_as_the_source_did(data, tmp_path):
    assert evaluate(data, tmp_path / "run", "--protocol", "published") == 0
    found = summary(tmp_path / "run")
    assert (found["protocol"]["temperature"], found["protocol"]["top_p"], found["protocol"]["orders"]) == (
        0.6,
        0.95,
        "given",
    )
    assert found["protocol"]["published_uses"] == "every reply of this run"
    assert evaluate(data, tmp_path / "warm", "--protocol", "published", "--temperature", 1, "--votes", 3) == 0
    assert summary(tmp_path / "warm")["judge"]["sampling"]["n"] == 3


def test_replies_that_exist_are_read_without_a_model(data, tmp_path, capsys):
    replies, out = tmp_path / "replies.jsonl", tmp_path / "run"
    lines = [{"id": i, "reply": "1" if i % 2 else "2"} for i in range(NUM_ROWS)]
    replies.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert call("eval", "pandalm", "--data", data, "--replies", replies, "--out", out) == 0
    found = summary(out)
    right = sum((i % 2 == 1) == (i % 3 != 0) and i % 6 != 5 for i in range(NUM_ROWS))
    assert found["published"]["accuracy"] == pytest.approx(right / NUM_ROWS)
    assert (found["judge"]["engine"], found["judge"]["model"]) == ("replies", "replies.jsonl")
    assert (found["protocol"]["reader"], found["protocol"]["orders"]) == ("published", "given")
    # Read once more they end in the same bytes; another file is another judge.
    before = (out / "outcomes.jsonl").read_bytes()
    assert call("eval", "pandalm", "--data", data, "--replies", replies, "--out", out) == 0
    assert (out / "outcomes.jsonl").read_bytes() == before
    replies.write_text(replies.read_text().replace('"1"', '"Tie"'))
    assert "was written by another judge" in mistake(
        capsys, "eval", "pandalm", "--data", data, "--replies", replies, "--out", out
    )
    assert (out / "outcomes.jsonl").read_bytes() == before


def test_replies_to_some_rows_are_a_half_run(data, tmp_path, capsys):
    replies, out = tmp_path / "replies.jsonl", tmp_path / "run"
    replies.write_text("".join(json.dumps({"id": i, "reply": "1"}) + "\n" for i in range(NUM_ROWS - 2)))
    assert call("eval", "pandalm", "--data", data, "--replies", replies, "--out", out) == 1
    shown = capsys.readouterr()
    assert "2 of 24 rows lack replies" in shown.err
    assert "half-run, 22 of 24 rows: no score" in shown.out
    found = summary(out)
    assert (found["complete"], found["published"], found["strict"]) == (False, {}, {})
    # The rows that have replies are a part that can be told.
    assert call("eval", "pandalm", "--data", data, "--replies", replies, "--out", tmp_path / "part", "--limit", 22) == 0


def test_the_headline_is_told_with_unscored_rows_left_out_and_as_wrong(data, tmp_path, capsys):
    replies = tmp_path / "replies.jsonl"
    lines = [{"id": i, "reply": "I cannot say" if i < 6 else "1"} for i in range(NUM_ROWS)]
    replies.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert call("eval", "pandalm", "--data", data, "--replies", replies, "--out", tmp_path / "run") == 0
    right = sum(i % 6 != 5 and i % 3 != 0 for i in range(6, NUM_ROWS))
    told = f"strict accuracy {right / 18:.4f} without them, {right / 24:.4f} with them as wrong"
    assert f"6 of 24 rows unscored (25.0 %): {told}" in capsys.readouterr().out


def test_what_could_not_be_read_is_counted_and_can_fail_the_run(data, tmp_path, capsys):
    out = tmp_path / "run"
    assert evaluate(data, out, "--max-unscored", 0.1, judge=("--judge", "scripted:mute")) == 1
    found = summary(out)
    assert found["unscored"] == {"no_answer": NUM_ROWS}
    assert found["reply_reasons"] == {"no_answer": 2 * NUM_ROWS}
    assert (found["parse_rate"], found["complete"]) == (0, True)
    assert "24 of 24 have no score" in capsys.readouterr().out
    json.dumps(found, allow_nan=False)


def test_an_engine_that_fails_leaves_a_half_run(data, tmp_path, capsys):
    recipe = tmp_path / "judge.yaml"
    recipe.write_text("model: scripted:longer\nengine: scripted\ndeadline_s: 0.01\noptions: {delay_s: 0.5}\n")
    assert evaluate(data, tmp_path / "run", judge=("--judge", recipe)) == 1
    assert summary(tmp_path / "run")["complete"] is False
    assert "half-run, 24 of 24 rows: no score" in capsys.readouterr().out


def test_an_estimate_judges_a_few_and_writes_nothing(data, tmp_path, capsys):
    assert call("eval", "pandalm", "--data", data, *SCRIPTED, "--no-store", "--estimate") == 0
    assert "for 24 requests" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def slow_recipe(tmp_path: Path) -> Path:
    recipe = tmp_path / "slow.yaml"
    recipe.write_text(
        "model: scripted:longer\nengine: scripted\nmax_in_flight: 2\noptions: {delay_s: 0.05}\n", encoding="utf-8"
    )
    return recipe


def start(*arguments) -> subprocess.Popen:
    command = [sys.executable, "-m", "flexreward", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def stopped(out: Path, how: int, *arguments) -> tuple[int, str]:
    """Send the signal once a few rows are judged; the exit status and stderr."""
    process = start(*arguments)
    outcomes = out / "outcomes.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if outcomes.exists() and outcomes.read_bytes().count(b"\n") >= 5:
            break
        time.sleep(0.01)
    process.send_signal(how)
    _, err = process.communicate(timeout=60)
    return process.returncode, err


@pytest.mark.slow
def test_a_killed_run_says_half_run_and_goes_on_to_the_same_bytes(data, tmp_path):
    out, whole = tmp_path / "run", tmp_path / "whole"
    options = ("eval", "pandalm", "--data", data, "--judge", slow_recipe(tmp_path), "--store", tmp_path / "s.sqlite")
    stopped(out, signal.SIGKILL, *options, "--out", out)
    kept = len(list(read_outcomes(out / "outcomes.jsonl")))
    assert 0 < kept < NUM_ROWS
    found = summary(out)
    assert (found["complete"], found["published"], found["expected_rows"]) == (False, {}, NUM_ROWS)
    assert call(*options, "--out", out) == 0
    assert summary(out)["complete"] is True
    assert call(*options[:-2], "--no-store", "--out", whole) == 0
    for name in ("outcomes.jsonl", "samples.jsonl"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    one, other = summary(out), summary(whole)
    assert {name: one[name] for name in ("published", "strict", "bias")} == {
        name: other[name] for name in ("published", "strict", "bias")
    }


@pytest.mark.slow
def test_an_interrupted_run_keeps_its_rows_and_says_half_run(data, tmp_path):
    out = tmp_path / "run"
    options = ("eval", "pandalm", "--data", data, "--judge", slow_recipe(tmp_path), "--no-store", "--out", out)
    status, err = stopped(out, signal.SIGINT, *options)
    assert status == 130
    assert "run the same again to go on" in err
    found = summary(out)
    assert found["complete"] is False
    assert 0 < found["rows"] < NUM_ROWS


def test_list_names_every_benchmark(capsys):
    assert call("eval", "--list") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(BENCHMARKS)
    assert call("eval", "--list", "--json") == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out)["benchmarks"]] == list(BENCHMARKS)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ((), "which benchmark? flexreward eval --list names them"),
        (("pandlm", "--out", "x"), "unknown benchmark 'pandlm', did you mean pandalm?"),
        (("pandalm",), "--out DIR is missing"),
        (("pandalm", "--out", "x", "--data", "nowhere"), "--data nowhere: is not there, expected a folder; copy"),
        (("pandalm", "--out", "x", "--data", "{data}/testset-v1.json"), "is a file, expected a folder"),
        (("pandalm", "--out", "x", "--data", "{data}", "--subset", "hard"), "--subset hard: pandalm has no such group"),
        (("pandalm", "--out", "x", "--data", "{data}", "--reader", "published"), "--reader is for --replies"),
        (
            ("pandalm", "--out", "x", "--data", "{data}", "--replies", "nowhere.jsonl"),
            "--replies nowhere.jsonl: is not there",
        ),
        (
            ("pandalm", "--out", "x", "--data", "{data}", "--replies", "r", "--judge", "tiny"),
            "--judge and --replies exclude each other",
        ),
        (
            ("pandalm", "--out", "x", "--data", "{data}", "--replies", "r", "--calibrate"),
            "--calibrate and --replies exclude each other",
        ),
        (
            ("pandalm", "--out", "x", "--data", "{data}", "--template", "score"),
            "template 'score': expected 1 completion(s), found 2",
        ),
        (("pandalm", "--out", "x", "--data", "{data}", "--votes", "3"), "votes is 3 at temperature 0"),
        (("pandalm", "--out", "x", "--data", "{data}", "--orders", "best"), "'best' is not one of"),
        (("mj-bench", "--out", "x", "--data", "{data}"), "{data}: holds no"),
    ],
)
def test_every_mistake_is_one_line(data, tmp_path, capsys, monkeypatch, options, found):
    monkeypatch.chdir(tmp_path)
    filled = [option.format(data=data) for option in options]
    assert found.format(data=data) in mistake(capsys, "eval", *filled)
    assert not (tmp_path / "x" / "summary.json").exists()


def test_a_broken_row_names_its_line_and_leaves_no_run(data, tmp_path, capsys):
    (data / "testset-v1.json").write_text('[{"idx": 1}]')
    said = mistake(capsys, "eval", "pandalm", "--data", data, "--out", tmp_path / "run", *SCRIPTED)
    assert "testset-v1.json: line 1: no field 'annotator1'" in said
    assert not (tmp_path / "run" / "summary.json").exists()


def test_changed_data_another_judge_or_fewer_rows_are_refused_and_change_nothing(data, tmp_path, capsys):
    out = tmp_path / "run"
    assert evaluate(data, out) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    command = ("eval", "pandalm", "--data", data, "--out", out, "--no-store")
    assert "was written by another judge" in mistake(capsys, *command, "--judge", "scripted:first")
    assert "holds 24 judged rows, more than the 8 asked for" in mistake(capsys, *command, *SCRIPTED, "--limit", 8)
    assert "was written by another judge" in mistake(capsys, *command, *SCRIPTED, "--orders", "given")
    write_pandalm(data, NUM_ROWS + 1)
    assert "was begun on other data: testset-v1.json changed" in mistake(capsys, *command, *SCRIPTED)
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before
    assert evaluate(data, out, "--overwrite") == 0
    assert summary(out)["rows"] == NUM_ROWS + 1


def test_a_calibrator_is_fitted_saved_and_used_by_the_judge_that_it_was_fitted_for(data, tmp_path, capsys):
    write_pandalm(data, 60)
    out = tmp_path / "run"
    assert evaluate(data, out, "--calibrate") == 0
    assert f"calibrator: {out / 'calibrator.json'}" in capsys.readouterr().out
    found = summary(out)["calibration"]
    assert found["kind"] in found["tried"]
    assert found["after"]["brier"] == min(one["brier"] for one in found["tried"].values())
    recipe = tmp_path / "judge.yaml"
    recipe.write_text("model: scripted:longer\nengine: scripted\ncalibrator: run/calibrator.json\n")
    source = tmp_path / "samples.jsonl"
    source.write_text(json.dumps({"prompt": "2 + 2?", "completions": ["4", "five or so"]}) + "\n")
    judged = ("judge", source, "--judge", recipe, "--no-store")
    assert call(*judged, "--out", tmp_path / "o.jsonl", "--template", "pair-sp") == 0
    (row,) = read_outcomes(tmp_path / "o.jsonl")
    assert sum(row["rewards"]) == pytest.approx(1)
    assert row["rewards"][1] > row["rewards"][0]
    said = mistake(capsys, *judged, "--out", tmp_path / "p.jsonl", "--template", "pair")
    assert "fitted for the template pair-sp, not for pair" in said


def test_too_few_rows_to_calibrate_is_one_line_after_the_figures(data, tmp_path, capsys):
    said = mistake(
        capsys,
        *("eval", "pandalm", "--data", data, "--out", tmp_path / "run", *SCRIPTED, "--no-store"),
        *("--limit", 8, "--calibrate"),
    )
    assert "--calibrate: 8 scored rows are too few to fit a calibrator" in said
    assert summary(tmp_path / "run")["complete"] is True


def test_two_runs_are_compared(data, tmp_path, capsys):
    assert evaluate(data, tmp_path / "longer") == 0
    assert evaluate(data, tmp_path / "first", judge=("--judge", "scripted:first")) == 0
    capsys.readouterr()
    assert call("compare", tmp_path / "first", tmp_path / "longer", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    # A judge that always names slot 1 ends in ties, which are right on every sixth row.
    assert found["figures"]["accuracy"]["a"] == pytest.approx(4 / 24)
    assert found["figures"]["accuracy"]["b"] == pytest.approx(
        summary(tmp_path / "longer")["strict"]["accuracy"]["value"]
    )
    assert found["changed"]["model"] == ["scripted:first", "scripted:longer"]


def test_timings_stay_out_of_the_outcomes(data, tmp_path):
    assert evaluate(data, tmp_path / "run") == 0
    outcomes = tmp_path / "run" / "outcomes.jsonl"
    assert len(timings_path(outcomes).read_bytes().splitlines()) == NUM_ROWS
    assert b"seconds" not in outcomes.read_bytes()


def write_mllm(folder: Path, num_rows: int = 6) -> Path:
    """Pairs about images in MLLM-as-a-Judge's layout."""
    (folder / "Benchmark").mkdir(parents=True)
    (folder / "image").mkdir()
    lines = []
    for i in range(num_rows):
        (folder / "image" / f"{i}.jpg").write_bytes(b"\xff\xd8\xff" + bytes([i]))
        answers = {f"answer{n}": {"name": f"m{n}", "answer": "long " * (3 - n)} for n in (1, 2)}
        lines.append(
            {"id": i, "pair_id": i, "image_path": f"image/{i}.jpg", "original_dataset": ("coco", "math")[i % 2]}
            | {"instruction": "What is shown?", "human": "ABC"[i % 3], **answers}
        )
    (folder / "Benchmark" / "pair.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_rows_with_images_run_and_the_folder_keeps_what_was_shown(tmp_path, capsys):
    folder, out = write_mllm(tmp_path / "mllm"), tmp_path / "run"
    command = ("eval", "mllm-judge-pair", "--data", folder, "--out", out, *SCRIPTED, "--no-store")
    assert call(*command) == 0
    found = summary(out)
    assert found["strict"]["accuracy"]["value"] == pytest.approx(2 / 6)
    assert "accuracy/coco" in found["strict"]
    samples = [json.loads(line) for line in (out / "samples.jsonl").read_bytes().splitlines()]
    assert [(out / "media" / sample["images"][0]).read_bytes()[3] for sample in samples] == list(range(6))
    assert call(*command[:-3], "--judge", "scripted:longer", "--no-store", "--subset", "math", "--overwrite") == 0
    assert (summary(out)["subset"], summary(out)["rows"]) == ("math", 3)
    assert "3 rows (only math)" in capsys.readouterr().out


def test_a_missing_image_or_image_folder_is_one_line_before_anything_is_judged(tmp_path, capsys):
    folder, out = write_mllm(tmp_path / "mllm"), tmp_path / "run"
    command = ("eval", "mllm-judge-pair", "--data", folder, "--out", out, *SCRIPTED, "--no-store")
    (folder / "image" / "4.jpg").unlink()
    assert "image/4.jpg is missing; " in mistake(capsys, *command)
    for path in (folder / "image").iterdir():
        path.unlink()
    (folder / "image").rmdir()
    assert "has no folder image/" in mistake(capsys, *command)
    assert not out.exists() or not any(path.name.endswith(".json") for path in out.iterdir())


def test_a_judge_that_reads_no_images_is_refused_with_a_line_before_any_row_is_judged(tmp_path, checkpoint, capsys):
    folder, out = write_mllm(tmp_path / "mllm"), tmp_path / "run"
    command = ("eval", "mllm-judge-pair", "--data", folder, "--out", out, "--judge", checkpoint, "--no-store")
    line = mistake(capsys, *command)
    assert "reads text, and the template image-pair shows image; take a --judge that does" in line
    assert not (out / "outcomes.jsonl").exists()
    assert not (out / "summary.json").exists()


def test_images_are_brought_to_the_sources_size_only_where_the_source_is_followed(tmp_path):
    folder = write_mllm(tmp_path / "mllm")
    command = ("eval", "mllm-judge-pair", "--data", folder, *SCRIPTED, "--no-store")
    assert call(*command, "--out", tmp_path / "strict") == 0
    assert call(*command, "--out", tmp_path / "as-published", "--protocol", "published") == 0
    strict, published = summary(tmp_path / "strict"), summary(tmp_path / "as-published")
    assert "image_size" not in strict["protocol"]
    assert published["protocol"]["image_size"] == [448, 448]
    told = "its source shows images at 448 x 448 pixels, this run as they are"
    assert told in strict["protocol"]["published_uses"]
    assert "images" not in published["protocol"]["published_uses"]
    assert any("brought to 448 x 448 pixels" in quirk for quirk in strict["quirks"])
    requests = [{row["request"] for row in read_outcomes(tmp_path / name / "outcomes.jsonl")} for name in
                ("strict", "as-published")]  # fmt: skip
    assert len(requests[0] | requests[1]) == 12


def test_real_pairs_of_images_are_judged_by_an_engine_that_sees(tmp_path):
    data = Path(__file__).parents[2].parent / "shared" / "data" / "mj_bench"
    if not data.exists():
        pytest.skip("shared/data/mj_bench is not there")
    folder, out = tmp_path / "mj", tmp_path / "run"
    folder.mkdir()
    (folder / "images").symlink_to(data / "images")
    rows = json.loads((data / "quality_human_captions.json").read_bytes())
    there = [row for row in rows if (data / "images" / row["image_0"]).is_file()]
    (folder / "quality_human_captions.json").write_text(json.dumps(there))
    command = ("eval", "mj-bench-quality", "--data", folder, "--out", out, "--protocol", "published")
    assert call(*command, "--judge", "scripted:first", "--no-store") == 0
    found = summary(out)
    assert (found["rows"], found["protocol"]["orders"], found["protocol"]["image_size"]) == (10, "both", [336, 336])
    assert found["published"]["accuracy"] == 0.5
    assert len(list((out / "media").iterdir())) == 20


def test_ratings_run_too(tmp_path):
    folder, out = tmp_path / "bvcc", tmp_path / "run"
    sets, wavs = folder / "DATA" / "sets", folder / "DATA" / "wav"
    sets.mkdir(parents=True)
    wavs.mkdir()
    names = [f"sys{i % 4:05x}-utt{i:07x}.wav" for i in range(24)]
    (sets / "test_mos_list.txt").write_text("".join(f"{name},{1 + i % 5}.0\n" for i, name in enumerate(names)))
    for name in names:
        (wavs / name).write_bytes(b"RIFF....WAVE" + name.encode())
    recipe = tmp_path / "judge.yaml"
    recipe.write_text("model: scripted:longer\nengine: scripted\n")
    assert call("eval", "bvcc", "--data", folder, "--out", out, "--judge", recipe, "--no-store") == 0
    found = summary(out)
    assert (found["task"], found["protocol"]["orders"], found["rows"]) == ("rating", "given", 24)
    assert found["strict"]["pearson"]["value"] is None  # one score for all: no correlation, and no NaN in the file
    assert found["calibration"]["over"] == "score"
    assert found["strict"]["mse"]["value"] > 0
