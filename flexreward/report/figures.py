"""Figures as people read them: shares in percent, correlations and errors as numbers."""

from __future__ import annotations

from flexreward.report.words import percent

NUMBERS = ("pearson", "spearman", "kendall", "mse", "levenshtein", "kappa", "auroc", "epsilon")
"""Figures with one of these in their names are numbers; all others are shares of 1, shown in percent."""
LOWER_IS_BETTER = ("mse", "levenshtein", "delta_bias", "total_bias")


def is_share(name: str) -> bool:
    return not any(number in name.partition("/")[0] for number in NUMBERS)


def higher_is_better(name: str) -> bool:
    return not any(error in name.partition("/")[0] for error in LOWER_IS_BETTER)


def figure_text(value: float | None, name: str) -> str:
    """Shares in percent with two digits, as papers print them; anything else with three decimals."""
    if value is None:
        return "–"
    return percent(value, 2) if is_share(name) else f"{value:.3f}"


def difference_text(value: float | None, name: str) -> str:
    """With its sign; shares in points."""
    if value is None:
        return "–"
    return f"{100 * value:+.2f}" if is_share(name) else f"{value:+.3f}"


def spread_text(low: float | None, high: float | None, name: str) -> str:
    """``75.61 to 80.88 %``."""
    if low is None or high is None:
        return "–"
    return f"{100 * low:.2f} to {percent(high, 2)}" if is_share(name) else f"{low:.3f} to {high:.3f}"


def in_plain(name: str) -> str:
    """A figure's or group's name as a person writes it."""
    return name.replace("_", " ")
