import json
from pathlib import Path

import pytest

from flexreward.errors import SampleError
from mol.pampa.recipe import Data, Definition, Known
from mol.pampa.sources import known_molecules, labels_of, read_source

TABLE = "name,smiles,Y\na,CCO,1\nb,C1CC,0\nc,c1ccccc1,0\n"


def table(tmp_path: Path, text: str = TABLE, name: str = "data.csv") -> Path:
    (tmp_path / name).write_text(text)
    return tmp_path / name


def test_a_table_keeps_its_columns_and_its_order(tmp_path):
    source = read_source(Data(path=table(tmp_path, TABLE.replace("C1CC", "CCN")), id="name"))
    assert [row.id for row in source.rows] == ["a", "b", "c"]
    assert [row.fields["Y"] for row in source.rows] == ["1", "0", "0"]


def test_an_invalid_molecule_stops_the_reading_and_is_named(tmp_path):
    with pytest.raises(SampleError, match=r"data\.csv: row 1: 'C1CC': cannot be read .*, or set data.skip_invalid"):
        read_source(Data(path=table(tmp_path)))


def test_an_invalid_molecule_left_out_shifts_no_other(tmp_path):
    source = read_source(Data(path=table(tmp_path), skip_invalid=True))
    assert [row.number for row in source.rows] == [0, 2]
    assert source.invalid == ((1, "C1CC"),)


def test_a_file_of_tdc_is_cut_at_tabs(tmp_path):
    path = table(tmp_path, "Drug_ID\tDrug\tY\nx\tCCO\t1\n", "pampa_ncats.tab")
    source = read_source(Data(path=path, smiles="Drug", id="Drug_ID"))
    assert (source.rows[0].id, source.rows[0].molecule.smiles, source.rows[0].fields["Y"]) == ("x", "CCO", "1")


def test_a_column_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SampleError, match=r"row 0: has no 'Drug', only name, smiles, Y"):
        read_source(Data(path=table(tmp_path), smiles="Drug"))


def test_labels_follow_the_definition(tmp_path):
    source = read_source(Data(path=table(tmp_path), skip_invalid=True))
    assert labels_of(source, "t", Definition(column="Y", positive=["1"], negative=["0"])).tolist() == [1, 0]
    assert labels_of(source, "t", Definition(column="Y", positive=["0"])).tolist() == [0, 1]


def test_a_value_of_neither_label_is_an_error(tmp_path):
    source = read_source(Data(path=table(tmp_path), skip_invalid=True))
    with pytest.raises(SampleError, match=r"row 2: Y is '0', which is neither label of task 'low'"):
        labels_of(source, "low", Definition(column="Y", positive=["1"], negative=["2"]))


def test_the_published_json_brings_prompts_split_and_answers(tmp_path):
    published = {
        "prompts": {"default": {"system": "s", "user": "of <mol>"}},
        "data_list": [
            {"smiles": "CCO", "atoms": ["C", "C", "O"], "coordinates": [[[0, 0, 0]]], "answer": "High permeability"},
            {"smiles": "CCN", "atoms": [], "coordinates": [], "answer": "Low-to-moderate permeability"},
        ],
        "split": {"test": [1]},
    }
    path = table(tmp_path, json.dumps(published), "pampa.json")
    source = read_source(Data(path=path, kind="json"))
    assert source.styles["default"].user == "of <mol>"
    assert source.split == {"test": (1,)}
    assert labels_of(source, "t", Definition(column="answer", positive=["High permeability"])).tolist() == [1, 0]


def test_what_a_model_learnt_from_is_read_from_tables_and_lines(tmp_path):
    lines = table(tmp_path, '{"molecules": ["CCO", "CC"]}\n{"molecules": "CCC"}\n', "sft.jsonl")
    assert list(known_molecules(Known(path=lines, smiles="molecules"))) == ["CCO", "CC", "CCC"]
    assert list(known_molecules(Known(path=table(tmp_path)))) == ["CCO", "C1CC", "c1ccccc1"]


def test_the_measured_molecules_are_all_there(shared_data):
    path = shared_data / "pampa" / "ncats_pampa_ph7.4.csv"
    if not path.is_file():
        pytest.skip("shared/data/pampa is not there")
    source = read_source(Data(path=path, smiles="canonical_smiles", id="PUBCHEM_CID"))
    low = labels_of(source, "low", Definition(column="Phenotype", positive=["High", "Moderate"], negative=["Low"]))
    both = Definition(column="low_moderate_permeability", positive=["0"], negative=["1"])
    low_or_moderate = labels_of(source, "low-or-moderate", both)
    assert len(source.rows) == 2033
    assert not source.invalid
    assert (int((low == 0).sum()), int((low_or_moderate == 0).sum())) == (295, 651)
    assert (round(float((low == 0).mean()), 3), round(float((low_or_moderate == 0).mean()), 3)) == (0.145, 0.320)
