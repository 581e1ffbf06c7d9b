"""From text to a molecule: what is taken and how its coordinates came about, and what is refused by name."""

import os
import subprocess
import sys

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdDepictor, rdDistGeom, rdMolTransforms

from mol.chem.molecule import MAX_ATOMS, Molecule, MoleculeError, featurise
from mol.chem.shelf import encoded

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
NO_SUCH_BRIDGE = "O=C1C[C@@H]2CC[C@@H]1C2"
"""Norbornanone with its bridge on both sides at once."""


def clique(num_atoms: int) -> str:
    """Each bonded to each: in three dimensions there is no such thing."""
    mol = Chem.RWMol()
    for i in range(num_atoms):
        mol.AddAtom(Chem.Atom("U"))
        for j in range(i):
            mol.AddBond(i, j, Chem.BondType.SINGLE)
    return Chem.MolToSmiles(mol)


def block(smiles: str, *, dimension: int = 3, hydrogens: bool = True) -> str:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    if dimension == 3:
        rdDistGeom.EmbedMolecule(mol, randomSeed=7)
    else:
        rdDepictor.Compute2DCoords(mol)
    return Chem.MolToMolBlock(mol if hydrogens else Chem.RemoveHs(mol))


def distances(molecule: Molecule) -> np.ndarray:
    return np.linalg.norm(molecule.coords_A3[:, None] - molecule.coords_A3[None], axis=-1)


def test_a_smiles_becomes_a_graph_and_coordinates_of_its_heavy_atoms():
    found = featurise("OCC")
    assert found.smiles == "CCO"
    assert found.atoms_N9.shape == (3, 9)
    assert found.edges_2E.shape == (2, 4)
    assert found.bonds_E3.shape == (4, 3)
    assert found.symbols == ("C", "C", "O")
    assert [array.dtype for array in (found.atoms_N9, found.edges_2E, found.bonds_E3)] == [np.int64] * 3
    assert found.coords_A3.dtype == np.float32
    assert 1.4 < distances(found)[0, 1] < 1.6
    assert found.made == "etkdg"
    assert found.inchikey_block == "LFQSCWFLJHTTHZ"


def test_every_way_to_write_a_molecule_gives_the_same_bytes():
    written = [ASPIRIN, "O=C(C)Oc1c(C(O)=O)cccc1", "C1=CC=CC(OC(C)=O)=C1C(=O)O", f" {ASPIRIN}\n"]
    assert len({encoded(featurise(text)) for text in written}) == 1


def test_another_seed_gives_other_coordinates_and_the_same_graph():
    one, other = featurise(ASPIRIN, seed=1), featurise(ASPIRIN, seed=2)
    assert (one.coords_A3 != other.coords_A3).any()
    assert (one.atoms_N9 == other.atoms_N9).all()


def test_a_fresh_process_gives_the_same_bytes():
    code = f"from mol.chem.molecule import featurise; from mol.chem.shelf import encoded; import sys\n\
sys.stdout.buffer.write(encoded(featurise({ASPIRIN!r}, seed=5)))"
    env = {**os.environ, "PYTHONHASHSEED": "11"}
    told = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, env=env).stdout
    assert told == encoded(featurise(ASPIRIN, seed=5))


@pytest.mark.parametrize(
    ("smiles", "made"),
    [
        ("[Na+]", "etkdg"),
        ("[He]", "etkdg"),
        ("C", "etkdg"),
        ("[H+]", "etkdg"),
        ("[NH3+]CC(=O)[O-]", "etkdg"),
        ("C[CH2]", "etkdg"),
        ("[O][O]", "etkdg-unrefined"),
        ("[13CH3]C", "etkdg"),
        ("[H][H]", "etkdg"),
        ("CC(=O)Nc1ccccc1.Cl.Cl", "etkdg-apart"),
        ("CC(=O)Nc1ccccc1.C[Pt]C", "etkdg-unrefined-apart"),
        ("[U](F)(F)(F)(F)(F)F", "etkdg-unrefined"),
        ("Cl[Pt](Cl)(N)N", "etkdg-unrefined"),
        ("C->[Fe]", "etkdg-unrefined"),
        ("*CC", "etkdg-unrefined"),
        ("[Na+].[Cl-]", "etkdg-apart"),
        ("[cH-]1cccc1.[cH-]1cccc1.[Fe+2]", "etkdg-apart"),
        ("O=C1CCCCCCCCCCCCCCO1", "etkdg"),
        ("C1CCCCCCCCCCCCCCCCC1CCCCCCCCCCCCCCC", "etkdg-random"),
        ("C1#CC1", "etkdg-loose"),
        (NO_SUCH_BRIDGE, "etkdg-loose"),
        (clique(8), "flat"),
        ("Oc1ccc2ccccc2c1-c1c(O)ccc2ccccc12 |wU:10.10|", "etkdg"),
    ],
)
def test_the_unusual_has_coordinates_and_says_how_they_were_made(smiles, made):
    found = featurise(smiles)
    assert found.made == made
    assert np.isfinite(found.coords_A3).all()
    assert found.coords_A3.shape == (len(found.symbols), 3)
    apart = distances(found)[~np.eye(len(found.symbols), dtype=bool)]
    assert (apart > 0.5).all() or made == "flat"


