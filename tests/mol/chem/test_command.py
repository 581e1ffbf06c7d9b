"""``python -m mol.chem``: a table in, the unusual and the counts out."""

from pathlib import Path

import pytest
import typer

from mol.chem.__main__ import column_of, main
from mol.chem.molecule import featurise

DATA = Path(__file__).parents[4] / "shared" / "data"


def test_the_unusual_has_a_line_each_and_all_are_counted(tmp_path, capsys):
    (tmp_path / "some.csv").write_text('name,smiles\n"a, b",CCO\nc,C1CC\nd,[Na+].[Cl-]\ne,\nf,CCN\n')
    main(tmp_path / "some.csv", workers=0, cache=tmp_path / "kept")
    assert capsys.readouterr().out.splitlines() == [
        "error\t'C1CC': cannot be read as SMILES; mend it or leave it out",
        "etkdg-apart\t'[Na+].[Cl-]'",
        "error\t'': no atoms; leave it out",
        "5 molecules: 2 etkdg, 2 error, 1 etkdg-apart",
    ]
    assert len(list((tmp_path / "kept").rglob("*.safetensors"))) == 3


def test_quotes_between_tabs_are_text(tmp_path):
    (tmp_path / "some.txt").write_text('SMILES\tdescription\nCCO\t"half a quote\nCCN\tend\n')
    assert list(column_of(tmp_path / "some.txt", "SMILES")) == ["CCO", "CCN"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("some.csv", "some.csv: no column 'smiles', expected one of a, b; use --column\n"),
        ("none.csv", "none.csv: cannot be read: No such file or directory\n"),
    ],
)
def test_a_table_that_does_not_fit_is_told_in_one_line(tmp_path, monkeypatch, capsys, name, message):
    monkeypatch.chdir(tmp_path)
    Path("some.csv").write_text("a,b\n1,2\n")
    with pytest.raises(typer.Exit) as ended:
        main(Path(name), workers=0)
    assert ended.value.exit_code == 2
    assert capsys.readouterr().err == message


@pytest.mark.skipif(not DATA.exists(), reason="the real data lies beside the repository only where copied")
@pytest.mark.parametrize(
    ("smiles", "made"),
    [
        ("CCCCOc1ccc(CC(=O)NO)cc1", "etkdg"),
        ("Cc1cccc(Nc2nc(NCc3ccco3)c3ccccc3n2)c1.Cl", "etkdg-apart"),
        ("CCc1ccc(NC(=O)[C@H](Cc2c[nH]c3ccccc23)NC(=O)[C@@H]2Cc3ccccc3CN2)cc1", "etkdg-random"),
    ],
)
def test_real_molecules_of_pampa_are_made_as_told(smiles, made):
    assert smiles in set(column_of(DATA / "pampa" / "ncats_pampa_ph7.4.csv", "canonical_smiles"))
    assert featurise(smiles).made == made
