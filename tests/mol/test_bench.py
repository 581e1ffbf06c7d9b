"""The bench of molecules: few of them, once."""

from rdkit import Chem

from mol.bench import COLD_GOAL, EPOCHS_GOAL, amides, featurise_bars


def test_featurising_ends_in_a_cold_pass_and_three_epochs_beside_their_baselines():
    bars = featurise_bars(num_molecules=3, rounds=1, workers=1)
    assert {name: (bar.goal, bar.n) for name, bar in bars.items()} == {
        "featurise_cold": (COLD_GOAL, 3),
        "featurise_epochs": (EPOCHS_GOAL, 9),
    }
    assert all(bar.value > 0 and bar.baseline > 0 for bar in bars.values())


def test_its_molecules_are_distinct_and_of_the_size_of_drugs():
    mols = list(map(Chem.MolFromSmiles, amides()))
    assert len({Chem.MolToSmiles(mol) for mol in mols}) == len(mols) == 144
    assert all(13 <= mol.GetNumHeavyAtoms() <= 35 for mol in mols)
