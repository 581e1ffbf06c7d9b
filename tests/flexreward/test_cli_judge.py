import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest

from flexreward.cli import run
from flexreward.files.outcomes import read_outcomes

ROW = {"prompt": "2 + 2?", "completions": ["4", "five or so"]}
LONGER = ("--judge", "scripted:longer", "--no-store")


def write(path, *rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def call(*arguments) -> int:
    return run([str(argument) for argument in arguments])


def mistake(capsys, *arguments) -> str:
    """The one line that a user's mistake ends in."""
    assert call(*arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("flexreward: ")]
    assert len(lines) == 1
    return lines[0]


def test_samples_become_outcomes_and_a_summary(tmp_path, capsys):
    source = write(tmp_path / "s.jsonl", *[ROW | {"id": i, "topic": "sums"} for i in range(5)])
    assert call("judge", source, "--out", tmp_path / "o.jsonl", *LONGER) == 0
    rows = list(read_outcomes(tmp_path / "o.jsonl"))
    assert [row["preferred"] for row in rows] == [1] * 5
    assert rows[0]["topic"] == "sums"
    shown = capsys.readouterr()
    assert "5 judged (5 now, 0 from the store), 5 scored, 0 tied, 100.0 % of the replies read" in shown.out
    assert "5 of 5 (100 %)" in shown.err


def test_json_is_one_line_on_stdout(tmp_path, capsys):
    source = write(tmp_path / "s.jsonl", *[ROW] * 3)
    options = ("--judge", "scripted:mute", "--no-store", "--json", "--max-unscored", "0.5")
    assert call("judge", source, "--out", tmp_path / "o.jsonl", *options) == 1
    shown = capsys.readouterr()
    assert shown.out.count("\n") == 1
    found = json.loads(shown.out)
    assert (found["rows"], found["scored"], found["unscored"], found["parse_rate"]) == (3, 0, {"no_answer": 3}, 0.0)
    assert found["template"] == "pair"
    assert "3 of 3 have no score:" in shown.err
    assert "no_answer: the judge wrote no <answer>" in shown.err
    assert "100.0 % unscored, more than --max-unscored allows" in shown.err


@pytest.mark.parametrize(("count", "template"), [(1, "score"), (2, "pair"), (3, "batch")])
def test_the_template_follows_the_number_of_completions(tmp_path, capsys, count, template):
    source = write(tmp_path / "s.jsonl", {"prompt": "x", "completions": ["a" * (i + 1) for i in range(count)]})
    assert call("judge", source, "--out", tmp_path / "o.jsonl", *LONGER, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["template"], found["scored"]) == (template, 1)


def test_votes_orders_and_seed_reach_the_judge(tmp_path):
    source = write(tmp_path / "s.jsonl", ROW)
    options = ("--votes", 3, "--one-order", "--seed", 5, "--temperature", 0.5)
    assert call("judge", source, "--out", tmp_path / "o.jsonl", *LONGER, *options) == 0
    (row,) = read_outcomes(tmp_path / "o.jsonl")
    assert len(row["orders"]) == 1
    assert len(row["orders"][0]["votes"]) == 3


def test_line_17_is_broken_and_what_stands_before_it_is_kept(tmp_path, capsys):
    good = [ROW | {"id": i} for i in range(20)]
    source = write(tmp_path / "s.jsonl", *good[:16], '{"prompt": "x", ', *good[16:])
    line = mistake(capsys, "judge", source, "--out", tmp_path / "o.jsonl", *LONGER)
    assert f"{source}: line 17: broken JSON" in line
    assert "run again" in line
    assert len(list(read_outcomes(tmp_path / "o.jsonl"))) == 16
    write(tmp_path / "s.jsonl", *good)
    assert call("judge", source, "--out", tmp_path / "o.jsonl", *LONGER) == 0
    assert "4 now" in capsys.readouterr().out
    assert [row["id"] for row in read_outcomes(tmp_path / "o.jsonl")] == [str(i) for i in range(20)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "x", "completions": ["a", "b"]}, "line 1: no column 'prompt'; the row has question, completions"),
        ({"prompt": 3, "completions": ["a", "b"]}, "line 1: prompt is a number (3), expected text"),
        ('{"prompt": "x", "completions": ["a", "b"], "w": NaN}', "line 1: NaN is no JSON number"),
        (ROW | {"scores": [1, 2]}, "line 1: the column 'scores' has the name of one of ours in the output; rename it"),
        (ROW | {"images": ["a.png"]}, "line 1: images[0]: "),
    ],
)
def test_a_bad_first_row_is_one_line_before_any_judge_is_opened(tmp_path, capsys, row, message):
    source = write(tmp_path / "s.jsonl", row)
    assert message in mistake(
        capsys, "judge", source, "--out", tmp_path / "o.jsonl", "--judge", "org/none", "--no-store"
    )
    assert not (tmp_path / "o.jsonl").exists()


