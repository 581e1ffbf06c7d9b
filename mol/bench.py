"""``flexreward bench mol``: what molecules cost.

``featurise_cold``: distinct molecules, nothing on disk yet, against bare RDKit: the same molecules parsed, embedded by
ETKDG and refined by MMFF in as many processes (a ``multiprocessing`` pool), which compute no feature and no InChIKey
and keep nothing. Both have their processes started.

``featurise_epochs``: three passes over those molecules, of which the last two find them on disk, against making each
anew at each access in one process, as the published data set does. Ours counts from before its workers start.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter

import numpy as np

from flexreward.bench import Bar, Interval
from mol.chem.cache import Featuriser
from mol.chem.molecule import featurise

COLD_GOAL, EPOCHS_GOAL = 0.95, 3.0
EPOCHS = 3
ROUNDS = 3
CHUNK = 4
"""Molecules that a process of the bare pool takes at a time."""

ACIDS = (
    *("Cc1ccccc1", "COc1cccc(OC)c1", "Clc1ccc(cc1)C", "c1ccc2ccccc2c1", "O=C1NCCN1c1ccccc1", "CC(C)c1nc2ccccc2n1C"),
    *("FC(F)(F)c1ccccc1C", "C1CCN(CC1)S(=O)(=O)c1ccccc1", "Cc1onc(c1C)c1ccccc1", "C[C@@H](NC(C)=O)Cc1ccccc1"),
    *("Cn1nc(C)cc1", "C1COCCN1c1ncccc1"),
)
"""Each ends in the atom that bears the carboxyl group."""
AMINES = (
    *("NCc1ccccc1", "N1CCN(CC1)c1ccccn1", "NCCc1c[nH]c2ccccc12", "N1CCOCC1", "Nc1nc(cs1)c1ccccc1", "N1CCC(CC1)C(N)=O"),
    *(
        "NC1CCCCC1",
        "NCCCN1CCOCC1",
        "Nc1ccc(cc1)S(N)(=O)=O",
        "N[C@@H](C)c1ccncc1",
        "N1CCc2ccccc2C1",
        "NCC(O)c1ccc(O)cc1",
    ),
)


def featurise_bars(
    num_molecules: int = len(ACIDS) * len(AMINES), rounds: int = ROUNDS, workers: int | None = None
) -> dict[str, Bar]:
    """Both figures, the median of the rounds from the least to the greatest; baselines in molecules a second.

    Args:
        workers: Processes of ours and of the bare pool; ``None`` for one a core.
    """
    smiles = amides()[:num_molecules]
    cold, bare, epochs, serial = ([0.0] * rounds for _ in range(4))
    with tempfile.TemporaryDirectory() as folder:
        for i in range(rounds):
            with Featuriser(cache=f"{folder}/cold{i}", workers=workers) as featuriser:
                _run(featuriser.featurise_all(["C"] * featuriser.workers))
                cold[i] = _seconds(lambda smiles=smiles, made=featuriser: _run(made.featurise_all(smiles)))
            with multiprocessing.get_context("forkserver").Pool(featuriser.workers) as pool:
                _run(pool.imap(embedded, ["C"] * featuriser.workers))
                bare[i] = _seconds(lambda smiles=smiles, pool=pool: _run(pool.imap(embedded, smiles, CHUNK)))
            epochs[i] = _seconds(lambda smiles=smiles, to=f"{folder}/epochs{i}": _passes(smiles, to, workers))
            serial[i] = _seconds(lambda smiles=smiles: _run(featurise(one) for one in smiles * EPOCHS))
    return {
        "featurise_cold": _ratio(bare, cold, len(smiles), COLD_GOAL),
        "featurise_epochs": _ratio(serial, epochs, len(smiles) * EPOCHS, EPOCHS_GOAL),
    }


def amides() -> list[str]:
    """144 molecules of the size of drugs, as canonical SMILES: in another order of atoms both sides had other work."""
    from rdkit import Chem

    return [Chem.CanonSmiles(f"{acid}C(=O){amine}") for acid in ACIDS for amine in AMINES]


def embedded(smiles: str) -> np.ndarray:
    """Bare RDKit: (A, 3) coordinates of all atoms, in angstrom."""
    from rdkit import Chem
    from rdkit.Chem import rdDistGeom
    from rdkit.Chem.rdForceFieldHelpers import MMFFOptimizeMolecule

    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    parameters = rdDistGeom.ETKDGv3()
    parameters.randomSeed = 0
    rdDistGeom.EmbedMolecule(mol, parameters)
    MMFFOptimizeMolecule(mol)
    return np.asarray(mol.GetConformer().GetPositions())


def _passes(smiles: Sequence[str], folder: str, workers: int | None) -> None:
    with Featuriser(cache=folder, workers=workers) as featuriser:
        for _ in range(EPOCHS):
            _run(featuriser.featurise_all(smiles))


def _run(made: Iterable[object]) -> None:
    for _ in made:
        pass


def _seconds(work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start


def _ratio(baseline_s: Sequence[float], ours_s: Sequence[float], num_molecules: int, goal: float) -> Bar:
    """How many times as long the baseline takes, round by round."""
    ratios = [slow / fast for slow, fast in zip(baseline_s, ours_s, strict=True)]
    per_s = num_molecules / statistics.median(baseline_s)
    spread = Interval(min(ratios), max(ratios))
    return Bar(value=statistics.median(ratios), goal=goal, baseline=per_s, n=num_molecules, interval=spread)
