"""Molecules on disk: read as they were written, made anew where a file is torn, never at the cost of the work."""

from dataclasses import replace

import numpy as np
import pytest

from mol.chem.molecule import Molecule, featurise
from mol.chem.shelf import ARRAYS, Shelf, encoded

ETHANOL = featurise("CCO")


@pytest.fixture
def shelf(tmp_path) -> Shelf:
    return Shelf(folder=tmp_path)


def same(one: Molecule, other: Molecule) -> bool:
    texts = all(getattr(one, name) == getattr(other, name) for name in ("smiles", "symbols", "made", "inchikey_block"))
    return texts and all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ARRAYS)


@pytest.mark.parametrize("text", ["CCO", "[Na+]", "[H][H]", "*C/C=C/[2H]"])
def test_a_molecule_is_read_as_it_was_kept(shelf, text):
    molecule = featurise(text)
    shelf.put(molecule, seed=0)
    found = shelf.get(molecule.smiles, seed=0)
    assert same(found, molecule)
    assert {name: getattr(found, name).dtype for name in ARRAYS} == ARRAYS


def test_another_seed_or_molecule_lies_elsewhere(shelf):
    shelf.put(ETHANOL, seed=0)
    assert shelf.get("CCO", seed=1) is None
    assert shelf.get("CCN", seed=0) is None


@pytest.mark.parametrize("length", [0, 7, 8, 100, -1])
def test_a_cut_file_counts_as_absent_and_is_written_anew(shelf, length):
    shelf.put(ETHANOL, seed=0)
    path = shelf.path("CCO", seed=0)
    path.write_bytes(path.read_bytes()[:length])
    assert shelf.get("CCO", seed=0) is None
    shelf.put(ETHANOL, seed=0)
    assert same(shelf.get("CCO", seed=0), ETHANOL)


def test_a_file_with_any_byte_changed_counts_as_absent(shelf):
    shelf.put(ETHANOL, seed=0)
    path = shelf.path("CCO", seed=0)
    whole = path.read_bytes()
    for place in range(0, len(whole), 11):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
        found = shelf.get("CCO", seed=0)
        assert found is None or same(found, ETHANOL)
    path.write_bytes(bytes(len(whole)))
    assert shelf.get("CCO", seed=0) is None


def test_a_file_of_another_molecule_in_its_place_counts_as_absent(shelf):
    path = shelf.path("CCO", seed=0)
    path.parent.mkdir()
    path.write_bytes(encoded(featurise("CCN")))
    assert shelf.get("CCO", seed=0) is None


def test_nothing_but_whole_files_is_left_in_the_folder(shelf):
    shelf.put(ETHANOL, seed=0)
    shelf.put(replace(ETHANOL, made="sdf"), seed=0)
    assert [path for path in shelf.folder.rglob("*") if path.is_file()] == [shelf.path("CCO", seed=0)]
    assert shelf.get("CCO", seed=0).made == "sdf"


def test_a_folder_that_cannot_be_written_costs_no_more_than_a_line_in_the_log(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    Shelf(folder=tmp_path / "file").put(ETHANOL, seed=0)
    assert Shelf(folder=tmp_path / "file").get("CCO", seed=0) is None
    assert "a molecule cannot be kept" in caplog.text
