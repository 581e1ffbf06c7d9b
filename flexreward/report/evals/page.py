"""The page of an eval folder: ``report.html`` with its shards, ``report.md`` and ``card.md``."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flexreward.errors import OutputError
from flexreward.files.whole import replaced
from flexreward.report.charts import Histogram, histogram
from flexreward.report.evals import told
from flexreward.report.evals.bias import leanings
from flexreward.report.evals.browser import PAIRS, RATINGS, Browser, browser
from flexreward.report.evals.figures import Figures, figures_of
from flexreward.report.evals.markdown import card_markdown, report_markdown
from flexreward.report.evals.plots import plots_of
from flexreward.report.evals.published import published
from flexreward.report.evals.rows import Fact, read_facts
from flexreward.report.evals.verdict import Json, verdict
from flexreward.report.folder import as_scores, fetch
from flexreward.report.page import Count, Gauge
from flexreward.report.plots import Plot
from flexreward.report.render import render_page
from flexreward.types import Scale


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalPage:
    """Everything on the page of one run of a benchmark. A half-run has no figures, no plots and no scores."""

    title: str
    headline: str
    asked: str
    """Who judged what."""
    lead: tuple[str, ...]
    complete: bool
    again: str
    """The command that goes on with a half-run."""
    figures: Figures
    quirks: tuple[str, ...]
    """Where the published protocol departs from what one would expect."""
    uses: str
    """Which replies the published figures are computed from."""
    gauges: tuple[Gauge, ...]
    counts: tuple[Count, ...]
    """Rows: scored, and unscored by reason."""
    replies: tuple[Count, ...]
    """Replies that could not be read, by reason."""
    scores: Histogram | None
    saturation: str
    leanings: tuple[Gauge, ...]
    """Position bias, length bias."""
    surety: tuple[Gauge, ...]
    """Margin, agreement of votes and of orders."""
    plots: dict[str, tuple[Plot, ...]]
    """By section: ``bias``, ``confidence``, ``thinking``."""
    browser: Browser
    facts: tuple[tuple[str, str], ...]


def write_eval_report(folder: Path) -> Path:
    """Write ``report.html`` with its shards, ``report.md`` and ``card.md``, and say where the page is.

    Raises:
        OutputError: A file is missing or broken, or cannot be written.
    """
    page = eval_page(folder)
    texts = {
        "report.md": report_markdown(page),
        "card.md": card_markdown(page),
        "report.html": render_page("eval.html.j2", verdicts=True, page=page),
    }
    for name, text in texts.items():
        with replaced(folder / name) as file:
            file.write(text.encode())
    return folder / "report.html"


def is_eval(folder: Path) -> bool:
    """Whether ``flexreward eval`` wrote this folder."""
    return folder.is_dir() and "benchmark" in read_summary(folder)


def read_summary(folder: Path) -> dict[str, Any]:
    """``summary.json``; empty where there is none."""
    path = folder / "summary.json"
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise OutputError(f"{path}: broken JSON ({error}); run the job that wrote it again") from error
    return found if isinstance(found, dict) else {}


def eval_page(folder: Path) -> EvalPage:
    """Everything that the page shows; the shards are written."""
    summary = read_summary(folder)
    outcomes, samples = folder / "outcomes.jsonl", folder / "samples.jsonl"
    again = f"flexreward eval {summary['benchmark']} --out {folder}"
    if not outcomes.is_file():
        raise OutputError(f"{outcomes}: missing; `{again}` makes it")
    facts = read_facts(outcomes, samples)
    complete, rating = bool(summary.get("complete")), summary.get("task") == "rating"
    known = summary if complete else {}
    figures = figures_of(known, published(str(summary["benchmark"])))
    scale = scale_of(summary, facts)
    scored = [pair for fact in facts for pair in fact.scored] if complete else []
    return EvalPage(
        title=f"flexreward: {summary.get('title') or summary['benchmark']}",
        headline=told.headline(summary, figures, len(facts)),
        asked=told.asked(summary, len(facts)),
        lead=told.lead(known, figures),
        complete=complete,
        again=again,
        figures=figures,
        quirks=tuple(known.get("quirks") or ()),
        uses=str((known.get("protocol") or {}).get("published_uses") or ""),
        gauges=told.gauges(summary),
        counts=told.counts(summary, len(facts)),
        replies=told.bad(summary.get("reply_reasons") or {}),
        scores=None if rating or len({score for score, _ in scored}) < 3 else histogram(scored, scale),
        saturation=told.saturation((known.get("bias") or {}).get("scores") or {}),
        leanings=leanings(known.get("bias") or {}),
        surety=told.surety(known),
        plots=plots_of(known, facts, scale),
        browser=browser(facts, teller(folder), folder / "report.shards", RATINGS if rating else PAIRS),
        facts=told.facts_of_run(summary, folder),
    )


def scale_of(summary: dict[str, Any], facts: list[Fact]) -> Scale:
    """The template's; without one, what was seen."""
    template = summary.get("template")
    found = as_scores(template.get("scale")) if isinstance(template, dict) else None
    if found and len(found) == 2 and found[0] < found[1]:
        return Scale(low=found[0], high=found[1])
    seen = [score for fact in facts for score, _ in fact.scored]
    return Scale(low=min([1.0, *seen]), high=max([10.0, *seen]))


def teller(folder: Path) -> Callable[[Fact, bool], Json]:
    """Gives the whole verdict of a row, its lines read again."""

    def tell(fact: Fact, inline: bool) -> Json:
        [line] = fetch(folder / "outcomes.jsonl", [fact.place.outcome])
        found = [] if fact.place.sample is None else fetch(folder / "samples.jsonl", [fact.place.sample])
        return verdict(line, found[0] if found else None, fact, folder, inline=inline)

    return tell
