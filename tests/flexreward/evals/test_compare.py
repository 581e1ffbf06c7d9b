import json
from pathlib import Path

import pytest

from flexreward.cli import run as command
from flexreward.errors import OutputError
from flexreward.evals.compare import changed, compare, load_run, over_waits

JUDGE = {
    **{"fingerprint": "f", "engine": "scripted", "model": "m", "aggregate": "mean", "both_orders": False},
    **{"sampling": {"temperature": 0.0, "n": 1, "seed": 0}},
}
TEMPLATE = {"id": "pair-sp", "digest": "d", "scale": [1, 10]}


def made(
    folder: Path,
    right: list[bool | None],
    *,
    complete: bool = True,
    benchmark: str = "pandalm",
    judge: dict | None = None,
    template: dict | None = None,
    length: int = 10,
    request: str = "r",
) -> Path:
    """A run folder over two groups, as ``flexreward eval`` leaves it."""
    folder.mkdir()
    lines: list[dict] = [{"flexreward": "0", "judge": JUDGE | (judge or {}), "template": TEMPLATE | (template or {})}]
    for number, one in enumerate(right):
        scores = None if one is None else [7.0, 3.0] if one else [3.0, 7.0]
        vote = {"scores": scores, "reason": None if scores else "no_answer", "reply": "x" * (length + number)}
        lines.append(
            {
                **{"id": str(number), "request": f"{request}{number}", "human": [1.0, 0.0], "systems": []},
                **{"group": ("odd", "even")[number % 2], "words": [1, 1], "columns": {}, "scores": scores},
                **{"reason": vote["reason"], "tokens": {"prompt": 1, "completion": length}},
                "orders": [{"order": [0, 1], "votes": [vote]}],
            }
        )
    (folder / "outcomes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "summary.json").write_text(json.dumps({"benchmark": benchmark, "complete": complete, "cost": {}}))
    return folder


def test_two_runs_are_compared_by_figure_by_group_and_row_by_row(tmp_path):
    a = load_run(made(tmp_path / "a", [True, False, False, False, True, None] * 5))
    b = load_run(made(tmp_path / "b", [True, True, True, False, False, True] * 5, judge={"model": "n"}))
    found = compare(a, b)
    assert found["figures"]["accuracy"]["difference"] == pytest.approx(1 / 5)
    assert found["figures"]["accuracy"]["n"] == 25
    assert found["figures"]["accuracy_unscored_wrong"]["difference"] == pytest.approx(2 / 6)
    assert found["groups"]["odd"]["difference"] == pytest.approx(0)
    assert found["groups"]["even"]["difference"] == pytest.approx(0.5)
    assert found["changed"] == {"model": ["m", "n"]}
    assert found["choices"] == {
        **{
            "n": 25,
            "alike": 2 / 5,
            "spearman": pytest.approx(-1 / 6),
            "both_right": 5,
            "only_a": 5,
            "only_b": 10,
            "neither": 5,
        }
    }
    differ = {row["id"]: row for row in found["differ"]}
    assert len(differ) == 20
    assert differ["5"] == {"id": "5", "group": "even", "human": [1, 0], "a": None, "b": [7, 3]}
    assert "0" not in differ
    assert found["differ"][0]["a"] is None  # scored by one alone comes first
    json.dumps(found, allow_nan=False)


def test_a_run_beside_itself_is_alike_in_everything(tmp_path):
    run = load_run(made(tmp_path / "a", [True, False] * 10))
    found = compare(run, run)
    assert found["figures"]["accuracy"]["difference"] == 0
    assert (found["changed"], found["differ"], found["choices"]["alike"]) == ({}, [], 1)


def test_two_templates_of_one_judge_show_what_the_form_of_the_question_does(tmp_path):
    first = load_run(made(tmp_path / "a", [True, False] * 10, template={"id": "pair-answer-first", "digest": "e"}))
    second = load_run(made(tmp_path / "b", [True, True] * 10, length=500))
    found = compare(first, second)
    assert found["changed"] == {"template": ["pair-answer-first", "pair-sp"]}
    assert found["groups"]["even"]["difference"] == 1
    assert found["groups"]["even"]["characters"] == {"a": 20, "b": 510}


def test_whether_the_gain_goes_with_the_length_is_told_over_rows(tmp_path):
    a = load_run(made(tmp_path / "a", [False] * 20))
    b = load_run(made(tmp_path / "b", [False] * 10 + [True] * 10))  # the longer its reply, the more it gains
    assert compare(a, b)["length"]["rows"] > 0.8


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"right": [True] * 3}, "has 3 rows, and {a} 4; run both on the same rows"),
        ({"right": [True] * 4, "request": "s"}, "row 1 is '0', and in {a} '0' with another text; run both"),
        ({"right": [True] * 4, "benchmark": "judgelm"}, "is a run of judgelm, and {a} of pandalm"),
        ({"right": [True] * 4, "complete": False}, "is a half-run of pandalm; run flexreward eval"),
    ],
)
def test_what_cannot_be_paired_is_one_line(tmp_path, capsys, options, found):
    a, b = made(tmp_path / "a", [True] * 4), made(tmp_path / "b", **options)
    assert command(["compare", str(a), str(b)]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"flexreward: {b}: {found.format(a=a)}")
    assert err.count("\n") == 1


def test_a_folder_without_a_run_is_one_line(tmp_path, capsys):
    a = made(tmp_path / "a", [True] * 4)
    assert command(["compare", str(a), str(tmp_path)]) == 2
    assert "holds no run; flexreward eval BENCHMARK --out" in capsys.readouterr().err


def test_runs_that_differ_in_waits_alone_are_a_curve(tmp_path):
    rights = {0: [True, False, False, False], 2: [True] * 4, 1: [True, True, False, False]}
    runs = [
        load_run(made(tmp_path / f"w{w}", right, length=10 * (w + 1), judge={"waits": str(w)} if w else {}))
        for w, right in rights.items()
    ]
    curve = over_waits(runs)
    assert [(point["waits"], point["value"], point["completion_tokens"]) for point in curve] == [
        (0, 0.25, 10),
        (1, 0.5, 20),
        (2, 1, 30),
    ]
    other = load_run(made(tmp_path / "other", [True] * 4, judge={"waits": "3", "model": "n"}))
    assert over_waits([*runs, other]) == []
    assert over_waits(runs[:1]) == []
    assert changed(runs[0], runs[1]) == {"waits": (None, "2")}


def test_the_command_prints_a_table_and_writes_everything(tmp_path, capsys):
    a = made(tmp_path / "a", [True, False, False, False] * 10)
    b = made(tmp_path / "b", [True, True, True, False] * 10, judge={"waits": "1"})
    assert command(["compare", str(a), str(b), "--out", str(tmp_path / "out"), "--json"]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert json.loads((tmp_path / "out" / "compare.json").read_bytes())["figures"] == told["figures"]
    assert told["waits"][1]["waits"] == 1
    assert "accuracy" in err
    assert "+0.5000" in err
    assert "from A to B: waits none to 1" in err
    assert "waits 0: 0.2500, 10 tokens" in err


def test_a_broken_summary_is_no_run(tmp_path):
    a = made(tmp_path / "a", [True])
    (a / "summary.json").write_text("{")
    with pytest.raises(OutputError, match="holds no run"):
        load_run(a)


def test_where_no_row_has_a_score_from_both_one_line_says_so(tmp_path, capsys):
    a, b = made(tmp_path / "a", [None] * 4), made(tmp_path / "b", [True, False] * 2)
    assert command(["compare", str(a), str(b), "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "no row has a score from both A and B" in out
    assert "choices alike" not in out
