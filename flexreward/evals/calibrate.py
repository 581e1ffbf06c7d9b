"""Whether a judge's confidence can be believed, and a curve that makes it so.

Letters of the shapes: N rows, C completions, M points: a pair of completions of one row, or one rated completion. A
point has an ``x``, what the judge said (a margin, or a score), and a ``y``, what people said: 1 where they prefer the
first, 0 the other, 0.5 neither; or their rating as a fraction of their scale.

Uncalibrated, the judge's word is linear over the template's scale, as its rewards are: a margin of the whole scale is a
certainty, none is even odds.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, TypeAlias

import numpy as np

from flexreward.calibrator import Calibrator, Over
from flexreward.errors import RecipeError
from flexreward.evals.base import Task
from flexreward.evals.table import Floats, Ints, Table
from flexreward.types import Scale

NUM_FOLDS = 5
NUM_BINS = 10
FEWEST = 20
"""Rows below which nothing is fitted: five folds of four say nothing."""

Fit: TypeAlias = Callable[["Points"], Calibrator]


@dataclass(frozen=True, kw_only=True)
class Points:
    """What the judge said beside what people said."""

    over: Over
    x_M: Floats
    y_M: Floats
    row_M: Ints
    """Which row of the table it belongs to."""
    scale: Scale
    """The template's."""

    def __len__(self) -> int:
        return len(self.x_M)

    @property
    def plain_M(self) -> Floats:
        """The judge's word as it is: linear over the scale."""
        width = self.scale.high - self.scale.low
        return 0.5 + self.x_M / (2 * width) if self.over == "margin" else (self.x_M - self.scale.low) / width

    def where(self, keep_M: Any) -> Points:
        return Points(
            over=self.over, x_M=self.x_M[keep_M], y_M=self.y_M[keep_M], row_M=self.row_M[keep_M], scale=self.scale
        )


def points_of(table: Table, task: Task, scale: Scale) -> Points:
    """All points of the scored rows: one a rating, else one for each two completions of a row."""
    if task == "rating":
        low, high = _human_scale(table, scale)
        known_N = table.scored_N & ~np.isnan(table.human_NC[:, 0])
        y_M = (table.human_NC[known_N, 0] - low) / (high - low)
        return Points(
            over="score", x_M=table.scores_NC[known_N, 0], y_M=y_M, row_M=np.flatnonzero(known_N), scale=scale
        )
    pairs = list(combinations(range(table.human_NC.shape[1]), 2))
    first, second = [i for i, _ in pairs], [j for _, j in pairs]
    x_NP = table.scores_NC[:, first] - table.scores_NC[:, second]
    h_NP = table.human_NC[:, first] - table.human_NC[:, second]
    rows, places = np.nonzero(~np.isnan(x_NP) & ~np.isnan(h_NP))
    return Points(
        over="margin",
        x_M=x_NP[rows, places],
        y_M=0.5 + np.sign(h_NP[rows, places]) / 2,
        row_M=rows.astype(np.int64),
        scale=scale,
    )


def reliability(p_M: Floats, y_M: Floats, *, over: Over) -> dict[str, Any]:
    """How far the word is from the deed: expected calibration error, Brier score, and the curve.

    Over margins a point counts for the completion that it favours, so confidence runs from 0.5 to 1 and ``observed`` is
    how often people agree (half where they are even). Over scores both are fractions of the scale.

    Returns:
        ``{"ece", "brier", "curve": [{"low", "high", "n", "confidence", "observed"}]}``, bins without points left out.
        ECE weighs the bins, which are of equal width, by their points (Naeini et al. 2015).
    """
    brier = float(np.mean((p_M - y_M) ** 2))
    low = 0.0
    if over == "margin":
        even_M = p_M == 0.5
        y_M = np.where(even_M, 0.5, np.where(p_M > 0.5, y_M, 1 - y_M))
        p_M, low = np.maximum(p_M, 1 - p_M), 0.5
    edges = np.linspace(low, 1.0, NUM_BINS + 1)
    bin_M = np.clip(np.searchsorted(edges, p_M, side="right") - 1, 0, NUM_BINS - 1)
    curve = []
    ece = 0.0
    for number in np.unique(bin_M):
        inside = bin_M == number
        said, seen = float(p_M[inside].mean()), float(y_M[inside].mean())
        ece += float(inside.mean()) * abs(said - seen)
        bin_low, bin_high = float(edges[number]), float(edges[number + 1])
        curve.append({"low": bin_low, "high": bin_high, "n": int(inside.sum()), "confidence": said, "observed": seen})
    return {"ece": ece, "brier": brier, "curve": curve}


def fit_isotonic(points: Points) -> Calibrator:
    """The rising steps closest to what people said; over margins odd about even odds."""
    from sklearn.isotonic import IsotonicRegression

    x, y = _mirrored(points)
    found = IsotonicRegression(y_min=0.0, y_max=1.0, increasing=True, out_of_bounds="clip").fit(x, y)
    rising = np.maximum.accumulate(np.clip(found.y_thresholds_, 0, 1))
    knots = tuple(zip(found.X_thresholds_.tolist(), rising.tolist(), strict=True))
    return Calibrator(over=points.over, kind="isotonic", knots=knots, n=len(np.unique(points.row_M)))


