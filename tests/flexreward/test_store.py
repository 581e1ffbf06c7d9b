import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flexreward.errors import OutputError
from flexreward.ledger.store import DAY_S, Store, default_path

DAY_0 = 1_700_000_000


def value(i: int, size: int = 2_000) -> bytes:
    return f"reply {i} ".encode() * (size // 10)


def filled(path: Path, count: int = 50) -> Path:
    with Store(path) as store:
        for i in range(count):
            store.put(f"key-{i}", value(i))
    return path


def flip(path: Path, where: int) -> None:
    data = bytearray(path.read_bytes())
    data[where] ^= 0x10
    path.write_bytes(data)


@pytest.fixture
def notices() -> list[str]:
    return []


def test_what_is_put_is_there_after_opening_again(tmp_path):
    filled(tmp_path / "s.sqlite")
    with Store(tmp_path / "s.sqlite") as store:
        assert [store.get(f"key-{i}") for i in range(50)] == [value(i) for i in range(50)]
        assert store.get("other") is None
        assert len(store) == 50
        assert store.faults() == []


@pytest.mark.parametrize("size", [0, 10, 511, 512, 100_000])
def test_values_of_any_size_come_back_as_they_were(tmp_path, size):
    blob = os.urandom(size)
    with Store(tmp_path / "s.sqlite") as store:
        assert store.put("k", blob) == blob
        assert store.get("k") == blob


def test_the_first_value_of_a_key_stands(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        assert store.put("k", b"first") == b"first"
        assert store.put("k", b"second") == b"first"


def test_only_the_owner_can_read_the_files(tmp_path):
    old = os.umask(0)
    try:
        with Store(tmp_path / "deep" / "s.sqlite") as store:
            store.put("k", b"v")
            modes = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "deep").iterdir()}
    finally:
        os.umask(old)
    assert modes == {"s.sqlite": 0o600, "s.sqlite-wal": 0o600, "s.sqlite-shm": 0o600}
    assert (tmp_path / "deep").stat().st_mode & 0o777 == 0o700


def test_a_file_that_others_can_read_is_closed_to_them(tmp_path):
    filled(tmp_path / "s.sqlite").chmod(0o644)
    Store(tmp_path / "s.sqlite").close()
    assert (tmp_path / "s.sqlite").stat().st_mode & 0o777 == 0o600


