import pytest

from mol.chem.identity import LeakError, fingerprints, identity, refuse_leaks
from mol.chem.molecule import MoleculeError


def test_two_spellings_of_a_molecule_have_one_identity():
    assert identity("OCC") == identity("C(O)C")


def test_stereoisomers_and_tautomers_share_a_block_and_no_smiles():
    left, right = identity("C[C@H](N)C(=O)O"), identity("C[C@@H](N)C(=O)O")
    assert left.smiles != right.smiles
    assert left.block == right.block
    assert identity("Oc1ccccn1").block == identity("O=c1cccc[nH]1").block


def test_a_scaffold_is_the_rings_without_stereochemistry():
    assert identity("CCc1ccccc1").scaffold == "c1ccccc1"
    assert identity("CCO").scaffold == ""


@pytest.mark.parametrize("smiles", ["", "C1CC", "not smiles", "C(C)(C)(C)(C)C"])
def test_what_is_no_molecule_is_named(smiles):
    with pytest.raises(MoleculeError, match="leave it out"):
        identity(smiles)


def test_a_leak_names_both_spellings_and_the_place():
    with pytest.raises(LeakError) as error:
        refuse_leaks(["CCO", "C[C@H](N)C(=O)O"], {"sft.jsonl": ["CCC"], "dpo.jsonl": ["nonsense", "CC(N)C(=O)O"]})
    assert str(error.value).startswith("dpo.jsonl: holds CC(N)C(=O)O (QNAYBMKLOCPYGJ), which is the test molecule C[C@")


def test_molecules_apart_are_no_leak():
    assert refuse_leaks(["CCO"], {"sft.jsonl": ["CCC", "CCN"]}) is None


def test_fingerprints_are_bits_in_the_order_asked():
    both = fingerprints(["CCO", "c1ccccc1"], radius=2, bits=512)
    assert both.shape == (2, 512)
    assert set(both.ravel().tolist()) == {0, 1}
    assert (both[1] == fingerprints(["c1ccccc1"], radius=2, bits=512)[0]).all()
