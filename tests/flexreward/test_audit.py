import json
from collections.abc import Callable
from pathlib import Path

import pytest

from flexreward.cli import run
from flexreward.engines.base import Prompt
from flexreward.engines.scripted import ScriptedEngine
from flexreward.errors import EngineError
from flexreward.judge import Judge
from flexreward.ledger import Ledger
from flexreward.ledger.audit import audit
from flexreward.ledger.store import DAY_S, Store
from flexreward.templates import load_template
from flexreward.types import JudgeRequest


def scores(prompt: Prompt) -> str:
    return f"<think>{len(prompt.user)}</think><answer>{len(prompt.user) % 5 + 1}</answer>"


def requests(count: int) -> list[JudgeRequest]:
    return [JudgeRequest(id=str(i), prompt="?" * i, completions=("good",)) for i in range(1, count + 1)]


async def filled(path: Path, count: int = 10, name: str = "scripted", now: Callable[[], float] | None = None) -> Path:
    with Store(path, **({"now": now} if now else {})) as store:
        judge = Judge(ScriptedEngine(scores, name=name), load_template("score"), ledger=Ledger(store))
        async for _ in judge.judge_all(requests(count)):
            pass
    return path


def damage(path: Path, row: int) -> None:
    with Store(path) as store:
        store._db.execute("UPDATE kept SET value = zeroblob(100) WHERE row = ?", (row,))


async def test_a_whole_store_is_sound(tmp_path):
    with Store(await filled(tmp_path / "s.sqlite")) as store:
        found = await audit(store)
    assert found.sound
    assert (found.num_rows, found.num_damaged) == (10, 0)


async def test_damaged_rows_are_counted(tmp_path):
    damage(await filled(tmp_path / "s.sqlite"), row=3)
    with Store(tmp_path / "s.sqlite", notify=lambda _: None) as store:
        found = await audit(store)
    assert not found.sound
    assert (found.num_rows, found.num_damaged) == (10, 1)


async def test_the_engine_that_wrote_the_replies_writes_them_again(tmp_path):
    engine = ScriptedEngine(scores)
    with Store(await filled(tmp_path / "s.sqlite", 50)) as store:
        found = await audit(store, engine=engine, sample=7)
    assert found.sound
    assert (found.num_same, found.num_others) == (7, 0)
    assert engine.num_calls == 7


async def test_a_reply_that_comes_out_otherwise_is_named(tmp_path):
    def changed(prompt: Prompt) -> str:
        return scores(prompt) if "???????" in prompt.user else "<answer>1</answer>"

    with Store(await filled(tmp_path / "s.sqlite")) as store:
        found = await audit(store, engine=ScriptedEngine(changed))
        assert all(store.get(key) for key in found.different)
    assert not found.sound
    assert (found.num_same, len(found.different)) == (4, 6)


async def test_replies_of_other_models_are_not_replayed(tmp_path):
    await filled(tmp_path / "s.sqlite", 5)
    with Store(await filled(tmp_path / "s.sqlite", 10, name="other")) as store:
        found = await audit(store, engine=ScriptedEngine(scores))
    assert found.sound
    assert (found.num_same, found.num_others) == (5, 10)


async def test_a_replay_that_fails_is_no_replay_that_agrees(tmp_path):
    def dead(prompt: Prompt) -> str:
        raise EngineError("dead")

    with Store(await filled(tmp_path / "s.sqlite")) as store:
        found = await audit(store, engine=ScriptedEngine(dead))
    assert not found.sound
    assert (found.num_same, found.num_failed) == (0, 10)


# The commands.


@pytest.fixture
async def store_file(tmp_path: Path) -> Path:
    return await filled(tmp_path / "s.sqlite")


def test_verify_says_what_is_sound(store_file, capsys):
    assert run(["store", "verify", "--store", str(store_file)]) == 0
    assert "10 rows, 0 damaged" in capsys.readouterr().out


def test_verify_ends_with_1_where_a_row_is_damaged(store_file, capsys):
    damage(store_file, row=1)
    assert run(["store", "verify", "--store", str(store_file), "--json"]) == 1
    output = capsys.readouterr()
    assert json.loads(output.out)["damaged"] == 1
    assert "damaged" in output.err


def test_verify_ends_with_1_where_the_file_had_to_be_set_aside(store_file, capsys):
    store_file.write_bytes(b"no database" * 1_000)
    assert run(["store", "verify", "--store", str(store_file)]) == 1
    assert "set aside as s.sqlite.corrupt-" in capsys.readouterr().err


def test_verify_replays_with_the_judge_that_is_named(tmp_path, capsys):
    samples = tmp_path / "samples.jsonl"
    samples.write_text('{"prompt": "2+2?", "completions": ["4", "five"]}\n')
    store = ["--store", str(tmp_path / "s.sqlite")]
    judged = ["judge", str(samples), "--out", str(tmp_path / "out.jsonl"), "--judge", "scripted:longer", *store]
    assert run(judged) == 0
    capsys.readouterr()
    assert run(["store", "verify", "--judge", "scripted:longer", "--json", *store]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["replayed"] == {"same": 2, "different": [], "failed": 0}


def test_export_writes_every_row_as_json_for_its_owner_alone(store_file, tmp_path, capsys):
    out = tmp_path / "rows.jsonl"
    assert run(["store", "export", "--store", str(store_file), "--out", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 10
    assert {"key", "created_s", "used_s", "engine", "system", "user", "prefix", "sampling", "replies"} == set(rows[0])
    assert out.stat().st_mode & 0o777 == 0o600
    assert run(["store", "export", "--store", str(store_file), "--out", str(out)]) == 2
    assert "is there already" in capsys.readouterr().err


async def test_prune_removes_by_age_and_says_how_many(tmp_path, capsys):
    path = await filled(tmp_path / "s.sqlite", now=lambda: 1_000 * DAY_S)
    assert run(["store", "prune", "--days", "30", "--store", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["removed"], found["kept"]) == (10, 0)


@pytest.mark.parametrize("command", [["verify"], ["export"], ["prune", "--days", "1"]])
def test_looking_after_a_store_does_not_make_one(tmp_path, capsys, command):
    path = tmp_path / "none.sqlite"
    assert run(["store", *command, "--store", str(path)]) == 2
    assert "no store is there" in capsys.readouterr().err
    assert not path.exists()
