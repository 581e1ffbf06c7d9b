"""Which of several candidates the judge's scores choose, over trials; and whether the scores tell right from wrong."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from flexreward.evals.metrics.bootstrap import Metric, sampled
from flexreward.evals.table import Ints
from mol.pampa.asking import Candidate
from mol.pampa.figures import FIGURES, Predicted, area
from mol.pampa.reading import UNREAD
from mol.pampa.recipe import BestOfN

Candidates = Mapping[str, Sequence[Candidate]]
"""By the molecule's identity, never by a place in a file."""


def choose(
    candidates: Candidates, molecules: Sequence[str], best: BestOfN, *, n: int, seed: int, published: bool = False
) -> Predicted:
    """What best-of-n answers of each molecule, a column for each trial.

    A trial draws n of the candidates' numbers, the same for all molecules, and among the best scores one; the draws
    follow from the seed, the trial and the molecule alone. A molecule without a score is unread, and so is one whose
    chosen answer is.

    Args:
        molecules: Identities, in the order of the rows to be told.
        published: Read answers and scores as the published code does.

    Returns:
        The scores are how far the best positive candidate lies above the best negative one; a side without a candidate
        has the low end of the scale, and both without one say nothing.
    """
    labels_NT = np.full((len(molecules), best.trials), UNREAD, dtype=np.int64)
    scores_NT = np.full((len(molecules), best.trials), np.nan)
    for trial in range(best.trials):
        rng = np.random.default_rng([seed, n, trial])
        drawn = rng.choice(best.candidates, size=n, replace=False)
        for place, molecule in enumerate(molecules):
            found = candidates.get(molecule, ())
            scored = [
                (score, label)
                for number in drawn
                if number < len(found)
                for score, label in [_told(found[number], published)]
                if score is not None and (best.judging.threshold is None or score >= best.judging.threshold)
            ]
            if not scored:
                continue
            top = max(score for score, _ in scored)
            tied = [label for score, label in scored if score == top]
            labels_NT[place, trial] = tied[_draw(f"{seed} {n} {trial} {molecule}", len(tied))]
            sides = [[score for score, label in scored if label == side] for side in (0, 1)]
            if any(sides):
                low = best.judging.scale[0]
                scores_NT[place, trial] = max(sides[1], default=low) - max(sides[0], default=low)
    return Predicted(labels_NT=labels_NT, scores_NT=scores_NT)


def _told(candidate: Candidate, published: bool) -> tuple[float | None, int]:
    if published:
        return candidate.published_score, candidate.answer.published
    return candidate.score, candidate.answer.label


def _draw(name: str, count: int) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) % count


def counts(candidates: Candidates, molecules: Sequence[str]) -> dict[str, Any]:
    """How many candidates there are, and of how many something could not be read, by reason."""
    found = [one for molecule in molecules for one in candidates.get(molecule, ())]
    return {
        "candidates": len(found),
        "unread": dict(Counter(str(one.answer.reason) for one in found if one.answer.reason)),
        "unscored": dict(Counter(str(one.reason) for one in found if one.reason)),
        "molecules_without_a_score": sum(
            all(one.score is None for one in candidates.get(molecule, ())) for molecule in molecules
        ),
    }


def discrimination(
    candidates: Candidates, molecules: Sequence[str], truth_N: Ints, best: BestOfN, *, clusters: Ints, seed: int
) -> list[dict[str, Any]]:
    """For each predicted label: how many candidates each bin of scores has, and how many of them are right.

    A judge whose score says no more than which label was predicted has the same share of right ones in every bin of a
    label, and an area of one half there.
    """
    edges = best.judging.bins
    bounds = [best.judging.scale[0], *edges, best.judging.scale[1]]
    told = [
        (one.answer.label, one.score, int(one.answer.label == truth), cluster)
        for molecule, truth, cluster in zip(molecules, truth_N.tolist(), clusters.tolist(), strict=True)
        for one in candidates.get(molecule, ())
        if one.score is not None and one.answer.label != UNREAD
    ]
    found = []
    for label in (1, 0):
        scores_M = np.array([score for said, score, _, _ in told if said == label])
        right_M = np.array([right for said, _, right, _ in told if said == label], dtype=np.int64)
        cluster_M = np.array([cluster for said, _, _, cluster in told if said == label], dtype=np.int64)
        places = np.digitize(scores_M, edges)
        ranked = sampled(_AREA, right_M, scores_M, seed=seed, clusters=cluster_M).estimate
        bins = [
            {
                "from": low,
                "to": high,
                "count": int((places == place).sum()),
                "right": int(right_M[places == place].sum()),
            }
            for place, (low, high) in enumerate(pairwise(bounds))
        ]
        known = not np.isnan(ranked.value)
        found.append(
            {
                "label": label,
                "count": len(scores_M),
                "right": int(right_M.sum()),
                "bins": bins,
                "auroc": {
                    "value": ranked.value if known else None,
                    "low": ranked.low if known else None,
                    "high": ranked.high if known else None,
                },
            }
        )
    return found


def spread_of(truth_N: Ints, predicted: Predicted) -> dict[str, float]:
    """Standard deviation over the trials, which the published code prints too, in shares of 1."""
    found = {}
    for name in ("accuracy", "balanced_accuracy", "accuracy_of_read"):
        values = [
            FIGURES[name].exact(truth_N, predicted.labels_NT[:, [t]], predicted.scores_NT[:, [t]])
            for t in range(predicted.labels_NT.shape[1])
        ]
        found[name] = float(np.std(values))
    return found


_AREA = Metric(
    exact=lambda right_N, scores_N: float(area(np.ones((1, len(right_N))), right_N, scores_N)[0]), weighted=area
)
