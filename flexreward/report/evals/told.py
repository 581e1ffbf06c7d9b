"""What a run comes to, in words: the headline, the lead, the gauges, and what was used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flexreward.report.evals.figures import Figures, Row
from flexreward.report.figures import difference_text, figure_text, in_plain, is_share, spread_text
from flexreward.report.page import Count, Gauge
from flexreward.report.words import in_words, number, percent, plural, sentence

Summary = Mapping[str, Any]


def headline(summary: Summary, figures: Figures, num_rows: int) -> str:
    """The figure, or how far a half-run came: then no figure."""
    title = str(summary.get("title") or summary["benchmark"])
    if not summary.get("complete"):
        return f"{title}: half-run, {num_rows:,} of {plural(int(summary.get('expected_rows') or 0), 'row')} judged"
    head = figures.head
    if head is None:
        return f"{title}: {plural(num_rows, 'row')} judged"
    return f"{title}: {in_plain(head.name)} {figure_text(head.value, head.name)}"


def asked(summary: Summary, num_rows: int) -> str:
    """Who judged what, in one line."""
    judge, template = _part(summary, "judge"), _part(summary, "template")
    told = f"{plural(num_rows, 'row')}, judged by {judge.get('model') or 'an unnamed model'}"
    if judge.get("engine"):
        told += f" ({judge['engine']})"
    return f"{told}, template {template['id']}." if template.get("id") else f"{told}."


def lead(summary: Summary, figures: Figures) -> tuple[str, ...]:
    """What the headline is by each protocol, how far it can be trusted, and where it stands among other judges."""
    head = figures.head
    if head is None:
        return ()
    told = []
    name, strict = in_plain(head.name), head.strict
    if head.published is not None:
        told.append(f"Computed as the source’s own code does, {name} is {figure_text(head.published, head.name)}.")
    if strict is not None and strict.value is not None:
        text = f"By the strict protocol it is {figure_text(strict.value, head.name)}"
        if strict.low is not None:
            text += f", with a 95 % interval of {spread_text(strict.low, strict.high, head.name)}"
        told.append(f"{text}, over {plural(strict.n or 0, 'row')}.")
    if head.difference:
        told.append(f"The protocols differ by {difference_text(head.difference, head.name)}{_points(head)}.")
    ranking = figures.ranking(head.name, head)
    if len(ranking) > 2:
        place = next(i for i, one in enumerate(ranking, 1) if one.ours)
        told.append(f"Among {plural(len(ranking) - 1, 'judge')} with a published figure it would come {_th(place)}.")
    return (" ".join(told), *_warnings(summary))


def _points(row: Row) -> str:
    return " points" if is_share(row.name) else ""


def _th(place: int) -> str:
    ending = "th" if 10 <= place % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
    return f"{place}{ending}"


def _warnings(summary: Summary) -> list[str]:
    notes = [sentence(str(note)) for note in summary.get("notes") or ()]
    parts = [f"{name} {summary[name]}" for name in ("subset", "limit") if summary.get(name)]
    if parts:
        part = ", ".join(parts)
        notes.append(f"Only a part of the benchmark was judged ({part}): not to be set beside figures of all of it.")
    return notes


def gauges(summary: Summary) -> tuple[Gauge, ...]:
    """Parse rate and cost. These are no scores, and a half-run has them too."""
    found = []
    if (rate := summary.get("parse_rate")) is not None:
        found.append(Gauge("parse rate", percent(rate), PARSE_RATE))
    cost = summary.get("cost") or {}
    if tokens := cost.get("completion_tokens_per_judgment"):
        found.append(Gauge("tokens a judgment", number(tokens), "Written by the judge, all orders and votes together."))
    if (seconds := cost.get("seconds_per_judgment")) is not None:
        found.append(Gauge("seconds a judgment", number(seconds), "By the clock, many judged at a time."))
    if (latency := cost.get("latency_s")) is not None:
        found.append(Gauge("seconds to wait", number(latency), "From a request to its judgment, the mean."))
    return tuple(found)


def surety(summary: Summary) -> tuple[Gauge, ...]:
    """What may say how sure the judge is: its mean, and how well it tells right rows from wrong ones."""
    found = []
    for name, part in (summary.get("confidence") or {}).items():
        if part.get("mean") is None:
            continue
        title, words = SURETY.get(name, (name, ""))
        if part.get("auroc") is not None:
            words += f" It tells right rows from wrong ones with AUROC {part['auroc']:.3f}; 0.5 is a coin."
        elif part.get("spearman") is not None:
            words += f" Spearman’s correlation with how near its rating is to people’s: {part['spearman']:+.3f}."
        found.append(Gauge(title, percent(part["mean"]), words.strip()))
    return tuple(found)


def counts(summary: Summary, num_rows: int) -> tuple[Count, ...]:
    """Rows: scored, and unscored by reason."""
    unscored = summary.get("unscored") or {}
    scored = num_rows - sum(unscored.values())
    return (Count("scored", scored, "a verdict was read", "good"), *bad(unscored))


def bad(reasons: Mapping[str, int]) -> tuple[Count, ...]:
    """The most frequent first."""
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    return tuple(Count(name, num, in_words(name), "bad") for name, num in ordered)


def saturation(use: Mapping[str, Any]) -> str:
    """How much of the scale the replies use."""
    if not use:
        return ""
    low, high = (use.get(name) or 0.0 for name in ("at_low", "at_high"))
    values = int(use["values"])
    return (
        f"Of {int(use['n']):,} scores in replies {percent(use['most_share'])} are {number(use['most'])}, the most "
        f"frequent one; {percent(low)} lie at the low end of the scale and {percent(high)} at the high end. "
        f"{plural(values, 'value')} {'is' if values == 1 else 'are'} used."
    )


def facts_of_run(summary: Summary, folder: Path) -> tuple[tuple[str, str], ...]:
    """Judge, template, protocol and data, at the foot of the page."""
    judge, template = _part(summary, "judge"), _part(summary, "template")
    model = " on ".join(dict.fromkeys(str(judge[part]) for part in ("model", "engine") if judge.get(part)))
    rows = [
        ("run folder", str(folder)),
        ("benchmark", str(summary["benchmark"])),
        ("judge", " · ".join(filter(None, [model, str(judge.get("fingerprint") or judge.get("digest") or "")[:16]]))),
        ("template", " · ".join(filter(None, [str(template.get("id") or ""), str(template.get("digest") or "")[:16]]))),
    ]
    for part in ("protocol", "data"):
        rows += [(in_plain(name), _plain(value)) for name, value in _part(summary, part).items()]
    return tuple((name, value) for name, value in rows if value)


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(_plain(one) for one in value)
    return "" if value is None else str(value)


def _part(summary: Summary, name: str) -> Mapping[str, Any]:
    found = summary.get(name)
    return found if isinstance(found, Mapping) else {}


SURETY = {
    "margin": ("margin", "From the best score to the next, as a share of the scale, the mean."),
    "votes": ("votes agree", "How many of a row’s votes say what most of them say, the mean: self-consistency."),
    "orders": ("orders agree", "Rows on which both orders choose alike."),
    "agreement": (
        "replies agree",
        "Replies, over all votes and orders, that say what the outcome says: its confidence.",
    ),
}

PARSE_RATE = (
    "Replies of the judge that could be read. A row without a readable verdict is unscored: counted under its reason, "
    "never as a zero, a middle score or a tie."
)
