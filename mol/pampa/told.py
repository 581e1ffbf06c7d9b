"""Results for people: lines for a terminal, a page of Markdown, a picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flexreward.files.whole import replaced

Results = Mapping[str, Any]
SHOWN = ("balanced_accuracy", "mcc", "auroc", "accuracy")
HEADS = {
    "balanced_accuracy": "balanced accuracy",
    "mcc": "MCC",
    "auroc": "AUROC",
    "accuracy": "accuracy",
}
SHARES = ("accuracy", "balanced_accuracy", "negative_ratio", "parse_rate", "accuracy_of_read")
FOOT = (
    "Unread answers count as wrong. 'read, lenient' has the published reading and its denominator: right answers among "
    "those read. Intervals are 95 % of a bootstrap over molecules, tests of all folds pooled."
)


def report_lines(results: Results) -> Iterator[str]:
    """All tables as text."""
    data, split = results["data"], results["split"]
    left = f", {len(data['invalid'])} rows left out as invalid" if data["invalid"] else ""
    yield f"{results['name']}: {data['rows']} rows, {data['blocks']} connectivity blocks{left}"
    sizes = "; ".join(
        f"{fold['train']} train, {fold['valid']} valid, {fold['test']} test"
        + (f", {fold['dropped']} dropped as leaks" if fold["dropped"] else "")
        for fold in split["folds"]
    )
    yield f"split {split['kind']}: {sizes}"
    for table in results["tasks"].values():
        yield ""
        yield from _table(table)
        yield from _judge(table)
        yield from _differences(table)
    yield ""
    yield FOOT


def write_report(results: Results, out: Path) -> None:
    """``report.md`` and, for each task, ``TASK.png``."""
    lines = [f"# {results['name']}", "", "```text", *report_lines(results), "```", ""]
    for task, table in results["tasks"].items():
        picture = out / f"{_plain(task)}.png"
        draw(table, picture)
        lines += [f"![{task}]({picture.name})", ""]
    with replaced(out / "report.md") as file:
        file.write("\n".join(lines).encode())


def draw(table: Results, path: Path) -> None:
    """Accuracy and balanced accuracy of every method with their intervals, and what was published."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = table["rows"]
    figure = Figure(figsize=(8, 1.4 + 0.36 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, shift, mark in (("accuracy", -0.15, "s"), ("balanced_accuracy", 0.15, "o")):
        told = [row["figures"][name] for row in rows]
        places = [i + shift for i, one in enumerate(told) if one["value"] is not None]
        values = [100 * one["value"] for one in told if one["value"] is not None]
        spans = [(one["low"], one["value"], one["high"]) for one in told if one["value"] is not None]
        # An interval of the bootstrap need not hold a value at its very edge.
        below = [100 * max(value - (value if low is None else low), 0) for low, value, _ in spans]
        above = [100 * max((value if high is None else high) - value, 0) for _, value, high in spans]
        axes.errorbar(values, places, xerr=[below, above], fmt=mark, markersize=4, capsize=2, label=HEADS[name])
    published = [(row["published"], i) for i, row in enumerate(rows) if "published" in row]
    if published:
        axes.plot([x for x, _ in published], [y for _, y in published], "x", color="black", label="published accuracy")
    axes.axvline(100 * max(table["negative_share"], 1 - table["negative_share"]), linestyle=":", color="gray", zorder=0)
    axes.axvline(50, linestyle=":", color="gray", zorder=0)
    axes.set_yticks(range(len(rows)), labels=[_name(row) for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("percent; dotted: what a constant has")
    axes.set_title(
        f"{table['task']}: {table['n']} molecules, {100 * table['negative_share']:.1f} % {table['negative']}"
    )
    axes.legend(fontsize="small")
    with replaced(path) as file:
        figure.savefig(file, format="png", dpi=144, metadata={"Software": None})


def _table(table: Results) -> Iterator[str]:
    share, of_all = 100 * table["negative_share"], 100 * table["negative_share_of_all"]
    yield (
        f"task {table['task']}: {table['n']} test molecules, {share:.1f} % {table['negative']} ({of_all:.1f} % of all "
        "rows); shares in percent"
    )
    rows = table["rows"]
    heads = ["", *HEADS.values(), f"says {table['negative']}", "read", "read, lenient", "published"]
    cells = [heads] + [
        [
            _name(row),
            *(_with_interval(row["figures"][name], name) for name in SHOWN),
            _value(row["figures"]["negative_ratio"], "negative_ratio"),
            _value(row["figures"]["parse_rate"], "parse_rate"),
            _value(row["published_reading"]["accuracy_of_read"], "accuracy") if "published_reading" in row else "",
            f"{row['published']:.2f}" if "published" in row else "",
        ]
        for row in rows
    ]
    yield from _columns(cells)
    for row in rows:
        if unread := row.get("unread"):
            counted = ", ".join(f"{count} {reason}" for reason, count in unread.items())
            of = f" of {row['candidates']} candidates" if "candidates" in row else ""
            yield f"  {_name(row)}: unread{of}: {counted}"
        if unscored := row.get("unscored"):
            counted = ", ".join(f"{count} {reason}" for reason, count in unscored.items())
            yield (
                f"  {_name(row)}: unscored of {row['candidates']} candidates: {counted}; "
                f"{row['molecules_without_a_score']} molecules have no score at all"
            )


def _judge(table: Results) -> Iterator[str]:
    """Whether the judge tells right from wrong among answers that say the same."""
    for one in table["judge"]:
        yield ""
        ranked = one["auroc"]
        area = "not defined" if ranked["value"] is None else _with_interval(ranked, "auroc")
        yield (
            f"  judge of {one['model']}, {one['style']}, answers that say {one['label']}: {one['right']} of "
            f"{one['count']} right; area of its score for right {area}"
        )
        bins = [cell for cell in one["bins"] if cell["count"]]
        for cell in bins:
            rate = 100 * cell["right"] / cell["count"]
            yield f"    {cell['from']:>4g} to {cell['to']:<4g} {cell['right']:>6} of {cell['count']:<6} {rate:5.1f} %"


def _differences(table: Results) -> Iterator[str]:
    told = [one for one in table["differences"] if one["figure"] == "balanced_accuracy" and one["low"] is not None]
    if told:
        yield ""
        yield "  balanced accuracy, points by which the second is above the first"
    for one in told:
        apart = "" if one["low"] <= 0 <= one["high"] else "  apart"
        low, value, high = (100 * one[name] for name in ("low", "difference", "high"))
        yield f"    {one['first']} -> {one['second']}: {value:+.1f} ({low:+.1f} to {high:+.1f}){apart}"


def _columns(cells: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    for row in cells:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _with_interval(told: Mapping[str, float | None], name: str) -> str:
    if told["value"] is None:
        return "–"
    if told["low"] is None:
        return _value(told, name)
    ends = ({"value": told[end]} for end in ("low", "high"))
    return f"{_value(told, name)} ({' to '.join(_value(end, name) for end in ends)})"


def _value(told: Mapping[str, float | None], name: str) -> str:
    value = told["value"]
    if value is None:
        return "–"
    return f"{100 * value:.1f}" if name in SHARES else f"{value:.3f}"


def _name(row: Results) -> str:
    return ", ".join(part for part in (row["model"], row["method"], row["style"]) if part)


def _plain(name: str) -> str:
    return "".join(char if char.isalnum() or char in "-_" else "_" for char in name)
