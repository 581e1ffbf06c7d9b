"""Figures as people read them: shares in percent, correlations and errors as numbers."""

from __future__ import annotations

from flexreward.report.words import percent

SHARES = ("accuracy", "agreement", "consistency", "precision", "recall", "f1", "macro", "overall", "win_rate")
"""Figures whose name begins so are shares, shown in percent. Correlations, errors and distances are numbers."""


def is_share(name: str) -> bool:
    return name.partition("/")[0].startswith(SHARES)


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
