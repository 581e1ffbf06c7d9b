"""``flexreward eval`` with a real model, on rows of the small world that it was trained to judge."""

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from flexreward.cli import run
from flexreward.config import TINY, load_recipe
from flexreward.evals import BENCHMARKS
from flexreward.evals.base import Benchmark, Drawn, Row, Source
from flexreward.evals.source import Folder
from flexreward.files.outcomes import read_outcomes
from flexreward.types import JudgeRequest
from recipes.tiny import domain, measure

NUM_ROWS = 32


def rows(folder: Folder) -> Iterator[Row]:
    for row in folder.rows("sums.jsonl"):
        request = JudgeRequest(
            id=row.fields["id"], prompt=row.fields["question"], completions=tuple(row.fields["answers"])
        )
        yield Row(request=request, human=tuple(row.fields["human"]), group=row.fields["kind"])


SUMS = Benchmark(
    name="sums",
    title="Sums",
    task="pair",
    template="pair",
    source=Source(files=("sums.jsonl",)),
    rows=rows,
    drawn=Drawn(samples=1),
    published=lambda table: {"accuracy": float((table.votes_NOKC[:, 0, 0, 0] > table.votes_NOKC[:, 0, 0, 1]).mean())},
    headline="accuracy",
)


@pytest.fixture
def sums(tmp_path, monkeypatch) -> Path:
    """A right answer against a near miss, either first, on problems that no training has seen."""
    module = ModuleType("sums_benchmark")
    module.SUMS = SUMS  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sums_benchmark", module)
    monkeypatch.setitem(BENCHMARKS, "sums", "sums_benchmark:SUMS")
    rng = random.Random(5)
    lines = []
    for number, problem in enumerate(measure.held_out(NUM_ROWS, seed=5)):
        answers = [problem.answer, domain.near_miss(problem.answer, rng)]
        human = [1, 0]
        if number % 2:
            answers, human = answers[::-1], human[::-1]
        texts = [measure.answer(answer) for answer in answers]
        fields = {"id": f"{number}", "question": problem.question, "answers": texts, "human": human}
        lines.append(json.dumps(fields | {"kind": problem.kind}) + "\n")
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "sums.jsonl").write_text("".join(lines))
    return folder


def evaluate(data: Path, out: Path, *options) -> dict:
    command = ["eval", "sums", "--data", data, "--out", out, "--store", data.parent / "store.sqlite", *options]
    assert run([str(one) for one in command]) == 0
    return json.loads((out / "summary.json").read_bytes())


@pytest.mark.slow
def test_a_real_judge_is_measured_calibrated_scaled_and_compared(sums, tmp_path, capsys):
    found = evaluate(sums, tmp_path / "greedy", "--calibrate")
    assert found["complete"]
    assert found["parse_rate"] > 0.95
    assert found["strict"]["accuracy"]["value"] > 0.8
    assert found["cost"]["completion_tokens_per_judgment"] > 20
    assert found["cost"]["seconds_per_judgment"] > 0
    assert len(found["scaling"]["length"]["bins"]) >= 2
    assert found["judge"]["weights"]

    # The same judge's rewards are probabilities now; asked other votes it is another judge.
    recipe = tmp_path / "judge.yaml"
    tiny = load_recipe(TINY).model_dump(include={"model", "engine", "max_tokens", "options"})
    recipe.write_text(json.dumps(tiny | {"calibrator": "greedy/calibrator.json"}))
    samples = tmp_path / "samples.jsonl"
    samples.write_text(json.dumps({"prompt": "Which is larger, 412 or 421?", "completions": ["421", "412"]}) + "\n")
    judge = ["judge", samples, "--judge", recipe, "--no-store", "--template", "pair"]
    assert run([str(one) for one in (*judge, "--out", tmp_path / "o.jsonl")]) == 0
    (row,) = read_outcomes(tmp_path / "o.jsonl")
    assert sum(row["rewards"]) == pytest.approx(1)
    assert row["rewards"][0] > row["rewards"][1]
    assert run([str(one) for one in (*judge, "--out", tmp_path / "p.jsonl", "--votes", 3, "--temperature", 0.9)]) == 2
    assert "fitted for a judge whose temperature is 0.0, not 0.9" in capsys.readouterr().err

    # Votes: a curve from one run. The second run of the same judge buys nothing.
    warm = ("--votes", 3, "--temperature", 0.9, "--orders", "random", "--seed", 2)
    found = evaluate(sums, tmp_path / "warm", *warm)
    curve = found["scaling"]["votes"]
    assert [(point["votes"], point["choices"]) for point in curve] == [(1, 3), (2, 3), (3, 1)]
    assert found["confidence"]["votes"]["n"] >= 20
    assert evaluate(sums, tmp_path / "again", *warm)["cost"]["seconds_per_judgment"] is None

    # Waits: a curve from several runs.
    one = evaluate(sums, tmp_path / "wait", "--waits", 1)
    assert one["judge"]["waits"] == "1"
    capsys.readouterr()
    assert run(["compare", str(tmp_path / "greedy"), str(tmp_path / "wait"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [point["waits"] for point in told["waits"]] == [0, 1]
    assert told["waits"][1]["completion_tokens"] > told["waits"][0]["completion_tokens"]
    assert told["changed"] == {"waits": [None, "1"]}


@pytest.mark.slow
def test_text_of_another_world_is_counted_and_not_scored(tmp_path):
    data = Path(__file__).parents[2].parent / "shared" / "data" / "pandalm"
    if not data.exists():
        pytest.skip("the real data lies beside the repository only where copied")
    out = tmp_path / "run"
    assert (
        run(
            ["eval", "pandalm", "--data", str(data), "--judge", "tiny", "--limit", "8", "--out", str(out), "--no-store"]
        )
        == 0
    )
    found = json.loads((out / "summary.json").read_bytes())
    assert (found["rows"], found["limit"], found["complete"]) == (8, 8, True)
    assert sum(found["unscored"].values()) + (found["strict"]["accuracy"]["n"] or 0) == 8
    assert found["strict"]["unscored"]["value"] == sum(found["unscored"].values()) / 8
