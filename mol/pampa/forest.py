"""The control: a random forest over fingerprints. What it knows of a molecule is which fragments it has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.ensemble import RandomForestClassifier

from flexreward.evals.table import Floats, Ints
from mol.chem.identity import fingerprints
from mol.pampa.recipe import Forest
from mol.pampa.sources import Row
from mol.pampa.splits import Fold


def forest_scores(rows: Sequence[Row], truth_N: Ints, folds: Sequence[Fold], forest: Forest, *, seed: int) -> Floats:
    """(F, N) probability of the positive label, a row for each fold, by a forest that saw the fold's training alone.

    NaN for molecules that are neither validation nor test of that fold, and throughout where its training has not both
    labels.
    """
    bits_NK = fingerprints([row.smiles for row in rows], radius=forest.radius, bits=forest.bits)
    scores_FN = np.full((len(folds), len(rows)), np.nan)
    for scores_N, fold in zip(scores_FN, folds, strict=True):
        train = np.array(fold.train, dtype=np.int64)
        if len(np.unique(truth_N[train])) < 2:
            continue
        model = RandomForestClassifier(
            n_estimators=forest.trees,
            class_weight="balanced" if forest.balanced else None,
            random_state=seed,
            n_jobs=1,
        )
        model.fit(bits_NK[train], truth_N[train])
        asked = np.array([*fold.valid, *fold.test], dtype=np.int64)
        scores_N[asked] = model.predict_proba(bits_NK[asked])[:, 1]
    return scores_FN
