"""A comparison as lines for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOST_GROUPS = 20


def lines_of(found: Mapping[str, Any]) -> list[str]:
    """What ``flexreward compare`` prints: differences with intervals, by group, and how alike the choices are."""
    a, b = found["a"], found["b"]
    lines = [f"{found['title']} ({found['benchmark']}), {found['rows']} rows: A {a['path']}, B {b['path']}"]
    if found["changed"]:
        lines.append("from A to B: " + ", ".join(f"{name} {_to(*two)}" for name, two in found["changed"].items()))
    else:
        lines.append("the same judge, template and settings")
    groups = dict(list(found["groups"].items())[:MOST_GROUPS])
    width = max(len(name) for name in (*found["figures"], *(f"  {group}" for group in groups)))
    lines.append(f"  {'':<{width}}  {'A':>8}  {'B':>8}  {'B - A':>8}  {'95 % interval':>19}  {'p':>7}  {'rows':>6}")
    lines += [_line(name, one, width) for name, one in found["figures"].items()]
    lines += [_line(f"  {group}", one, width) for group, one in groups.items()]
    if left := len(found["groups"]) - len(groups):
        lines.append(f"  and {left} more groups in compare.json")
    choices = found["choices"]
    if not choices["n"]:
        lines.append("no row has a score from both A and B: nothing can be said of how alike they are")
    elif "alike" in choices:
        lines.append(
            f"choices alike: {_number(choices['alike'])} of {choices['n']} rows that both scored (margins: Spearman "
            f"{_number(choices['spearman'])}); both right "
            f"{choices['both_right']}, only A {choices['only_a']}, only B {choices['only_b']}, "
            f"neither {choices['neither']}"
        )
    else:
        lines.append(f"scores alike: Spearman {_number(choices['spearman'])} over {choices['n']} rows")
    return lines


def _line(name: str, one: Mapping[str, Any], width: int) -> str:
    difference = "" if one["difference"] is None else f"{one['difference']:+.4f}"
    between = "" if one["low"] is None else f"{one['low']:+.4f} to {one['high']:+.4f}"
    return (
        f"  {name:<{width}}  {_number(one['a']):>8}  {_number(one['b']):>8}  {difference:>8}  {between:>19}  "
        f"{_number(one['p']):>7}  {one['n']:>6}"
    )


def _to(was: Any, now: Any) -> str:
    return f"{_short(was)} to {_short(now)}"


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 24 else text[:12] + "..."


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
