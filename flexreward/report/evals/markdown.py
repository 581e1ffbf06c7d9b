"""A run in Markdown: the whole report, and the few lines that a model card takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from flexreward.report.evals.figures import Row
from flexreward.report.figures import difference_text, figure_text, in_plain, spread_text
from flexreward.report.text import visible

if TYPE_CHECKING:
    from flexreward.report.evals.page import EvalPage

MARKUP = str.maketrans({char: f"\\{char}" for char in "\\`*_{}[]<>#|!&~"} | {"\n": " ", "\r": " "})


def report_markdown(page: EvalPage) -> str:
    """Figures, groups and health; plots and verdicts are in the page."""
    parts = [f"# {_text(page.headline)}"]
    if not page.complete:
        parts.append(f"**Half-run.** Not every row is judged, so there is no figure. `{page.again}` goes on.")
    parts += [_text(sentence) for sentence in (page.asked, *page.lead)]
    if page.figures.rows:
        parts += ["## Figures", _figures(page)]
        if page.uses:
            parts.append(f"The published figures use: {_text(page.uses)}.")
        if page.quirks:
            parts += ["The published protocol:", _list(page.quirks)]
    for row in page.figures.rows:
        if ranking := page.figures.ranking(row.name, row):
            parts.append(f"## {_text(in_plain(row.name))}, beside other judges")
            lines = [[one.judge, figure_text(one.value, row.name), one.source] for one in ranking]
            parts.append(_table(["judge", in_plain(row.name), "source"], lines))
    for name, rows in page.figures.groups.items():
        table = _table(["group", *COLUMNS], [_cells(name, row) for row in rows])
        parts += [f"## {_text(in_plain(name))} by group", table]
    health = [[gauge.name, gauge.value] for gauge in (*page.gauges, *page.leanings, *page.surety)]
    health += [[f"rows: {count.name}", f"{count.num:,}"] for count in page.counts]
    health += [[f"replies: {count.name}", f"{count.num:,}"] for count in page.replies]
    parts += ["## Health", _table(["", ""], health)]
    parts += ["## Run", _table(["", ""], page.facts)]
    return "\n\n".join(parts) + "\n"


def card_markdown(page: EvalPage) -> str:
    """For a model card: what was measured, how, and by whom; a half-run says that it is one."""
    title = _text(page.title.removeprefix("flexreward: "))
    if not page.complete:
        return f"### {title}\n\n{_text(page.headline)}: no figure before every row is judged.\n"
    facts = dict(page.facts)
    told = [f"{name} {_text(facts[name])}" for name in ("judge", "template", "orders", "votes") if name in facts]
    scored, *unscored = page.counts
    parts = [
        f"### {title}",
        _figures(page),
        f"{scored.num:,} rows scored, {sum(count.num for count in unscored):,} unscored. Strict: plain means over all "
        "rows and replies, bootstrap intervals; as published: what the source’s own code computes.",
    ]
    return "\n\n".join([*parts, f"Measured by flexreward: {'; '.join(told)}."] if told else parts) + "\n"


COLUMNS = ("as published", "strict", "95 % interval", "rows", "strict less published")


def _figures(page: EvalPage) -> str:
    return _table(["figure", *COLUMNS], [_cells(row.name, row) for row in page.figures.rows])


def _cells(figure: str, row: Row) -> list[str]:
    strict = row.strict
    return [
        in_plain(row.name),
        figure_text(row.published, figure),
        figure_text(strict.value, figure) if strict else "–",
        spread_text(strict.low, strict.high, figure) if strict else "–",
        f"{strict.n:,}" if strict and strict.n is not None else "–",
        difference_text(row.difference, figure),
    ]


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *([_text(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {_text(line)}" for line in lines)


def _text(text: str) -> str:
    """Text that Markdown shows as it is."""
    return visible(text).translate(MARKUP)
