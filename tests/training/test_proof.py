import json
import subprocess
import sys

import pytest

from training.proof import Parts, check_readme, read_figures, record

FIGURES = {"tiny.accuracy": 0.97345, "tiny.rate": 1234.4, "tiny.seconds": 81.0, "tiny.votes.three": 2.125}


def check(line: str) -> list[str]:
    return check_readme(f"# A judge\n\n## Measured\n\n{line}\n\n## Use\n\n12 % of nothing\n", FIGURES)


@pytest.mark.parametrize(
    "line",
    [
        "97.3 % <!-- proof: tiny.accuracy -->",
        "97 % <!-- proof: tiny.accuracy --> in 81 s <!-- proof: tiny.seconds -->",
        "| accuracy | 97.35 % <!-- proof: tiny.accuracy --> |",
        "| rate | 1,234 tok/s <!-- proof: tiny.rate --> |",
        "| 16 | 2.1 <!--proof: tiny.votes.three--> |",
        "2.12 times <!-- proof: tiny.votes.three --> or 2.13 times <!-- proof: tiny.votes.three -->",
        "Run `make proof-tiny 95 %` with Qwen2.5-7B, 2 cores, best-of-16.",
        "```\n97 % 12 s\n```",
    ],
)
def test_a_figure_that_its_proof_holds_may_stand(line):
    assert check(line) == []


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("97.4 % <!-- proof: tiny.accuracy -->", "97.4% is printed"),
        ("0.97 % <!-- proof: tiny.accuracy -->", "0.97% is printed"),
        ("97 <!-- proof: tiny.accuracy -->", "97 is printed"),
        ("98 % <!-- proof: tiny.precision -->", "no proof holds 'tiny.precision'"),
        ("right in 97.3 % of all pairs", "'97.3 % of all pairs' has no proof"),
        ("| rate | 1,234 tok/s |", "has no proof"),
        ("| accuracy (%) | 97.3 |", "has no proof"),
        ("It takes 81 s.", "has no proof"),
        ("81 s and 97.3 % <!-- proof: tiny.accuracy -->", "'81 s and"),
        ("### Inner\n\n12.5 times faster", "has no proof"),
    ],
)
def test_a_figure_without_its_proof_is_found(line, complaint):
    (wrong,) = check(line)
    assert complaint in wrong


def test_a_complaint_names_the_line():
    assert check("fine\n\n97.4 % <!-- proof: tiny.accuracy -->")[0].startswith("line 7:")


def test_a_marked_figure_is_checked_in_every_section():
    assert check_readme("98 % <!-- proof: tiny.accuracy -->", FIGURES) != []


def test_a_proof_is_dated_and_ends_in_one_line(tmp_path, capsys):
    record("tiny", {"accuracy": 0.5, "votes": {"three": 3}}, tmp_path, seconds=1.23)
    (line,) = capsys.readouterr().out.splitlines()
    proof = json.loads((tmp_path / "tiny.json").read_text())
    assert proof == json.loads(line)
    assert set(proof) == {"name", "date", "commit", "dirty", "hardware", "command", "figures", "seconds"}
    assert set(proof["hardware"]) == {"cpu", "cores", "memory_gib", "gpu"}
    assert proof["command"] == "make proof-tiny"
    assert read_figures(tmp_path) == {"tiny.accuracy": 0.5, "tiny.votes.three": 3}


def test_a_figure_that_is_no_number_cannot_be_recorded(tmp_path):
    with pytest.raises(ValueError):
        record("tiny", {"accuracy": float("nan")}, tmp_path, seconds=1)
    assert list(tmp_path.iterdir()) == []


def test_a_finished_part_is_not_computed_again_unless_its_basis_changed(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return {"n": len(calls)}

    first = Parts("tiny", basis="a", root=tmp_path)
    assert first.get("p", compute) == {"n": 1}
    again = Parts("tiny", basis="a", root=tmp_path)
    assert again.get("p", compute) == {"n": 1}
    assert again.seconds == first.seconds
    assert Parts("tiny", basis="b", root=tmp_path).get("p", compute) == {"n": 2}


def test_proofs_recipes_and_run_folders_need_no_torch():
    code = "import sys, training.proof, training.recipe, training.run, training.data; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
