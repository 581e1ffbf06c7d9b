"""The curve of best-of-N, for a terminal and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flexreward.files.whole import replaced

LINES = {"best_of_n": ("judge", "-"), "oracle": ("oracle", ":"), "shuffled": ("shuffled", "--")}


def table(found: dict[str, Any]) -> list[str]:
    """The curve as lines of text."""
    kind = f"mean of {found['truth']!r}" if found["truth"] else "the judge's own score, which is no accuracy"
    shown = [line for line in LINES if line in found]
    by = f", by {found['method']}" if "method" in found else ""
    lines = [
        f"{found['num_prompts']} prompts{by}, {kind}",
        "   N  " + "".join(f"{LINES[line][0]:<26}" for line in shown),
    ]
    for n in found["best_of_n"]:
        cells = [found[line][n] for line in shown]
        if all(0 <= c["low"] <= c["high"] <= 1 for c in cells):
            texts = [f"{100 * c['mean']:5.1f} % ({100 * c['low']:.1f} to {100 * c['high']:.1f})" for c in cells]
        else:
            texts = [f"{c['mean']:.4g} ({c['low']:.4g} to {c['high']:.4g})" for c in cells]
        lines.append(f"{n:>4}  " + "".join(f"{text:<26}" for text in texts))
    if (counts := found.get("counts")) is not None:
        flipped = f"{counts['flipped']} of {counts['judgments']} judgments changed their winner with the order"
        lines.append(
            f"{flipped}; {counts['drawn']} ties were drawn, {counts['unread']} lists decided without a verdict"
        )
    return lines


def draw(found: dict[str, Any], path: Path) -> None:
    """The curve as a picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for line, (label, style) in LINES.items():
        if not found.get(line):
            continue
        counts = [int(n) for n in found[line]]
        cells = list(found[line].values())
        named = f"{label}, {found['method']}" if line == "best_of_n" and "method" in found else label
        axes.plot(counts, [c["mean"] for c in cells], style, marker="o", label=named)
        axes.fill_between(counts, [c["low"] for c in cells], [c["high"] for c in cells], alpha=0.15)
    if found["best_of_n"]:
        axes.set_xscale("log", base=2)
    axes.set_xticks([int(n) for n in found["best_of_n"]], labels=list(found["best_of_n"]))
    axes.set_xlabel("completions to choose from (N)")
    axes.set_ylabel(f"mean of '{found['truth']}'" if found["truth"] else "the judge's own score (share of its scale)")
    if axes.lines:
        axes.legend()
    with replaced(path) as file:
        figure.savefig(file, format="png", dpi=144, metadata={"Software": None})
