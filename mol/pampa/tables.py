"""Everything that is told of a task, as plain values: a row a method, each beside the constant and the forest.

Letters of the shapes: N tested molecules of all folds together, F folds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from flexreward.evals.table import Floats, Ints
from mol.pampa import best_of_n as best
from mol.pampa.asking import Answer, Candidate
from mol.pampa.figures import COMPARED, Predicted, best_threshold, difference, figures
from mol.pampa.reading import UNREAD
from mol.pampa.recipe import Recipe
from mol.pampa.sources import Row, Source, labels_of
from mol.pampa.splits import Fold, Places

GREEDY, TUNED, CONSTANT, FOREST, FOREST_TUNED = "greedy", "threshold", "constant", "forest", "forest, threshold"


class Asked(NamedTuple):
    """Whom, and in which words."""

    model: str
    style: str


@dataclass(frozen=True, kw_only=True)
class Replies:
    """Everything that models said, by the molecule's canonical SMILES."""

    greedy: Mapping[Asked, Mapping[str, Answer]] = field(default_factory=dict)
    candidates: Mapping[Asked, Mapping[str, Sequence[Candidate]]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Line:
    """One method, before its figures."""

    method: str
    model: str | None
    style: str | None
    predicted: Predicted
    lenient: Predicted | None = None
    """The same replies by the published reading."""
    published: float | None = None
    """The published accuracy beside it, in percent."""
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return ", ".join(part for part in (self.model, self.method, self.style) if part)


def tested(folds: Sequence[Fold]) -> Places:
    """Places of the molecules that figures are of: the tests of all folds, in the order of the folds."""
    return tuple(place for fold in folds for place in fold.test)


def table_of(
    recipe: Recipe, source: Source, folds: Sequence[Fold], task: str, replies: Replies, forest_FN: Floats | None
) -> dict[str, Any]:
    """The table of one label definition, its differences, the judge's bins and the curve over n."""
    truth = labels_of(source, task, recipe.tasks[task])
    places = np.array(tested(folds), dtype=np.int64)
    blocks = np.unique([row.molecule.block for row in source.rows], return_inverse=True)[1]
    truth_N, clusters_N = truth[places], blocks[places].astype(np.int64)
    rows = [source.rows[place] for place in places]
    lines = list(_lines(recipe, source.rows, rows, folds, truth, replies, forest_FN))
    return {
        "task": task,
        "negative": recipe.labels.negative.name,
        "n": len(places),
        "negative_share": float((truth_N == 0).mean()),
        "negative_share_of_all": float((truth == 0).mean()),
        "rows": [_row(line, truth_N, clusters_N, recipe.seed) for line in lines],
        "differences": list(_differences(lines, truth_N, clusters_N, recipe.seed)),
        "judge": list(_judge(recipe, rows, truth_N, clusters_N, replies)),
        "curve": list(_curve(recipe, rows, truth_N, clusters_N, replies)),
    }


def _lines(
    recipe: Recipe,
    all_rows: Sequence[Row],
    rows: Sequence[Row],
    folds: Sequence[Fold],
    truth: Ints,
    replies: Replies,
    forest_FN: Floats | None,
) -> Iterator[Line]:
    yield Line(method=CONSTANT, model=None, style=None, predicted=_constant(folds, truth))
    if forest_FN is not None:
        scores_N = np.concatenate([scores[list(fold.test)] for scores, fold in zip(forest_FN, folds, strict=True)])
        labels_N = np.where(np.isnan(scores_N), UNREAD, (scores_N >= 0.5).astype(int))
        yield Line(method=FOREST, model=None, style=None, predicted=Predicted.of(labels_N, scores_N))
        tuned = _tuned(folds, truth, forest_FN)
        if tuned is not None:
            yield Line(method=FOREST_TUNED, model=None, style=None, predicted=tuned[0], more={"thresholds": tuned[1]})
    for asked, answers in replies.greedy.items():
        found = [answers[row.molecule.smiles] for row in rows]
        scores_N = np.array([np.nan if one.probability is None else one.probability for one in found])
        yield Line(
            method=GREEDY,
            model=asked.model,
            style=asked.style,
            predicted=Predicted.of([one.label for one in found], scores_N),
            lenient=Predicted.of([one.published for one in found], scores_N),
            published=_published(recipe, recipe.models[asked.model].published, asked.style),
            more={"unread": dict(Counter(str(one.reason) for one in found if one.reason))},
        )
        chances = [answers.get(row.molecule.smiles) for row in all_rows]
        said_N = np.array([np.nan if one is None or one.probability is None else one.probability for one in chances])
        tuned = _tuned(folds, truth, np.stack([said_N] * len(folds)))
        if tuned is not None:
            yield Line(
                method=TUNED,
                model=asked.model,
                style=asked.style,
                predicted=tuned[0],
                more={"thresholds": tuned[1]},
            )
        if asked in replies.candidates and recipe.best_of_n is not None:
            largest = max(recipe.best_of_n.n)
            yield _chosen(recipe, rows, truth[list(tested(folds))], replies, asked, largest)


def _chosen(recipe: Recipe, rows: Sequence[Row], truth_N: Ints, replies: Replies, asked: Asked, n: int) -> Line:
    assert recipe.best_of_n is not None
    molecules = [row.molecule.smiles for row in rows]
    found = replies.candidates[asked]
    how = {"n": n, "seed": recipe.seed}
    predicted = best.choose(found, molecules, recipe.best_of_n, **how)
    lenient = best.choose(found, molecules, recipe.best_of_n, **how, published=True)
    return Line(
        method=f"best of {n}",
        model=asked.model,
        style=asked.style,
        predicted=predicted,
        lenient=lenient,
        published=_published(recipe, "best_of_n", asked.style),
        more=best.counts(found, molecules)
        | {"trials": recipe.best_of_n.trials, "deviation_over_trials": best.spread_of(truth_N, predicted)},
    )


def _constant(folds: Sequence[Fold], truth: Ints) -> Predicted:
    """The commoner label of each fold's training, or of its test where there is none."""
    labels = [np.full(len(fold.test), int(truth[list(fold.train or fold.test)].mean() >= 0.5)) for fold in folds]
    labels_N = np.concatenate(labels)
    return Predicted.of(labels_N, np.zeros(len(labels_N)))


def _tuned(folds: Sequence[Fold], truth: Ints, scores_FN: Floats) -> tuple[Predicted, list[float | None]] | None:
    """Labels by the threshold of each fold's validation, and the thresholds; ``None`` where no fold sets any.

    A fold whose validation has one label alone sets none, and goes by 0.5. Scores are told less the threshold, so that
    those of several folds can be ranked together.
    """
    thresholds = [
        best_threshold(truth[list(fold.valid)], scores_N[list(fold.valid)])
        for scores_N, fold in zip(scores_FN, folds, strict=True)
    ]
    if all(threshold is None for threshold in thresholds):
        return None
    above_N = np.concatenate(
        [
            scores_N[list(fold.test)] - (0.5 if threshold is None else threshold)
            for scores_N, fold, threshold in zip(scores_FN, folds, thresholds, strict=True)
        ]
    )
    labels_N = np.where(np.isnan(above_N), UNREAD, (above_N >= 0).astype(int))
    return Predicted.of(labels_N, above_N), thresholds


def _published(recipe: Recipe, row: str | None, style: str) -> float | None:
    return recipe.published.get(row or "", {}).get(style)


def _row(line: Line, truth_N: Ints, clusters_N: Ints, seed: int) -> dict[str, Any]:
    def told(predicted: Predicted) -> dict[str, Any]:
        found = figures(truth_N, predicted, clusters=clusters_N, seed=seed)
        return {name: one._asdict() for name, one in found.items()}

    return {
        "method": line.method,
        "model": line.model,
        "style": line.style,
        "figures": told(line.predicted),
        **({"published_reading": told(line.lenient)} if line.lenient is not None else {}),
        **({"published": line.published} if line.published is not None else {}),
        **line.more,
    }


def _differences(lines: Sequence[Line], truth_N: Ints, clusters_N: Ints, seed: int) -> Iterator[dict[str, Any]]:
    """Of every two methods that may be compared: those asked in the same words, and each with the controls."""
    for a, b in combinations(lines, 2):
        if a.style is not None and a.style != b.style:
            continue
        for name in COMPARED:
            found = difference(name, truth_N, a.predicted, b.predicted, clusters=clusters_N, seed=seed)
            yield {"first": a.name, "second": b.name, "figure": name, **found}


def _judge(
    recipe: Recipe, rows: Sequence[Row], truth_N: Ints, clusters_N: Ints, replies: Replies
) -> Iterator[dict[str, Any]]:
    names = {1: recipe.labels.positive.name, 0: recipe.labels.negative.name}
    for asked, found in replies.candidates.items():
        assert recipe.best_of_n is not None
        molecules = [row.molecule.smiles for row in rows]
        told = best.discrimination(found, molecules, truth_N, recipe.best_of_n, clusters=clusters_N, seed=recipe.seed)
        for one in told:
            yield {**asked._asdict(), **one, "label": names[one["label"]]}


def _curve(
    recipe: Recipe, rows: Sequence[Row], truth_N: Ints, clusters_N: Ints, replies: Replies
) -> Iterator[dict[str, Any]]:
    for asked in replies.candidates:
        assert recipe.best_of_n is not None
        for n in sorted(set(recipe.best_of_n.n)):
            line = _chosen(recipe, rows, truth_N, replies, asked, n)
            found = figures(truth_N, line.predicted, clusters=clusters_N, seed=recipe.seed)
            yield {
                **asked._asdict(),
                "n": n,
                **{name: found[name]._asdict() for name in ("accuracy", "balanced_accuracy", "negative_ratio")},
                "deviation_over_trials": line.more["deviation_over_trials"],
            }