def test_a_single_atom_has_no_edges_and_lies_at_the_origin():
    found = featurise("[Na+]")
    assert (found.edges_2E.shape, found.bonds_E3.shape) == ((2, 0), (0, 3))
    assert found.coords_A3.tolist() == [[0, 0, 0]]


def test_the_parts_of_a_salt_do_not_lie_in_one_another():
    found = featurise("c1ccccc1.c1ccccc1.[Na+].[Cl-]")
    parts = [[i for i in range(14) if lot[i]] for lot in (part_of(found, start) for start in range(14))]
    between = [distances(found)[i, j] for i in range(14) for j in range(14) if j not in parts[i]]
    assert min(between) > 2.4


def part_of(molecule: Molecule, start: int) -> list[bool]:
    """Which nodes hang together with one; of these molecules, nodes and coordinates are in one order."""
    reached = {start}
    while more := {t for s, t in molecule.edges_2E.T.tolist() if s in reached} - reached:
        reached |= more
    return [node in reached for node in range(len(molecule.atoms_N9))]


def test_hydrogens_have_no_coordinates_unless_there_is_nothing_else():
    assert featurise("[2H]O[2H]").symbols == ("O",)
    assert len(featurise("[2H]O[2H]").atoms_N9) == 3
    assert featurise("[H][H]").symbols == ("H", "H")
    assert featurise("[2H]C([2H])([2H])Cl").symbols == ("C", "Cl")


def test_stereo_is_kept_where_a_geometry_can_have_it():
    for smiles in ("C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O"):
        # By the handedness of the four neighbours, of which the hydrogen is not kept.
        a, b, c = (featurise(smiles).coords_A3[i] - featurise(smiles).coords_A3[1] for i in (0, 2, 3))
        assert np.sign(np.dot(a, np.cross(b, c))) == (-1 if "@@" in smiles else 1)


def test_an_inchikey_block_is_one_for_all_stereoisomers_and_isotopes():
    texts = ["C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O", "CC(N)C(=O)O", "[13CH3]C(N)C(=O)O"]
    assert {featurise(text).inchikey_block for text in texts} == {"QNAYBMKLOCPYGJ"}


def test_what_inchi_does_not_know_is_named_by_its_smiles_without_stereo():
    assert featurise("*C[C@H](N)F").inchikey_block == featurise("*C[C@@H](N)F").inchikey_block == "no-inchi:*CC(N)F"


def test_the_coordinates_of_a_3d_block_are_used_as_they_are():
    text = block("C[C@H](N)C(=O)O")
    given = Chem.RemoveHs(Chem.MolFromMolBlock(text)).GetConformer().GetPositions()
    found = featurise(text)
    assert found.made == "sdf"
    assert found.smiles == "C[C@H](N)C(=O)O"
    assert (found.coords_A3 == given.astype(np.float32)).all()
    assert (found.atoms_N9 == featurise("C[C@H](N)C(=O)O").atoms_N9).all()


def test_the_stereo_of_a_3d_block_comes_from_its_coordinates():
    mirrored = Chem.MolFromMolBlock(block("C[C@H](N)C(=O)O"), removeHs=False)
    rdMolTransforms.TransformConformer(mirrored.GetConformer(), np.diag([-1.0, 1.0, 1.0, 1.0]))
    assert featurise(Chem.MolToMolBlock(mirrored)).smiles == "C[C@@H](N)C(=O)O"


