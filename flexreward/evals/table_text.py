"""The summary of a run as lines for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOST_FIGURES = 12


def lines_of(summary: Mapping[str, Any]) -> list[str]:
    """What ``flexreward eval`` prints: figures under both protocols, the headline first, or that it is a half-run."""
    name = f"{summary['title']} ({summary['benchmark']})"
    if not summary["complete"]:
        return [
            f"{name}: half-run, {summary['rows']} of {summary['expected_rows']} rows: no score; run the same again to "
            "go on"
        ]
    part = [
        *([f"only {summary['subset']}"] if summary.get("subset") else []),
        *([f"the first {summary['limit']} at most"] if summary.get("limit") else []),
    ]
    rows = f"{summary['rows']} rows" + (f" ({', '.join(part)})" if part else "")
    lines = [f"{name}: {rows}, judge {summary['judge'].get('model', '?')}, template {summary['template']['id']}"]
    lines += [f"note: {note}" for note in summary.get("notes", ())]
    figures = _figures(summary)
    width = max((len(figure) for figure in figures), default=0)
    lines.append(f"  {'':<{width}}  {'published':>9}  {'strict':>9}  {'95 % interval':>18}  {'difference':>10}")
    for figure in figures:
        published, strict = summary["published"].get(figure), summary["strict"].get(figure) or {}
        value = strict.get("value")
        between = _between(strict.get("low"), strict.get("high"))
        difference = f"{value - published:+.4f}" if None not in (value, published) else ""
        lines.append(
            f"  {figure:<{width}}  {_number(published):>9}  {_number(value):>9}  {between:>18}  {difference:>10}"
        )
    lines += _unscored(summary)
    protocol = summary["protocol"]
    lines.append(f"published: {protocol['published_uses']}; strict: {protocol['strict_uses']}")
    if more := len({*summary["published"], *summary["strict"]}) - len(figures):
        lines.append(f"{more} more figures are in summary.json and on the page")
    return lines


def _figures(summary: Mapping[str, Any]) -> list[str]:
    """The headline, then what both protocols have, then the rest; figures of groups only where there is room."""
    published, strict = summary["published"], summary["strict"]
    names = sorted(
        dict.fromkeys([*published, *strict]),
        key=lambda name: (name != summary["headline"], "/" in name, not (name in published and name in strict)),
    )
    return names[:MOST_FIGURES]


def _unscored(summary: Mapping[str, Any]) -> list[str]:
    """The headline both ways, where some rows have no verdict."""
    count, both = sum(summary["unscored"].values()), summary.get("unscored_both_ways") or {}
    wrong = both.get(f"{summary['headline']}_unscored_wrong")
    if not count or wrong is None:
        return []
    share = f"{count} of {summary['rows']} rows unscored ({100 * count / summary['rows']:.1f} %)"
    without = _number(both.get(summary["headline"])) or "undefined"
    return [f"{share}: strict {summary['headline']} {without} without them, {_number(wrong)} with them as wrong"]


def _between(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.4f} to {high:.4f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
