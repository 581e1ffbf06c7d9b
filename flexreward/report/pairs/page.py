"""The page of a folder that ``flexreward pairs`` wrote: its study as plots and sentences, and its pairs to read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flexreward.errors import OutputError
from flexreward.files.outcomes import read_header
from flexreward.files.whole import replaced
from flexreward.pairs.build import OUTCOMES
from flexreward.pairs.shown import SHOWN
from flexreward.report.evals.browser import Browser, browser
from flexreward.report.evals.page import read_summary
from flexreward.report.page import Count, Gauge
from flexreward.report.pairs import told
from flexreward.report.pairs.plots import plots_of
from flexreward.report.pairs.rows import read_facts, teller, words_of
from flexreward.report.plots import Plot
from flexreward.report.render import render_page


@dataclass(frozen=True, slots=True, kw_only=True)
class PairsPage:
    """Everything on the page of one folder of pairs."""

    title: str
    headline: str
    lead: tuple[str, ...]
    gauges: tuple[Gauge, ...]
    counts: tuple[Count, ...]
    remarks: tuple[told.Remark, ...]
    plots: dict[str, tuple[Plot, ...]]
    browser: Browser
    facts: tuple[tuple[str, str], ...]


def is_pairs(folder: Path) -> bool:
    """Whether ``flexreward pairs`` wrote this folder, with what its page needs."""
    return folder.is_dir() and (folder / SHOWN).is_file() and "study" in read_summary(folder)


def write_pairs_report(folder: Path) -> Path:
    """Write ``report.html`` with its shards, and say where the page is.

    Raises:
        OutputError: A file is missing or broken, or cannot be written.
    """
    html = render_page("pairs.html.j2", verdicts=True, page=pairs_page(folder))
    with replaced(folder / "report.html") as file:
        file.write(html.encode())
    return folder / "report.html"


def pairs_page(folder: Path) -> PairsPage:
    """Everything that the page shows; the shards are written."""
    summary = read_summary(folder)
    study = summary["study"]
    if not (folder / OUTCOMES).is_file():
        raise OutputError(f"{folder / OUTCOMES}: missing; `flexreward pairs SAMPLES --out {folder}` makes it")
    facts = read_facts(folder / SHOWN)
    words = words_of(study["yield"]["by_outcome"], len(facts))
    return PairsPage(
        title=f"flexreward: pairs, {folder.resolve().name}",
        headline=told.headline(study),
        lead=told.lead(study),
        gauges=told.gauges(summary),
        counts=told.counts(study),
        remarks=told.remarks(study),
        plots=plots_of(study),
        browser=browser(facts, teller(folder / SHOWN), folder / "report.shards", words),
        facts=told.facts(summary, read_header(folder / OUTCOMES), folder),
    )