@pytest.mark.parametrize("hydrogens", [True, False])
def test_a_2d_block_is_made_as_its_smiles_is(hydrogens):
    assert encoded(featurise(block(ASPIRIN, dimension=2, hydrogens=hydrogens))) == encoded(featurise(ASPIRIN))


def test_a_record_of_an_sdf_file_is_a_block_and_its_fields_are_passed_over():
    assert featurise(f"{block('CCO')}>  <name>\nethanol\n\n$$$$\n").smiles == "CCO"


def test_a_block_of_which_all_atoms_lie_in_one_point_is_made_as_its_smiles_is():
    mol = Chem.MolFromMolBlock(block("CCO"))
    for i in range(3):
        mol.GetConformer().SetAtomPosition(i, [0.0, 0.0, 1.0])
    assert featurise(Chem.MolToMolBlock(mol)).made == "etkdg"


def test_the_largest_molecule_that_uni_mol_takes_is_taken():
    lines = [f"{float(i) * 1.5:10.4f}{0.5 * (i % 2):10.4f}{0.1:10.4f} C   0" for i in range(MAX_ATOMS)]
    bonds = [f"{i:3d}{i + 1:3d}  1  0" for i in range(1, MAX_ATOMS)]
    text = "\n".join(
        ["", "  made    3D", "", f"{MAX_ATOMS:3d}{len(bonds):3d}  0  0  0  0            999 V2000", *lines]
    )
    found = featurise("\n".join([text, *bonds, "M  END"]))
    assert found.coords_A3.shape == (MAX_ATOMS, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'': no atoms; leave it out"),
        ("C1CC", "'C1CC': cannot be read as SMILES; mend it or leave it out"),
        ("[Xx]", "'[Xx]': cannot be read as SMILES; mend it or leave it out"),
        ("CC O", "'CC O': cannot be read as SMILES; mend it or leave it out"),
        ("CCO ethanol", "'CCO ethanol': cannot be read as SMILES; mend it or leave it out"),
        (
            "CC(C)(C)(C)C",
            "'CC(C)(C)(C)C': is no molecule: Explicit valence for atom # 1 C, 5, is greater than permitted; "
            "mend it or leave it out",
        ),
        (
            "c1cccc1",
            "'c1cccc1': is no molecule: Can't kekulize mol.  Unkekulized atoms: 0 1 2 3 4; mend it or leave it out",
        ),
        ("C" * 513, f"'{'C' * 299}... (513 characters): 513 heavy atoms, at most 512 are taken; leave it out"),
        ("C" * 10_001, f"'{'C' * 299}... (10,001 characters): 10,001 characters, at most 10,000 are read"),
        ("name\nCCO", "SDF block 'name': cannot be read as SDF block; mend it or leave it out"),
        (f"a{block('C')}$$$$\nb{block('C')}", "SDF block 'a': more than one record; give one molecule at a time"),
    ],
)
def test_what_is_no_molecule_is_refused_by_name(text, message):
    with pytest.raises(MoleculeError) as error:
        featurise(text)
    assert str(error.value) == message


def test_a_cell_without_text_is_refused():
    with pytest.raises(MoleculeError, match=r"^'nan': float, expected a SMILES or an SDF block$"):
        featurise(float("nan"))


def test_a_coordinate_that_is_no_number_is_refused():
    text = block("CCO").splitlines()
    text[4] = "       nan" + text[4][10:]
    with pytest.raises(MoleculeError, match=r"^SDF block"):
        featurise("\n".join(text))


@pytest.mark.parametrize("seed", [-1, 2**31])
def test_a_seed_that_rdkit_does_not_take_is_refused(seed):
    with pytest.raises(ValueError, match=r"^seed: "):
        featurise("C", seed=seed)


def test_a_refused_molecule_says_nothing_on_stderr(capfd):
    with pytest.raises(MoleculeError):
        featurise("C1CC")
    featurise("*CC")
    assert capfd.readouterr().err == ""


def test_chemistry_loads_no_torch():
    code = "import mol.chem.cache, sys; print({'torch', 'transformers', 'pandas'} & sys.modules.keys())"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"
