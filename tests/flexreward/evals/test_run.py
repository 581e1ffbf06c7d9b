import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from flexreward.errors import OutputError, SampleError
from flexreward.evals.base import Benchmark, Drawn, Row, Source
from flexreward.evals.run import RunFolder, Selection, begin, fields_of, refuse_other, restore, survey
from flexreward.evals.source import Folder, open_folder
from flexreward.templates import load_template
from flexreward.types import JudgeRequest


def rows(folder: Folder) -> Iterator[Row]:
    for row in folder.rows("rows.jsonl"):
        number, group, completions = (row.fields[name] for name in ("id", "group", "completions"))
        request = JudgeRequest(id=str(number), prompt=f"question {number}", completions=tuple(completions))
        yield Row(request=request, human=(1.0, 0.0), group=group)


MADE_UP = Benchmark(
    name="made-up",
    title="Made up",
    task="pair",
    template="pair",
    source=Source(files=("rows.jsonl",), remedy="copy rows.jsonl there"),
    rows=rows,
    drawn=Drawn(),
    published=lambda table: {},
    headline="accuracy",
)


def written(folder: Path, num_rows: int = 6, **changes: object) -> Path:
    """A publisher's folder: even rows are of one group, odd of the other."""
    folder.mkdir(exist_ok=True)
    lines = [{"id": i, "group": ("even", "odd")[i % 2], "completions": ["a", "b"]} | changes for i in range(num_rows)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def select(folder: Path, **options: object) -> Selection:
    return Selection(benchmark=MADE_UP, folder=open_folder(MADE_UP.source, folder), **options)


def ids(selection: Selection) -> list[str]:
    return [row.request.id for row in selection.rows()]


def test_the_subset_is_taken_before_the_limit(tmp_path):
    folder = written(tmp_path / "data")
    assert ids(select(folder)) == list("012345")
    assert ids(select(folder, limit=2)) == ["0", "1"]
    assert ids(select(folder, subset="odd")) == ["1", "3", "5"]
    assert ids(select(folder, subset="odd", limit=2)) == ["1", "3"]


def test_no_more_rows_are_read_than_are_asked_for(tmp_path):
    folder = written(tmp_path / "data")
    with (folder / "rows.jsonl").open("a") as file:
        file.write("this is no JSON\n")
    assert ids(select(folder, limit=6)) == list("012345")
    with pytest.raises(SampleError, match="line 7: broken JSON"):
        ids(select(folder))


def test_an_unknown_group_names_those_that_there_are(tmp_path):
    folder = written(tmp_path / "data")
    with pytest.raises(SampleError, match="--subset evn: made-up has no such group, did you mean even"):
        ids(select(folder, subset="evn"))
    with pytest.raises(SampleError, match="leave --subset out: it has no groups"):
        ids(select(written(tmp_path / "plain", group=""), subset="even"))


def test_a_survey_counts_the_rows_and_writes_them_as_they_are_shown(tmp_path):
    run = RunFolder(path=tmp_path / "run")
    assert survey(select(written(tmp_path / "data"), limit=4), load_template("pair"), run, overwrite=False) == 4
    lines = [json.loads(line) for line in run.samples.read_bytes().splitlines()]
    assert [line["id"] for line in lines] == list("0123")
    assert lines[1] == {
        **{"id": "1", "prompt": "question 1", "completions": ["a", "b"], "human": [1, 0], "group": "odd"},
        **{"images": None, "videos": None, "audios": None},
    }


def test_a_template_that_does_not_fit_is_said_before_a_model_is_loaded(tmp_path):
    run = RunFolder(path=tmp_path / "run")
    with pytest.raises(SampleError, match=r"template 'score': expected 1 completion\(s\), found 2"):
        survey(select(written(tmp_path / "data")), load_template("score"), run, overwrite=False)
    assert survey(select(written(tmp_path / "data")), load_template("batch"), run, overwrite=False) == 6


def test_an_id_that_stands_twice_is_refused(tmp_path):
    with pytest.raises(SampleError, match="the id '7' stands twice"):
        survey(select(written(tmp_path / "data", id=7)), None, RunFolder(path=tmp_path / "run"), overwrite=False)


def begun(tmp_path: Path, **options: object) -> tuple[RunFolder, Selection]:
    """A folder in which six rows were judged."""
    run, selection = RunFolder(path=tmp_path / "run"), select(written(tmp_path / "data"), **options)
    survey(selection, None, run, overwrite=False)
    run.outcomes.write_text("{}\n" * 7)
    begin(run, {**fields_of(selection), "expected_rows": 6}, overwrite=False)
    return run, selection


def test_until_it_is_done_a_run_says_half_run(tmp_path):
    run, _ = begun(tmp_path)
    found = run.read_summary()
    assert (found["complete"], found["published"], found["strict"], found["expected_rows"]) == (False, {}, {}, 6)


def test_a_folder_of_another_benchmark_subset_or_data_is_refused_in_one_line(tmp_path):
    run, selection = begun(tmp_path)
    fields = fields_of(selection)
    refuse_other(run, fields, overwrite=False)
    for change, found in (
        ({"benchmark": "pandalm"}, "holds a run of made-up, not of pandalm; give another --out"),
        ({"subset": "odd"}, "holds all groups, not odd; give another --out"),
        ({"data": {"revision": None, "files": {"rows.jsonl": "0"}}}, "was begun on other data: rows.jsonl changed"),
        ({"data": {"revision": "abc", "files": {}}}, "was begun on revision a local folder, the data is now abc"),
    ):
        with pytest.raises(OutputError) as error:
            refuse_other(run, fields | change, overwrite=False)
        assert found in str(error.value)
        assert "\n" not in str(error.value)
        refuse_other(run, fields | change, overwrite=True)


def test_fewer_rows_than_were_judged_are_refused_and_leave_everything_as_it_is(tmp_path):
    run, selection = begun(tmp_path)
    before = run.samples.read_bytes()
    fewer = select(selection.folder.path, limit=4)
    with pytest.raises(OutputError, match="holds 6 judged rows, more than the 4 asked for; raise --limit"):
        survey(fewer, None, run, overwrite=False)
    assert run.samples.read_bytes() == before
    assert survey(fewer, None, run, overwrite=True) == 4


def test_what_begin_found_can_be_put_back(tmp_path):
    run, _ = begun(tmp_path)
    before = run.summary.read_bytes()
    found = begin(run, {"benchmark": "other"}, overwrite=True)
    assert run.summary.read_bytes() != before
    restore(run, found)
    assert run.summary.read_bytes() == before


def test_a_broken_summary_is_no_summary(tmp_path):
    run, selection = begun(tmp_path)
    run.summary.write_text("{")
    assert run.read_summary() == {}
    refuse_other(run, fields_of(selection), overwrite=False)
