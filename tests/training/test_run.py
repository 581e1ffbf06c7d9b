import json
from pathlib import Path

import pytest
import yaml

from flexreward.errors import OutputError
from training.recipe import SftRecipe
from training.run import WHOLE, Run, put_in_place


def recipe(tmp_path: Path, **fields) -> SftRecipe:
    (tmp_path / "rows.jsonl").touch()
    known = {
        "model": "m",
        "data": str(tmp_path / "rows.jsonl"),
        "output": tmp_path / "out",
        "run_dir": tmp_path / "run",
    }
    return SftRecipe(**(known | fields))


def opened(asked: SftRecipe) -> Run:
    return Run(asked.run_dir, asked, seed=asked.seed, inputs={"data": asked.data})


def checkpoint(run: Run, step: int, *, whole: bool = True) -> Path:
    path = run.folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    if whole:
        (path / WHOLE).touch()
    return path


def test_a_run_says_what_it_was_and_where(tmp_path):
    run = opened(recipe(tmp_path))
    assert run.start() == 0
    record = json.loads((run.folder / "run.json").read_text())
    assert record["seed"] == 42
    assert len(record["inputs"]["data"]["sha256"]) == 64
    assert {"date", "from_step", "commit", "dirty", "versions", "hardware"} <= record["starts"][0].keys()
    assert "torch" in record["starts"][0]["versions"]
    assert SftRecipe(**yaml.safe_load((run.folder / "recipe.yaml").read_text())) == recipe(tmp_path)


def test_the_newest_whole_checkpoint_counts_and_the_half_written_go(tmp_path):
    run = opened(recipe(tmp_path))
    assert run.checkpoint() is None
    checkpoint(run, 9)
    newest, half = checkpoint(run, 10), checkpoint(run, 11, whole=False)
    assert run.checkpoint() == newest
    assert run.clear_half_written() == [half]
    assert not half.exists()
    assert newest.exists()


def test_going_on_drops_the_metrics_of_steps_that_are_done_again(tmp_path):
    run = opened(recipe(tmp_path))
    run.start()
    for step in (1, 2, 3):
        run.log({"step": step, "loss": 1.0})
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    checkpoint(run, 2)
    again = opened(recipe(tmp_path))
    assert again.start() == 2
    assert [row["step"] for row in again.metrics()] == [1, 2]
    again.plot()
    assert (run.folder / "loss.png").stat().st_size > 1000


def test_a_folder_of_another_recipe_is_refused_by_its_field(tmp_path):
    opened(recipe(tmp_path)).start()
    opened(recipe(tmp_path, save_every=7)).start()
    with pytest.raises(OutputError, match=r"started with learning_rate=1e-05, the recipe now says 0\.1"):
        opened(recipe(tmp_path, learning_rate=0.1))


def test_changed_data_are_refused(tmp_path):
    opened(recipe(tmp_path)).start()
    asked = recipe(tmp_path)
    (tmp_path / "rows.jsonl").write_text("{}")
    with pytest.raises(OutputError, match=r"rows\.jsonl: has changed since"):
        opened(asked)


def test_an_output_takes_its_place_whole_and_replaces_only_when_told(tmp_path):
    for text in "ab":
        (tmp_path / text).mkdir()
        (tmp_path / text / text).touch()
    put_in_place(tmp_path / "a", tmp_path / "out", replace=False)
    with pytest.raises(OutputError, match="already there"):
        put_in_place(tmp_path / "b", tmp_path / "out", replace=False)
    put_in_place(tmp_path / "b", tmp_path / "out", replace=True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