def test_an_output_of_another_judge_is_not_appended_to(tmp_path, capsys):
    source, out = write(tmp_path / "s.jsonl", ROW), tmp_path / "o.jsonl"
    assert call("judge", source, "--out", out, *LONGER) == 0
    before = out.read_bytes()
    line = mistake(capsys, "judge", source, "--out", out, "--judge", "scripted:first", "--no-store")
    assert "another judge (scripted:longer" in line
    assert "give another --out, or --overwrite" in line
    assert "stays untouched" in mistake(capsys, "judge", source, "--out", source, *LONGER)
    assert out.read_bytes() == before
    assert call("judge", source, "--out", out, "--judge", "scripted:first", "--no-store", "--overwrite") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--judge", "tinny"), "did you mean 'tiny'?"),
        (("--judge", "scripted:longer", "--template", "pairr"), "pairr"),
        (("--judge", "scripted:longer", "--shard", "0/2"), "expected i/n"),
        (("--judge", "scripted:longer", "--map", "prompt={x.__class__}"), "not the plain name of a column"),
        (("--judge", "scripted:longer", "--limit", "0"), "--limit"),
        (("--judge", "scripted:longer", "--store", "s", "--no-store"), "exclude each other"),
        (("--no-such-flag",), "No such option: --no-such-flag"),
        (("--judge", "scripted:longer", "--votes", "0"), "votes: Input should be greater than or equal to 1, found 0"),
    ],
)
def test_a_flag_that_is_wrong_is_one_line(tmp_path, capsys, arguments, message):
    source = write(tmp_path / "s.jsonl", ROW)
    assert message in mistake(capsys, "judge", source, "--out", tmp_path / "o.jsonl", *arguments)


def test_a_message_that_quotes_a_file_cannot_act_on_the_terminal(tmp_path, capsys):
    line = mistake(capsys, "judge", tmp_path / "a\x1b[31m\nb.jsonl", "--out", tmp_path / "o.jsonl", *LONGER)
    assert "\x1b" not in line


@pytest.mark.parametrize("command", ["judge", "best-of-n"])
def test_an_address_to_write_to_is_refused_before_anything_is_judged(command, tmp_path, capsys):
    assert call(command, tmp_path / "none.jsonl", "--out", "s3://bucket/o.jsonl") == 2
    assert (
        capsys.readouterr().err
        == "flexreward: --out s3:/bucket/o.jsonl: is an address; give a path here, and copy it there\n"
    )


def test_an_estimate_judges_a_few_rows_and_writes_no_outcomes(tmp_path, capsys):
    source = write(tmp_path / "s.jsonl", *[ROW | {"prompt": f"{i}?"} for i in range(100)])
    store = ("--judge", "scripted:longer", "--store", tmp_path / "store.sqlite")
    assert call("judge", source, "--out", tmp_path / "o.jsonl", *store, "--estimate", "--json") == 0
    found = json.loads(capsys.readouterr().out)["estimate"]
    assert (found["measured"], found["requests"]) == (32, 100)
    assert found["seconds"] > 0
    assert not (tmp_path / "o.jsonl").exists()
    assert call("judge", source, "--out", tmp_path / "o.jsonl", *store) == 0
    assert "32 from the store" in capsys.readouterr().out  # what the estimate bought is not bought again
    assert call("judge", source, "--out", tmp_path / "o.jsonl", *store, "--estimate") == 0
    assert "time unknown (all measured rows came from the store)" in capsys.readouterr().out


def test_shards_together_are_the_whole(tmp_path):
    source = write(tmp_path / "s.jsonl", *[ROW] * 7)
    ids = []
    for i in (1, 2):
        assert call("judge", source, "--out", tmp_path / f"{i}.jsonl", "--shard", f"{i}/2", *LONGER) == 0
        ids += [row["id"] for row in read_outcomes(tmp_path / f"{i}.jsonl")]
    assert sorted(ids) == [f"row-{i:06d}" for i in range(1, 8)]


SLOW = "model: scripted:longer\nengine: scripted\nmax_in_flight: 4\noptions: {delay_s: 0.01}\n"


def started(tmp_path, *arguments):
    (tmp_path / "slow.yaml").write_text(SLOW)
    command = [sys.executable, "-c", "from flexreward.cli import main; main()", *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def num_lines(path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for(path, count: int, process) -> None:
    for _ in range(6000):
        if num_lines(path) >= count or process.poll() is not None:
            return
        time.sleep(0.005)


def test_killed_at_random_points_and_run_again_ends_in_the_same_bytes_and_buys_little_twice(tmp_path):
    source = write(tmp_path / "s.jsonl", *[ROW | {"prompt": f"{i}?"} for i in range(120)])
    recipe = tmp_path / "slow.yaml"
    options = ("--judge", recipe, "--store", tmp_path / "store.sqlite")
    out = tmp_path / "o.jsonl"
    rng = random.Random(os.getpid())
    for _ in range(2):
        process = started(tmp_path, "judge", source, "--out", out, *options)
        wait_for(out, num_lines(out) + rng.randint(2, 40), process)
        time.sleep(rng.random() * 0.05)
        process.kill()
        process.communicate()
    before = num_lines(out)
    assert call("judge", source, "--out", out, *options) == 0
    assert call("judge", source, "--out", tmp_path / "whole.jsonl", "--judge", recipe, "--no-store") == 0
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert 1 < before < 121
    assert num_lines(tmp_path / "o.jsonl.timings.jsonl") <= 120


def test_an_interrupt_keeps_the_work_and_says_how_to_go_on(tmp_path):
    source = write(tmp_path / "s.jsonl", *[ROW | {"prompt": f"{i}?"} for i in range(2000)])
    out = tmp_path / "o.jsonl"
    process = started(tmp_path, "judge", source, "--out", out, "--judge", tmp_path / "slow.yaml", "--no-store")
    wait_for(out, 5, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert re.search(r"interrupted; .*o.jsonl keeps what was judged: run the same again to go on", err)
    assert out.read_bytes().endswith(b"\n")
    assert num_lines(out) >= 5
