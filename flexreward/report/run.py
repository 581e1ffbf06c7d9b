"""A run folder as one page: what ``flexreward report`` and the quickstart write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flexreward.files.whole import replaced
from flexreward.pairs.best_of_n import choice
from flexreward.report.cards import Asked, comparison, pair_status, problem
from flexreward.report.charts import curve, histogram
from flexreward.report.choose import choice_in_words, choose
from flexreward.report.evals.page import is_eval, write_eval_report
from flexreward.report.folder import Fact, Folder, as_scores, beside, fetch, read_folder
from flexreward.report.health import built_pairs, counts_of, gauges_of
from flexreward.report.page import Cards, Page
from flexreward.report.pairs.page import is_pairs, write_pairs_report
from flexreward.report.render import render_page
from flexreward.report.story import points, tell
from flexreward.report.why import disagreement
from flexreward.types import Scale

MAX_COMPLETIONS, MAX_PROBLEMS, MAX_COMPARISONS = 400, 100, 48
"""What a page shows at most, so that a phone can open it whatever the size of the run."""


def write_report(run_dir: Path, samples: Path | None = None) -> Path:
    """Write ``run_dir/report.html``, or ``best.report.html`` beside ``best.jsonl``, and say where it is.

    The folder of an eval gets the page of its benchmark, with ``report.md`` and ``card.md``; one of pairs the page of
    its study.

    Raises:
        OutputError: A file is missing or broken; the message names the command that makes it.
    """
    if is_eval(run_dir):
        return write_eval_report(run_dir)
    if is_pairs(run_dir):
        return write_pairs_report(run_dir)
    html = report_html(run_dir, samples)
    path = beside(run_dir, "report.html")
    with replaced(path) as file:
        file.write(html.encode())
    return path


def report_html(run_dir: Path, samples: Path | None = None) -> str:
    """The page of a run folder."""
    folder = read_folder(run_dir, samples)
    page = build_page(folder)
    return render_page(
        "quickstart.html.j2" if page.curve and folder.compared and folder.pointwise else "run.html.j2", page=page
    )


def build_page(folder: Folder) -> Page:
    """Everything that the page shows."""
    scale = scale_of(folder, "pointwise")
    scored = [(fact.scores[0], _right(folder, fact)) for fact in folder.pointwise if fact.scores]
    statuses = _statuses(folder)
    story, counts = tell(folder), counts_of(folder, statuses)
    return Page(
        title=story.title,
        headline=story.headline,
        lead=story.lead,
        scale=scale,
        pair_scale=scale_of(folder, "compared"),
        curve=curve(points(folder)),
        scores=histogram(scored, scale),
        counts=counts,
        counted="What became of the judged pairs" if built_pairs(folder) else "What became of the requests",
        gauges=gauges_of(folder, counts),
        problems=_problems(folder),
        comparisons=_comparisons(folder, statuses),
        facts=story.facts,
        has_samples=folder.samples_path is not None,
    )


def scale_of(folder: Folder, kind: str) -> Scale:
    """The scale that the file's header names; without one, what was seen, but at least 1 to 10."""
    header = folder.files[kind].header if kind in folder.files else {}
    template = header.get("template")
    found = as_scores(template.get("scale")) if isinstance(template, dict) else None
    if found and len(found) == 2 and found[0] < found[1]:
        return Scale(low=found[0], high=found[1])
    seen = [score for fact in (*folder.pointwise, *folder.compared) for score in fact.scores or ()]
    return Scale(low=min([1.0, *seen]), high=max([10.0, *seen]))


def _statuses(folder: Folder) -> list[tuple[str, str]]:
    if built_pairs(folder):
        return [pair_status(fact, folder.dropped) for fact in folder.compared]
    return [("scored", "") if fact.scores else ("unscored", fact.reason) for fact in folder.compared]


def _problems(folder: Folder) -> Cards:
    groups: dict[str, list[Fact]] = {}
    for fact in folder.pointwise:
        groups.setdefault(fact.sample, []).append(fact)
    if not groups:
        return Cards()
    limit = max(8, min(MAX_PROBLEMS, MAX_COMPLETIONS * len(groups) // len(folder.pointwise)))

    def is_failure(group: list[Fact]) -> bool:
        scores = [fact.scores[0] if fact.scores else None for fact in group]
        picked = [group[i] for i in choice(scores)] if len(group) > 1 else []
        return None in scores or any(_right(folder, fact) is False for fact in picked)

    everything = list(groups.values())
    shown = choose(everything, limit=limit, is_failure=is_failure)
    asked = _asked(folder, [group[0] for group in shown])
    lines = iter(fetch(folder.files["pointwise"].path, [fact.place for group in shown for fact in group]))
    return Cards(
        problems=tuple(
            problem(group[0].sample, group, [next(lines) for _ in group], behind)
            for group, behind in zip(shown, asked, strict=True)
        ),
        total=len(everything),
        chosen=choice_in_words(
            "problem",
            "with a wrong pick or an unscored completion",
            shown=len(shown),
            failures=sum(map(is_failure, shown)),
            total=len(everything),
            all_failures=sum(map(is_failure, everything)),
        ),
    )


def _comparisons(folder: Folder, statuses: Sequence[tuple[str, str]]) -> Cards:
    everything = list(zip(folder.compared, statuses, strict=True))
    if not everything:
        return Cards()

    def is_failure(item: tuple[Fact, tuple[str, str]]) -> bool:
        fact, (status, _) = item
        return status in ("dropped", "unscored") or disagreement(fact.winners) != ""

    shown = choose(everything, limit=MAX_COMPARISONS, is_failure=is_failure)
    facts = [fact for fact, _ in shown]
    lines = fetch(folder.files["compared"].path, [fact.place for fact in facts])
    return Cards(
        comparisons=tuple(
            comparison(fact, line, behind, status=status, reason=reason)
            for (fact, (status, reason)), line, behind in zip(shown, lines, _asked(folder, facts), strict=True)
        ),
        total=len(everything),
        chosen=choice_in_words(
            "comparison",
            "that flipped or could not be read",
            shown=len(shown),
            failures=sum(map(is_failure, shown)),
            total=len(everything),
            all_failures=sum(map(is_failure, everything)),
        ),
    )


def _right(folder: Folder, fact: Fact) -> bool | None:
    return Asked(folder.samples.get(fact.sample)).right(fact.indices[0] if fact.indices else 0)


def _asked(folder: Folder, facts: Sequence[Fact]) -> list[Asked]:
    """The sample behind each fact, its whole row read again."""
    if folder.samples_path is None:
        return [Asked() for _ in facts]
    known = [folder.samples.get(fact.sample) for fact in facts]
    rows = iter(fetch(folder.samples_path, [sample.place for sample in known if sample]))
    return [Asked(sample, next(rows)) if sample else Asked() for sample in known]