def fit_platt(points: Points) -> Calibrator:
    """The logistic curve of greatest likelihood (Platt 1999); over margins without an intercept."""
    from sklearn.linear_model import LogisticRegression

    x, y = _mirrored(points)
    width = points.scale.high - points.scale.low
    centre = 0.0 if points.over == "margin" else points.scale.low
    inputs = np.concatenate([x, x])[:, None]
    labels, weights = np.repeat([1, 0], len(x)), np.concatenate([y, 1 - y])
    used = weights > 0
    slope = intercept = 0.0
    if len(np.unique(labels[used])) > 1:
        # A light ridge, so that a judge that is always right has a slope at all.
        model = LogisticRegression(C=1e3, fit_intercept=points.over == "score", max_iter=1_000)
        model.fit((inputs[used] - centre) / width, labels[used], sample_weight=weights[used])
        slope = float(model.coef_[0, 0]) / width
        intercept = float(np.ravel(model.intercept_)[0]) - slope * centre
    if slope <= 0:  # the judge is no better than the mean, and a curve may not fall
        mean = float(np.clip(y.mean(), 1e-6, 1 - 1e-6))
        slope, intercept = 0.0, float(np.log(mean / (1 - mean)))
    return Calibrator(over=points.over, kind="platt", slope=slope, intercept=intercept, n=len(np.unique(points.row_M)))


FITS: dict[str, Fit] = {"isotonic": fit_isotonic, "platt": fit_platt}


def unseen(points: Points, fit: Fit, *, seed: int = 0) -> Floats:
    """(M,) What a calibrator says of each point that was fitted on the other rows, in five folds."""
    from sklearn.model_selection import KFold

    rows = np.unique(points.row_M)
    p_M = np.full(len(points), np.nan)
    for fitted, held in KFold(NUM_FOLDS, shuffle=True, random_state=seed).split(rows):
        curve = fit(points.where(np.isin(points.row_M, rows[fitted])))
        held_M = np.isin(points.row_M, rows[held])
        p_M[held_M] = apply(curve, points.x_M[held_M])
    return p_M


def apply(calibrator: Calibrator, x_M: Floats) -> Floats:
    """The calibrator at every ``x``; equal ones are asked once."""
    values, places = np.unique(x_M, return_inverse=True)
    return np.array([calibrator(float(value)) for value in values], dtype=np.float64)[places]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The judge's word before and after, and the curve that lies between."""

    fields: dict[str, Any]
    """As plain JSON, for the summary of a run."""
    calibrator: Calibrator | None
    """The better of the two kinds by its Brier score on unseen rows, fitted on all; ``None`` with too few rows."""


def calibrate(table: Table, task: Task, header: Mapping[str, Any], *, benchmark: str, seed: int = 0) -> Calibration:
    """Measure the judge's confidence, and fit what mends it.

    Args:
        header: Of the outcome file: it names the judge, the template and its scale.
    """
    low, high = header["template"]["scale"]
    points = points_of(table, task, Scale(low=low, high=high))
    num_rows = len(np.unique(points.row_M))
    fields: dict[str, Any] = {"over": points.over, "rows": num_rows, "n": len(points)}
    if not len(points):
        return Calibration(fields={**fields, "why_not": "no row is scored"}, calibrator=None)
    fields["before"] = reliability(points.plain_M, points.y_M, over=points.over)
    if num_rows < FEWEST:
        why = f"{num_rows} scored rows are too few to fit a calibrator, which needs {FEWEST}"
        return Calibration(fields={**fields, "why_not": why}, calibrator=None)
    tried = {kind: unseen(points, fit, seed=seed) for kind, fit in FITS.items()}
    measured = {kind: reliability(p_M, points.y_M, over=points.over) for kind, p_M in tried.items()}
    kind = min(measured, key=lambda name: float(measured[name]["brier"]))
    fitted = FITS[kind](points)
    fields |= {
        "kind": kind,
        "folds": NUM_FOLDS,
        "after": measured[kind],
        "tried": {name: {"ece": found["ece"], "brier": found["brier"]} for name, found in measured.items()},
    }
    gains = {part: {name: fields[part][name] for name in ("ece", "brier")} for part in ("before", "after")}
    return Calibration(
        fields=fields,
        calibrator=replace(
            fitted,
            judge=header["judge"],
            template=header["template"],
            benchmark=benchmark,
            date=datetime.datetime.now(datetime.UTC).date().isoformat(),
            measured={**gains, "folds": NUM_FOLDS},
        ),
    )


def required(calibration: Calibration) -> Calibrator:
    """The calibrator, where one was asked for.

    Raises:
        RecipeError: There was too little to fit one on.
    """
    if calibration.calibrator is None:
        raise RecipeError(f"--calibrate: {calibration.fields['why_not']}; judge more rows")
    return calibration.calibrator


def _human_scale(table: Table, scale: Scale) -> tuple[float, float]:
    """The template's where all ratings lie in it, else from the lowest to the highest of them."""
    human = table.human_NC[~np.isnan(table.human_NC[:, 0]), 0]
    if not len(human) or (scale.low <= human.min() and human.max() <= scale.high):
        return scale.low, scale.high
    low, high = float(human.min()), float(human.max())
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def _mirrored(points: Points) -> tuple[Floats, Floats]:
    """Over margins each point from both sides, so that swapping two completions swaps their odds."""
    if points.over == "score":
        return points.x_M, points.y_M
    return np.concatenate([points.x_M, -points.x_M]), np.concatenate([points.y_M, 1 - points.y_M])
