"""The places of atoms and bonds in the tables of OGB 1.3.5, row by row, and where what has no row goes."""

import pytest
from rdkit import Chem
from rdkit.Chem.rdchem import BondStereo

from mol.chem.features import ATOM_SIZES, BOND_SIZES, SYMBOLS, atom_features, bond_features, graph


def atom(smiles: str, index: int = 0) -> list[int]:
    return atom_features(Chem.MolFromSmiles(smiles).GetAtomWithIdx(index))


def bond(smiles: str, index: int = 0) -> list[int]:
    return bond_features(Chem.MolFromSmiles(smiles).GetBondWithIdx(index))


@pytest.mark.parametrize(
    ("smiles", "index", "places"),
    [
        # number, chirality, degree, charge, hydrogens, radicals, hybridisation, aromatic, ring
        ("C", 0, [5, 0, 4, 5, 4, 0, 2, 0, 0]),
        ("c1ccccc1", 0, [5, 0, 3, 5, 1, 0, 1, 1, 1]),
        ("C#N", 1, [6, 0, 1, 5, 0, 0, 0, 0, 0]),
        ("N[C@@H](C)O", 1, [5, 1, 4, 5, 1, 0, 2, 0, 0]),
        ("N[C@H](C)O", 1, [5, 2, 4, 5, 1, 0, 2, 0, 0]),
        ("[NH4+]", 0, [6, 0, 4, 6, 4, 0, 2, 0, 0]),
        ("[O-2]", 0, [7, 0, 0, 3, 0, 0, 2, 0, 0]),
        ("[CH3]", 0, [5, 0, 3, 5, 3, 1, 2, 0, 0]),
        ("[13CH4]", 0, [5, 0, 4, 5, 4, 0, 2, 0, 0]),
        ("[2H]O", 0, [0, 0, 1, 5, 0, 0, 5, 0, 0]),
        ("FP(F)(F)(F)F", 1, [14, 0, 5, 5, 0, 0, 3, 0, 0]),
        ("FS(F)(F)(F)(F)F", 1, [15, 0, 6, 5, 0, 0, 4, 0, 0]),
        ("[Og]", 0, [117, 0, 0, 5, 0, 0, 5, 0, 0]),
    ],
)
def test_an_atom_has_the_places_of_ogb(smiles, index, places):
    assert atom(smiles, index) == places


@pytest.mark.parametrize(
    ("smiles", "index", "feature", "place"),
    [
        ("*C", 0, 0, 118),
        ("C[Pt@SP1](F)(Cl)Br", 1, 1, 3),
        ("[U]([U])([U])([U])([U])([U])([U])([U])([U])([U])([U])[U]", 0, 2, 11),
        ("[C+6]", 0, 3, 11),
        ("[Fe-6]", 0, 3, 11),
        ("[UH9]", 0, 4, 9),
        ("[Fe-5]", 0, 3, 0),
        ("[C+5]", 0, 3, 10),
        ("[H+]", 0, 6, 5),
    ],
)
def test_what_a_list_of_an_atom_does_not_name_has_its_last_place(smiles, index, feature, place):
    assert atom(smiles, index)[feature] == place


def test_more_radical_electrons_than_four_have_the_last_place():
    mol = Chem.MolFromSmiles("[Fe]")
    mol.GetAtomWithIdx(0).SetNumRadicalElectrons(5)
    assert atom_features(mol.GetAtomWithIdx(0))[5] == 5


@pytest.mark.parametrize(
    ("smiles", "index", "places"),
    [
        # type, stereo, conjugated
        ("CC", 0, [0, 0, 0]),
        ("C=C", 0, [1, 0, 0]),
        ("C#C", 0, [2, 0, 0]),
        ("c1ccccc1", 0, [3, 0, 1]),
        ("C=CC=C", 1, [0, 0, 1]),
        ("C->[Fe]", 0, [4, 0, 0]),
        ("C/C=C\\C", 1, [1, 1, 0]),
        ("C/C=C/C", 1, [1, 2, 0]),
    ],
)
def test_a_bond_has_the_places_of_ogb(smiles, index, places):
    assert bond(smiles, index) == places


@pytest.mark.parametrize(
    ("stereo", "place"),
    [
        (BondStereo.STEREOCIS, 3),
        (BondStereo.STEREOTRANS, 4),
        (BondStereo.STEREOANY, 5),
        (BondStereo.STEREOATROPCW, 0),
        (BondStereo.STEREOATROPCCW, 0),
    ],
)
def test_an_atropisomer_bond_is_one_without_stereo(stereo, place):
    mol = Chem.MolFromSmiles("CC=CC")
    found = mol.GetBondWithIdx(1)
    found.SetStereoAtoms(0, 3)
    found.SetStereo(stereo)
    assert bond_features(found)[1] == place


def test_each_feature_stays_below_its_size():
    mols = map(Chem.MolFromSmiles, ["*->[Og]", "CC(=O)Oc1ccccc1C(=O)O", "C[Pt@SP1](F)(Cl)Br", "[C+6]", "C/C=C\\C#N"])
    for mol in mols:
        atoms_N9, _, bonds_E3 = graph(mol)
        assert (atoms_N9 < ATOM_SIZES).all()
        assert (bonds_E3 < BOND_SIZES).all()


def test_each_bond_stands_in_both_directions_with_the_same_features():
    atoms_N9, edges_2E, bonds_E3 = graph(Chem.MolFromSmiles("CC=O"))
    assert atoms_N9.shape == (3, 9)
    assert edges_2E.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
    assert bonds_E3.tolist() == [[0, 0, 0]] * 2 + [[1, 0, 0]] * 2


def test_uni_mol_knows_31_symbols():
    assert len(SYMBOLS) == len(set(SYMBOLS)) == 31
    assert SYMBOLS[:5] == ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "C")
    assert SYMBOLS[-2:] == ("Li", "[MASK]")
