"""From a judge's scores to what people would say: a curve fitted on a benchmark, kept as a small JSON file. Pure.

Over *margins* (two or more completions) it is the probability that a person prefers one completion to another, and a
completion's reward is the mean over the others. Over *scores* (one completion) it is the rating that people would give,
as a fraction of their scale. ``flexreward.evals.calibrate`` fits and measures it; a recipe names it (``calibrator:``).
"""

from __future__ import annotations

import hashlib
import json
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeAlias

from flexreward.errors import RecipeError

VERSION = 1

Over: TypeAlias = Literal["margin", "score"]
Kind: TypeAlias = Literal["isotonic", "platt"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrator:
    """A curve that never falls, and what it was fitted on."""

    over: Over
    kind: Kind
    knots: tuple[tuple[float, float], ...] = ()
    """``isotonic``: (score or margin, probability), both rising; straight between them, level outside."""
    slope: float = 0.0
    """``platt``: probability is ``1 / (1 + exp(-(slope * x + intercept)))``."""
    intercept: float = 0.0
    judge: Mapping[str, Any] = field(default_factory=dict)
    """The judge that it belongs to, as the header of its outcomes names it."""
    template: Mapping[str, Any] = field(default_factory=dict)
    benchmark: str = ""
    n: int = 0
    """Rows that it was fitted on."""
    date: str = ""
    measured: Mapping[str, Any] = field(default_factory=dict)
    """What it gained on rows that it had not seen."""

    @property
    def digest(self) -> str:
        """Names the curve: sha256 hex over all that decides a reward."""
        curve = [VERSION, self.over, self.kind, self.knots, self.slope, self.intercept]
        return hashlib.sha256(json.dumps(curve).encode()).hexdigest()

    def __call__(self, x: float) -> float:
        """The probability at a score or margin, in [0, 1]."""
        if self.kind == "platt":
            z = self.slope * x + self.intercept
            return 1 / (1 + math.exp(-z)) if z >= 0 else 1 - 1 / (1 + math.exp(z))
        place = bisect_right(self.knots, x, key=lambda knot: knot[0])
        if place in (0, len(self.knots)):
            return self.knots[max(place - 1, 0)][1]
        (x0, y0), (x1, y1) = self.knots[place - 1], self.knots[place]
        return y0 + (y1 - y0) * (x - x0) / (x1 - x0)

    def rewards(self, scores: Sequence[float]) -> tuple[float, ...]:
        """A probability a completion, in their order. Completions that share a score share a reward."""
        if self.over == "score":
            return tuple(self(score) for score in scores)
        chances = [[self(one - other) for j, other in enumerate(scores) if j != i] for i, one in enumerate(scores)]
        return tuple(math.fsum(row) / len(row) for row in chances)


def save_calibrator(calibrator: Calibrator, path: Path) -> None:
    """Write it as JSON, whole or not at all."""
    from flexreward.files.whole import replaced

    with replaced(path) as file:
        file.write(json.dumps({"flexreward_calibrator": VERSION, **asdict(calibrator)}, indent=2).encode() + b"\n")


def load_calibrator(path: Path) -> Calibrator:
    """Read what ``save_calibrator`` wrote.

    Raises:
        RecipeError: It is not there, is something else, or its curve falls or leaves [0, 1].
    """
    remedy = "flexreward eval ... --calibrate writes one"
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise RecipeError(f"calibrator {path}: cannot be read: {error.strerror}; {remedy}") from error
    except ValueError as error:
        raise RecipeError(f"calibrator {path}: is no JSON; {remedy}") from error
    if not isinstance(found, dict) or found.pop("flexreward_calibrator", None) != VERSION:
        raise RecipeError(f"calibrator {path}: is no calibrator of this version; {remedy}")
    try:
        calibrator = Calibrator(**{**found, "knots": tuple((float(x), float(y)) for x, y in found["knots"])})
        _check(calibrator)
    except (TypeError, KeyError, ValueError) as error:
        raise RecipeError(f"calibrator {path}: is damaged ({error}); {remedy}") from error
    return calibrator


def refuse_other(calibrator: Calibrator, header: Mapping[str, Any], *, where: str) -> None:
    """Say in one line where the judge is not the one that the calibrator was fitted for.

    The seed, the place of the model's folder and the versions of libraries may differ.

    Args:
        header: The judge's, as in its outcome file: ``judge`` and ``template``.

    Raises:
        RecipeError: It was fitted for another judge or another template.
    """
    remedy = "flexreward eval ... --calibrate with this judge fits one that does"
    was, now = calibrator.template, header["template"]
    if was.get("digest") != now["digest"]:
        raise RecipeError(f"{where}: fitted for the template {was.get('id')}, not for {now['id']}; {remedy}")
    old, new = settings(calibrator.judge), settings(header["judge"])
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            raise RecipeError(
                f"{where}: fitted for a judge whose {name} is {_short(old.get(name))}, not {_short(new.get(name))}; "
                f"{remedy}"
            )


def settings(judge: Mapping[str, Any]) -> dict[str, Any]:
    """What a judge's scores depend on, by the words of a recipe."""
    free = {"fingerprint", "version", "torch", "calibrator", "sampling"} | ({"model"} if "weights" in judge else set())
    sampling = {("votes" if name == "n" else name): value for name, value in judge.get("sampling", {}).items()}
    sampling.pop("seed", None)
    return {name: value for name, value in judge.items() if name not in free} | sampling


def _check(calibrator: Calibrator) -> None:
    if calibrator.over not in ("margin", "score") or calibrator.kind not in ("isotonic", "platt"):
        raise ValueError(f"{calibrator.kind} over {calibrator.over} is unknown")
    xs, ys = [x for x, _ in calibrator.knots], [y for _, y in calibrator.knots]
    numbers = [*xs, *ys, float(calibrator.slope), float(calibrator.intercept)]
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError("a number is not finite")
    if calibrator.kind == "isotonic" and not xs:
        raise ValueError("no knots")
    if any(a >= b for a, b in pairwise(xs)) or any(a > b for a, b in pairwise(ys)):
        raise ValueError("its curve falls")
    if any(not 0 <= y <= 1 for y in ys) or calibrator.slope < 0:
        raise ValueError("its curve leaves [0, 1] or falls")


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