def test_the_default_path_is_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_path() == tmp_path / "flexreward" / "store.sqlite"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_path() == Path.home() / ".cache" / "flexreward" / "store.sqlite"


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(20_000))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def other_schema(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()


def no_table(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE theirs (name TEXT)")
    db.close()


def cut_to_nothing_beside_its_log(path: Path) -> None:
    path.write_bytes(b"")
    Path(f"{path}-wal").write_bytes(b"something")


@pytest.mark.parametrize("damage", [garbage, cut, other_schema, no_table, cut_to_nothing_beside_its_log])
def test_a_file_that_cannot_be_read_is_set_aside_reported_and_begun_anew(tmp_path, notices, damage):
    path = filled(tmp_path / "s.sqlite")
    damage(path)
    before = path.read_bytes()
    with Store(path, notify=notices.append, now=lambda: DAY_0) as store:
        assert store.get("key-1") is None
        store.put("key-1", b"new")
        assert store.get("key-1") == b"new"
    aside = tmp_path / "s.sqlite.corrupt-20231114T221320Z"
    assert store.set_aside == [aside]
    assert aside.read_bytes() == before
    assert len(notices) == 1
    assert str(path) in notices[0]
    assert aside.name in notices[0]
    assert "\n" not in notices[0]


def test_two_files_set_aside_in_one_second_both_remain(tmp_path, notices):
    path = tmp_path / "s.sqlite"
    for _ in range(2):
        garbage(path)
        Store(path, notify=notices.append, now=lambda: DAY_0).close()
    assert sorted(file.name for file in tmp_path.glob("*corrupt*")) == [
        "s.sqlite.corrupt-20231114T221320Z",
        "s.sqlite.corrupt-20231114T221320Z-1",
    ]


def test_a_log_is_set_aside_with_its_file(tmp_path, notices):
    path = tmp_path / "s.sqlite"
    cut_to_nothing_beside_its_log(path)
    with Store(path, notify=notices.append) as store:
        (aside,) = store.set_aside
    assert Path(f"{aside}-wal").read_bytes() == b"something"


def test_a_file_broken_while_open_is_set_aside_and_work_goes_on(tmp_path, notices):
    path = filled(tmp_path / "s.sqlite", count=500)
    with Store(path, notify=notices.append) as store:
        size = path.stat().st_size
        with path.open("r+b") as file:  # all but the first page, which holds the schema
            file.seek(4096)
            file.write(os.urandom(size - 4096))
        assert [store.get(f"key-{i}") for i in range(500)].count(None) >= 499
        assert store.put("key-1", b"new") == b"new"
        assert len(store.set_aside) == 1
        assert store.get("key-1") == b"new"
    with Store(path, notify=notices.append) as store:
        assert store.get("key-1") == b"new"
    assert sum("set aside" in notice for notice in notices) == 1


def test_a_flipped_byte_is_a_reported_miss_and_never_a_value(tmp_path, notices):
    path = tmp_path / "s.sqlite"
    with Store(path) as store:
        store.put("k", b"the score is 9, and that is that")
        store.put("other", b"fine")
    flip(path, path.read_bytes().index(b"the score is 9") + 13)
    with Store(path, notify=notices.append) as store:
        assert store.get("k") is None
        assert store.num_damaged == 1
        assert "damaged" in notices[0]
        assert [row.value for row in store.rows()] == [None, b"fine"]
        assert store.put("k", b"bought again") == b"bought again"
        assert store.get("k") == b"bought again"
        assert store.get("other") == b"fine"


def test_any_flipped_byte_gives_the_value_or_a_miss(tmp_path):
    path = filled(tmp_path / "s.sqlite", count=3)
    whole = path.read_bytes()
    for where in range(0, len(whole), 199):
        flip(path, where)
        try:
            with Store(path, notify=lambda _: None) as store:
                for i in range(3):
                    assert store.get(f"key-{i}") in (None, value(i))
                for row in store.rows():
                    assert row.value in (None, value(int(row.key[4:]))) if row.value else True
        finally:
            for file in tmp_path.iterdir():
                file.unlink()
            path.write_bytes(whole)


WRITER = """
import sys
from pathlib import Path
from flexreward.ledger.store import Store
name, path, count = sys.argv[1:]
with Store(Path(path)) as store:
    for i in range(int(count)):
        store.put(f"{name}-{i}", f"{name}-{i}".encode() * 200)
        store.put(f"shared-{i}", b"the same" * 100)
        print(i, flush=True)
"""


def writer(name: str, path: Path, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, name, str(path), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_several_processes_write_one_store(tmp_path):
    path = tmp_path / "s.sqlite"
    writers = [writer(name, path, 100) for name in "abc"]
    for process in writers:
        process.communicate()
    assert [process.returncode for process in writers] == [0, 0, 0]
    with Store(path) as store:
        assert len(store) == 400
        assert store.faults() == []
        assert all(row.value for row in store.rows())


def test_kill_9_loses_at_most_the_row_in_flight(tmp_path):
    path = tmp_path / "s.sqlite"
    process = writer("a", path, 1_000_000)
    assert process.stdout
    written = [int(process.stdout.readline()) for _ in range(100)]
    process.send_signal(signal.SIGKILL)
    written += [int(line) for line in process.communicate()[0].split()]
    with Store(path, notify=pytest.fail) as store:
        assert all(store.get(f"a-{i}") == f"a-{i}".encode() * 200 for i in written)
        assert store.faults() == []
        assert len(written) * 2 <= len(store) <= len(written) * 2 + 2


def test_a_store_removed_while_open_is_begun_anew(tmp_path):
    path = tmp_path / "s.sqlite"
    with Store(path) as store:
        store.put("k", b"v")
        for file in tmp_path.iterdir():
            file.unlink()
        store.put("other", b"w")
    with Store(path) as store:
        assert store.get("other") == b"w"


def test_one_that_was_set_aside_by_another_process_is_left(tmp_path, notices):
    path = filled(tmp_path / "s.sqlite")
    with Store(path) as ours:
        path.rename(tmp_path / "s.sqlite.corrupt-x")
        with Store(path) as theirs:
            theirs.put("theirs", b"1")
            ours.put("ours", b"2")
            assert theirs.get("ours") == b"2"
            assert ours.get("theirs") == b"1"


def test_prune_removes_what_was_long_not_used_and_gives_the_room_back(tmp_path):
    path = tmp_path / "s.sqlite"
    clock = [float(DAY_0)]
    with Store(path, now=lambda: clock[0]) as store:
        for i in range(2_000):
            store.put(f"key-{i}", os.urandom(1_000))
        clock[0] += 20 * DAY_S
        assert store.get("key-7") is not None
        clock[0] += 20 * DAY_S
        assert store.prune(days=41) == 0
        assert store.prune(days=30) == 1_999
        assert store.get("key-7") is not None
    assert path.stat().st_size < 100_000


def test_a_full_disk_is_one_line_with_a_remedy_and_loses_nothing(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        store.put("k", b"v")
        store._db.execute("PRAGMA max_page_count = 8")
        with pytest.raises(OutputError, match=r"s\.sqlite.*full.*--no-store") as error:
            store.put("large", os.urandom(100_000))
        assert "\n" not in str(error.value)
        assert store.get("k") == b"v"


@pytest.mark.parametrize("path", ["file/s.sqlite", "folder"])
def test_a_store_that_cannot_be_written_is_refused_when_it_is_opened(tmp_path, path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="--no-store"):
        Store(tmp_path / path)


def test_a_read_only_file_is_refused_when_it_is_opened(tmp_path):
    path = filled(tmp_path / "s.sqlite")
    path.chmod(0o400)
    if os.access(path, os.W_OK):
        pytest.skip("the superuser writes to read-only files")
    with pytest.raises(OutputError, match="--no-store"):
        Store(path)


def test_a_row_costs_less_than_a_millisecond_of_the_processor(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        start = time.process_time()
        for i in range(300):
            store.put(f"key-{i}", value(i))
        assert (time.process_time() - start) / 300 < 1e-3
