"""The plots of a run, each from its part of the summary; a part that is not there is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from flexreward.report.evals.bias import bias_plots
from flexreward.report.evals.rows import Fact
from flexreward.report.plots import At, Plot, Series, bar_plot, line_plot
from flexreward.report.words import percent, plural
from flexreward.types import Scale

Part = Mapping[str, Any]


def reliability_plot(calibration: Part) -> Plot | None:
    """Confidence against what people said, before and after the fitted curve."""
    before, after = calibration.get("before") or {}, calibration.get("after") or {}
    if not before.get("curve"):
        return None
    over_scores = calibration.get("over") == "score"
    start = 0.0 if over_scores else 0.5
    series = [Series("judge", "judge", _bins(before["curve"]))]
    if after.get("curve"):
        series.append(Series("fitted", "after", _bins(after["curve"])))
    series.append(Series("honest", "ideal", [At(start, start), At(1.0, 1.0)]))
    words = f"Expected calibration error {percent(before['ece'])}"
    if after.get("ece") is not None:
        words += f"; {percent(after['ece'])} with the fitted curve ({calibration.get('kind')}), on rows it had not seen"
    meaning = (
        "Scores and people’s ratings as fractions of their scales. "
        if over_scores
        else "Confidence is the margin between two scores as a probability; observed is how often people agree. "
    )
    ticks = [(value, percent(value, 0)) for value in ((0.0, 0.25, 0.5, 0.75, 1.0) if over_scores else (0.5, 0.75, 1.0))]
    return line_plot(
        "reliability",
        "Can its confidence be believed?",
        f"{meaning}On the dashed line the judge is right as often as it claims. {words}.",
        series,
        axis="confidence" if not over_scores else "score",
        ticks_x=ticks,
        whole=True,
    )


def _bins(curve: Sequence[Part]) -> list[At]:
    return [At(one["confidence"], one["observed"], words=plural(one["n"], "point")) for one in curve]


def votes_plot(scaling: Part, *, rating: bool) -> Plot | None:
    """The figure with more votes."""
    curve = [one for one in scaling.get("votes") or () if one.get("value") is not None]
    points = [
        At(one["votes"], one["value"], one["value"] - one["spread"], one["value"] + one["spread"], _scored(one))
        for one in curve
    ]
    figure = "Pearson’s correlation" if rating else "Share of rows judged right"
    return line_plot(
        "votes",
        "What more votes buy",
        f"{figure} with so many votes an order, the mean over choices of votes; the band is one standard deviation.",
        [Series("judge", "judge", points)],
        axis="votes",
        ticks_x=[(one["votes"], str(one["votes"])) for one in curve if len(curve) < 9 or one["votes"] % 2],
        share=not rating,
    )


def _scored(one: Part) -> str:
    return f"{percent(one['scored'])} of rows scored" if one.get("scored") is not None else ""


def waits_plot(scaling: Part, *, rating: bool) -> Plot | None:
    """The figure of runs that made the judge think on."""
    curve = [one for one in scaling.get("waits") or () if one.get("value") is not None]
    return line_plot(
        "waits",
        "What longer thought buys",
        "The end of a thought is taken back so many times, and the judge made to go on.",
        [Series("judge", "judge", [At(one["waits"], one["value"], one.get("low"), one.get("high")) for one in curve])],
        axis="waits",
        ticks_x=[(one["waits"], str(one["waits"])) for one in curve],
        share=not rating,
    )


def length_of_reasoning_plot(scaling: Part, *, rating: bool) -> Plot | None:
    """The figure by length of the judge's replies."""
    found = scaling.get("length") or {}
    bins = [one for one in found.get("bins") or () if one.get("value") is not None]
    if len(bins) < 3:  # replies of one or two lengths, such as bare numbers
        return None
    rho = found.get("spearman")
    tail = f" Spearman’s correlation of length and being right: {rho:+.2f}." if rho is not None else ""
    return line_plot(
        "reasoning",
        "Is it right where it thinks long?",
        f"Rows in {len(bins)} parts of as many rows each, by the mean length of a reply.{tail}",
        [Series("judge", "judge", [At(i, one["value"], words=_span(one)) for i, one in enumerate(bins)])],
        axis="characters of a reply, mean of each part",
        ticks_x=[(i, f"{one['length']:,.0f}") for i, one in enumerate(bins)],
        share=not rating,
    )


def _span(one: Part) -> str:
    return f"{plural(one['n'], 'row')} of {one['low']:,.0f} to {one['high']:,.0f} characters"


NAMES = {"margin": "margin", "votes": "votes", "orders": "orders", "agreement": "replies"}
STYLES = {"margin": "judge", "votes": "people", "orders": "after"}


def coverage_plot(confidence: Part) -> Plot | None:
    """How right the surest rows are."""
    series = []
    for name, found in confidence.items():
        kept = [at for at in found.get("coverage") or () if at["accuracy"] is not None]
        points = [At(at["coverage"], at["accuracy"]) for at in kept]
        if points:
            series.append(Series(NAMES.get(name, name), STYLES.get(name, "ideal"), points))
    told = [f"{name} {found['auroc']:.2f}" for name, found in confidence.items() if found.get("auroc") is not None]
    return line_plot(
        "coverage",
        "Does it know when it is right?",
        "Share of rows judged right among the surest, by the margin of its scores, by agreement of its votes, "
        "of its orders, or of all its replies with the outcome. A useful confidence falls to the right. "
        f"AUROC: {', '.join(told)}.",
        series,
        axis="share of rows kept, the surest first",
        ticks_x=[(value, percent(value, 0)) for value in (0.1, 0.25, 0.5, 0.75, 1.0)],
    )


def ratings_plot(facts: Sequence[Fact], scale: Scale) -> Plot | None:
    """How often each score was given, beside people's ratings rounded to the judge's steps."""
    pairs = [(fact.scored[0][0], fact.rated) for fact in facts if fact.scored and fact.rated is not None]
    steps = int(scale.high - scale.low)
    if not pairs or not 2 <= steps <= 12:
        return None
    names = [f"{scale.low + i:g}" for i in range(steps + 1)]
    series = []
    for name, values in (("judge", [score for score, _ in pairs]), ("people", [rated for _, rated in pairs])):
        counts = Counter(min(steps, max(0, round(value - scale.low))) for value in values)
        points = [At(i, counts[i] / len(pairs), words=plural(counts[i], "row")) for i in range(steps + 1)]
        series.append(Series(name, name, points))
    return bar_plot(
        "ratings",
        "Which scores it gives",
        "Share of rows with each score, rounded to whole points, beside people’s ratings of the same rows.",
        names,
        series,
        axis="score",
    )


def plots_of(summary: Part, facts: Sequence[Fact], scale: Scale) -> dict[str, tuple[Plot, ...]]:
    """All plots by section: ``bias``, ``confidence`` and ``thinking``."""
    scaling, rating = summary.get("scaling") or {}, summary.get("task") == "rating"
    drawn: dict[str, tuple[Plot | None, ...]] = {
        "bias": bias_plots(summary.get("bias") or {}),
        "confidence": (
            ratings_plot(facts, scale) if summary else None,
            reliability_plot(summary.get("calibration") or {}),
            coverage_plot(summary.get("confidence") or {}),
        ),
        "thinking": (
            length_of_reasoning_plot(scaling, rating=rating),
            votes_plot(scaling, rating=rating),
            waits_plot(scaling, rating=rating),
        ),
    }
    return {section: tuple(plot for plot in found if plot) for section, found in drawn.items()}
