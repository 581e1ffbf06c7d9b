import json
from pathlib import Path

import pytest

from flexreward.errors import SampleError
from mol.chem.identity import LeakError
from mol.pampa.recipe import Data, Split
from mol.pampa.sources import Source, read_source
from mol.pampa.splits import Fold, split_rows

MOLECULES = [
    *(f"{'C' * n}c1ccccc1" for n in range(1, 8)),
    *(f"{'C' * n}c1ccncc1" for n in range(1, 5)),
    "C1CCCCC1",
    "CC1CCCCC1",
    "C[C@H](N)C(=O)OC1CC1",
    "C[C@@H](N)C(=O)OC1CC1",
    "c1ccoc1",
    "c1ccsc1",
    "C1CCNCC1",
    "C1CCOCC1",
    "O=c1cccc[nH]1",
    "Oc1ccccn1",
]


def source(tmp_path: Path, smiles: list[str] = MOLECULES, parts: list[str] | None = None) -> Source:
    lines = [f"{one},{part}" for one, part in zip(smiles, parts or [""] * len(smiles), strict=True)]
    path = tmp_path / "data.csv"
    path.write_text("\n".join(["smiles,part", *lines]) + "\n")
    return read_source(Data(path=path))


def blocks(source: Source, places: tuple[int, ...]) -> set[str]:
    return {source.rows[place].molecule.block for place in places}


def scaffolds(source: Source, places: tuple[int, ...]) -> set[str]:
    return {source.rows[place].molecule.scaffold for place in places}


def parts_of(fold: Fold) -> list[tuple[int, ...]]:
    return [fold.train, fold.valid, fold.test]


def test_the_scaffold_split_shares_no_scaffold_and_no_block_and_loses_nobody(tmp_path):
    data = source(tmp_path)
    (fold,) = split_rows(data, Split(kind="scaffold"))
    assert sorted(place for part in parts_of(fold) for place in part) == list(range(len(MOLECULES)))
    assert fold.test
    for names in (blocks, scaffolds):
        train, valid, test = (names(data, part) for part in parts_of(fold))
        assert not train & valid
        assert not (train | valid) & test


def test_the_largest_scaffold_is_trained_on(tmp_path):
    (fold,) = split_rows(source(tmp_path), Split(kind="scaffold"))
    assert set(range(7)) <= set(fold.train)


def test_kfold_tests_every_molecule_once_and_parts_no_block(tmp_path):
    data = source(tmp_path)
    folds = split_rows(data, Split(kind="kfold", folds=5))
    assert sorted(place for fold in folds for place in fold.test) == list(range(len(MOLECULES)))
    for fold in folds:
        assert sorted(place for part in parts_of(fold) for place in part) == list(range(len(MOLECULES)))
        train, valid, test = (blocks(data, part) for part in parts_of(fold))
        assert not train & valid
        assert not (train | valid) & test


def test_folds_follow_their_seed(tmp_path):
    data = source(tmp_path)
    assert split_rows(data, Split(kind="kfold")) == split_rows(data, Split(kind="kfold"))
    assert split_rows(data, Split(kind="kfold", seed=1)) != split_rows(data, Split(kind="kfold"))


def test_a_split_file_names_rows_or_molecules_in_any_spelling(tmp_path):
    data = source(tmp_path, ["CCO", "CCN", "CCC", "CCCl"])
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"train": [0, "NCC"], "test": ["C(Cl)C"]}))
    assert split_rows(data, Split(kind="file", path=path)) == (Fold(train=(0, 1), valid=(), test=(3,)),)


def test_a_split_file_of_other_data_is_refused(tmp_path):
    data = source(tmp_path, ["CCO", "CCN"])
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"test": [7]}))
    with pytest.raises(SampleError, match=r"split\.json: test: names row 7, and the data end at 1"):
        split_rows(data, Split(kind="file", path=path))
    path.write_text(json.dumps({"test": ["CCCC"]}))
    with pytest.raises(SampleError, match=r"test: CCCC is not among the data"):
        split_rows(data, Split(kind="file", path=path))


def test_a_column_names_the_parts(tmp_path):
    data = source(tmp_path, ["CCO", "CCN", "CCC"], ["training", "dev", "test"])
    names = {"train": "training", "valid": "dev", "test": "test"}
    assert split_rows(data, Split(kind="column", column="part", names=names)) == (
        Fold(train=(0,), valid=(1,), test=(2,)),
    )
    with pytest.raises(SampleError, match="has no part 'held-out', only training, dev, test"):
        split_rows(data, Split(kind="column", column="part", names={"test": "held-out"}))


def test_a_leak_between_the_parts_is_an_error_that_names_the_molecule(tmp_path):
    data = source(tmp_path, ["C[C@H](N)C(=O)O", "CCN", "C[C@@H](N)C(=O)O"], ["train", "train", "test"])
    with pytest.raises(LeakError, match=r"train: holds C\[C@H\]\(N\)C\(=O\)O \(QNAYBMKLOCPYGJ\)"):
        split_rows(data, Split(kind="column", column="part"))


def test_leaks_can_be_dropped_from_the_training_and_are_told(tmp_path):
    data = source(tmp_path, ["C[C@H](N)C(=O)O", "CCN", "C[C@@H](N)C(=O)O"], ["train", "train", "test"])
    (fold,) = split_rows(data, Split(kind="column", column="part", leaks="drop"))
    assert fold == Fold(train=(1,), valid=(), test=(2,), dropped=(0,))


def test_the_split_of_the_published_json_keeps_its_rows_when_one_is_left_out(tmp_path):
    path = tmp_path / "pampa.json"
    rows = [{"smiles": smiles, "answer": "High permeability"} for smiles in ("C1CC", "CCO", "CCN")]
    path.write_text(json.dumps({"data_list": rows, "split": {"train": [0, 1], "test": [2]}}))
    data = read_source(Data(path=path, kind="json", skip_invalid=True))
    (fold,) = split_rows(data, Split(kind="data"))
    assert [data.rows[place].smiles for place in fold.test] == ["CCN"]
    assert [data.rows[place].smiles for place in fold.train] == ["CCO"]


def test_a_field_that_the_kind_of_split_does_not_read_is_refused():
    with pytest.raises(ValueError, match="path: is not read by scaffold"):
        Split(kind="scaffold", path=Path("x"))
    with pytest.raises(ValueError, match="column: is missing"):
        Split(kind="column")
