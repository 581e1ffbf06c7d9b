"""Many molecules in worker processes: order kept, each made once, and one that breaks costs itself alone."""

import itertools
import multiprocessing
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mol.chem.cache import AHEAD, Featuriser
from mol.chem.molecule import Molecule, MoleculeError, featurise
from mol.chem.shelf import Shelf, encoded
from tests.mol.chem.test_molecule import block

ENDLESS = "NCC(=O)" * 120
"""Glycine 120 times: it takes a minute or so."""
TEXTS = ["CCO", "C1CC", "[Na+].[Cl-]", "OCC", "c1ccccc1C(=O)O", "", "CCO", "C1#CC1", "CC O", "NCC(=O)O"]


@pytest.fixture(scope="module")
def two() -> Iterator[Featuriser]:
    """Two workers, nothing kept."""
    with Featuriser(workers=2, limit_s=1.5) as featuriser:
        yield featuriser


def told(found: Molecule | MoleculeError) -> bytes | str:
    return str(found) if isinstance(found, MoleculeError) else encoded(found)


def test_each_text_has_its_molecule_or_its_error_in_its_place(two):
    found = list(two.featurise_all(TEXTS))
    assert [isinstance(one, MoleculeError) for one in found] == [text in ("C1CC", "", "CC O") for text in TEXTS]
    assert str(found[1]).startswith("'C1CC'")
    assert [one.smiles for one in found if isinstance(one, Molecule)] == [
        featurise(text).smiles for text in TEXTS if text not in ("C1CC", "", "CC O")
    ]


def test_any_number_of_workers_makes_the_same_bytes(two, tmp_path):
    alone = list(map(told, Featuriser(workers=0).featurise_all(TEXTS)))
    assert list(map(told, two.featurise_all(TEXTS))) == alone
    assert list(map(told, Featuriser(workers=0, cache=tmp_path).featurise_all(TEXTS))) == alone
    assert list(map(told, Featuriser(workers=0, cache=tmp_path).featurise_all(TEXTS))) == alone


def test_a_text_over_its_time_costs_itself_alone(two):
    texts = ["CCO", ENDLESS, "CCN", "CCC", "CCCC"]
    found = list(two.featurise_all(texts))
    assert (
        str(found[1]) == f"'{ENDLESS[:299]}... (840 characters): not made within 1.5 s; leave it out or raise limit_s"
    )
    assert [one.smiles for one in found[:1] + found[2:]] == ["CCO", "CCN", "CCC", "CCCC"]


def test_a_worker_that_dies_costs_its_text_alone():
    with Featuriser(workers=1) as featuriser:
        stream = featuriser.featurise_all(["CCO", ENDLESS, "CCN"])
        assert next(stream).smiles == "CCO"
        time.sleep(0.3)  # by then it is at work on the next
        for child in multiprocessing.active_children():
            child.kill()
        assert "ended its worker (exit code -9)" in str(next(stream))
        assert next(stream).smiles == "CCN"


def test_one_text_alone_is_made_or_raises(two):
    assert two.featurise("OCC").smiles == "CCO"
    with pytest.raises(MoleculeError, match=r"^'C1CC': "):
        two.featurise("C1CC")


def test_an_endless_stream_is_read_a_little_ahead_and_may_be_closed(two):
    taken = itertools.count()
    stream = two.featurise_all("C" * (1 + next(taken) % 20) for _ in itertools.count())
    assert [next(stream).smiles for _ in range(3)] == ["C", "CC", "CCC"]
    stream.close()
    assert next(taken) <= 3 + AHEAD * two.workers
    assert two.featurise("CO").smiles == "CO"


def test_threads_share_the_workers(two):
    found: dict[int, list[str]] = {}

    def work(number: int) -> None:
        texts = ["C" * (1 + number + i) for i in range(6)]
        found[number] = [one.smiles for one in two.featurise_all(texts)]

    threads = [threading.Thread(target=work, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: ["C" * (1 + number + i) for i in range(6)] for number in range(4)}


def test_what_was_made_once_is_read_from_disk(tmp_path):
    marked = replace(featurise("CCO"), made="from disk")
    Shelf(folder=tmp_path).put(marked, seed=0)
    assert [one.made for one in Featuriser(workers=0, cache=tmp_path).featurise_all(["OCC", "CCO"])] == [
        "from disk"
    ] * 2
    assert Featuriser(workers=0, cache=tmp_path, seed=1).featurise("OCC").made == "etkdg"


def test_a_torn_file_is_made_anew(tmp_path):
    with Featuriser(workers=0, cache=tmp_path) as featuriser:
        featuriser.featurise("CCO")
        (path,) = tmp_path.rglob("*.safetensors")
        whole = path.read_bytes()
        path.write_bytes(whole[:-20])
        assert encoded(featuriser.featurise("OCC")) == whole
        assert path.read_bytes() == whole


def test_coordinates_that_were_given_are_neither_kept_nor_taken_from_disk(tmp_path):
    with Featuriser(workers=0, cache=tmp_path) as featuriser:
        assert featuriser.featurise(block("CCO")).made == "sdf"
        assert not list(tmp_path.rglob("*.safetensors"))
        featuriser.featurise("CCO")
        assert featuriser.featurise(block("CCO")).made == "sdf"


def test_featurisers_that_share_a_folder_do_not_harm_one_another(two, tmp_path):
    texts = ["C" * (1 + i % 12) + "O" for i in range(48)]
    plain = list(map(told, two.featurise_all(texts)))
    with Featuriser(workers=1, cache=tmp_path) as one, Featuriser(workers=1, cache=tmp_path) as other:
        for first, second, expected in zip(one.featurise_all(texts), other.featurise_all(texts), plain, strict=True):
            assert told(first) == told(second) == expected
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 12


def test_a_closed_featuriser_has_no_processes_and_begins_anew():
    before = {child.pid for child in multiprocessing.active_children()}
    featuriser = Featuriser(workers=1)
    assert featuriser.featurise("CC").smiles == "CC"
    assert len({child.pid for child in multiprocessing.active_children()} - before) == 1
    featuriser.close()
    assert {child.pid for child in multiprocessing.active_children()} <= before
    assert featuriser.featurise("CC").smiles == "CC"
    featuriser.close()


def test_workers_end_with_the_process_that_started_them(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(f"""
import multiprocessing, os
from mol.chem.cache import Featuriser
if __name__ == "__main__":
    stream = Featuriser(workers=1).featurise_all(["CCO", {ENDLESS!r}])
    next(stream)
    print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    os.kill(os.getpid(), 9)
""")
    killed = subprocess.run([sys.executable, script], stdout=subprocess.PIPE, text=True, check=False)
    assert killed.returncode == -9
    (worker,) = killed.stdout.split()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{worker}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_script_without_a_guarded_start_is_told_so(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("from mol.chem.cache import Featuriser\nprint(Featuriser(workers=1).featurise('C'))\n")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "workers: they end before they begin; put the start of the program under if __name__ ==" in done.stderr


@pytest.mark.parametrize(("field", "value"), [("workers", -1), ("limit_s", 0), ("seed", -1)])
def test_a_setting_out_of_range_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=rf"^{field}: "):
        Featuriser(**{field: value})
