"""What happened in a run, in plain words: the headline, the lead, and what was used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from flexreward.report.charts import Point
from flexreward.report.folder import Folder
from flexreward.report.words import number, percent, plural

SCORED = (
    "The judge read every completion, thought about it, and gave it a score. "
    "For each problem the completion with the best score was picked."
)
COMPARED = {
    "knockout": "The judge set two completions at a time against each other, in both orders, and the better went on; "
    "the last that was left was picked.",
    "round-robin": "The judge set every two completions against each other, in both orders, and the one that won the "
    "largest share was picked.",
    "bradley-terry": "The judge set every two completions against each other, in both orders, and the strongest, by "
    "how clearly and against whom it won, was picked.",
    "listwise": "The judge read completions side by side, forward and reversed, and the one with the best score was "
    "picked.",
}
"""How a completion was picked, by method."""


class Story(NamedTuple):
    title: str
    headline: str
    lead: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]


def tell(folder: Folder) -> Story:
    curve = points(folder)
    headline, lead = _picked_better(folder, curve) if len(curve) > 1 else _judged(folder)
    return Story(
        title=f"flexreward: {folder.path.resolve().name}",
        headline=headline,
        lead=lead,
        facts=_facts(folder),
    )


def points(folder: Folder) -> tuple[Point, ...]:
    """Best-of-N as ``summary.json`` and ``curve.json`` hold it; nothing where there is none."""
    summary = folder.summary
    judge, oracle, shuffled = (_by_n(summary.get(name)) for name in ("best_of_n", "oracle", "shuffled"))
    intervals = summary.get("intervals") or {}
    intervals = intervals.get("best_of_n", intervals)
    measured = _by_n(folder.curve.get("best_of_n"))
    drawn = []
    for n, level in sorted(judge.items()):
        low, high = intervals.get(str(n)) or measured.get(n, level)[1:]
        others = [by_n[n].mean if n in by_n else None for by_n in (oracle, shuffled)]
        drawn.append(Point(n, level.mean, low, high, *others))
    return tuple(drawn)


class Level(NamedTuple):
    mean: float
    low: float | None = None
    high: float | None = None


def _by_n(values: object) -> dict[int, Level]:
    """By N: a number alone, or one with its interval."""
    if not isinstance(values, dict):
        return {}
    return {
        int(n): Level(value["mean"], value["low"], value["high"]) if isinstance(value, dict) else Level(float(value))
        for n, value in values.items()
    }


def _picked_better(folder: Folder, curve: Sequence[Point]) -> tuple[str, tuple[str, ...]]:
    first, last = curve[0], curve[-1]
    gain = last.accuracy - first.accuracy
    was, became = percent(first.accuracy), percent(last.accuracy)
    if gain >= 0.01:
        headline = f"The judge picks better completions: {was} right becomes {became}"
    elif gain > -0.01:
        headline = f"The judge picks no better than chance: {was} right, {became} after picking"
    else:
        headline = f"The judge picks worse than chance: {was} right becomes {became}"
    how = COMPARED.get(str(folder.curve.get("method")))
    num_problems = len({fact.sample for fact in (folder.compared if how else folder.pointwise)})
    num_each = "several" if how else number(len(folder.pointwise) / max(1, num_problems))
    lead = [
        f"A policy was given {plural(num_problems, 'problem')} and wrote {num_each} completions for each. "
        + (how or SCORED)
        + " The known answers only serve to check the picks.",
        f"One completion taken as it comes is right in {was} of the problems. "
        f"The pick among {last.n} is right in {became}: {100 * gain:+.1f} points."
        + (f" A judge that is never wrong would reach {percent(last.oracle)}." if last.oracle is not None else ""),
    ]
    if last.shuffled is not None:
        lead.append(
            "The control: when the same scores are dealt out at random, "
            f"the pick is right in {percent(last.shuffled)}. "
            "So a gain comes from what the scores say, not from having more to choose from."
        )
    return headline, tuple(lead)


def _judged(folder: Folder) -> tuple[str, tuple[str, ...]]:
    facts = [*folder.pointwise, *folder.compared]
    num_scored = sum(fact.scores is not None for fact in facts)
    lead = []
    if folder.pointwise:
        lead.append(f"{plural(len(folder.pointwise), 'completion')} were judged one at a time.")
    if folder.compared:
        lead.append(f"In {plural(len(folder.compared), 'request')} completions were judged against each other.")
    if num_scored < len(facts):
        lead.append("What could not be read is unscored: counted under its reason, and never given a made-up score.")
    return f"{num_scored:,} of {plural(len(facts), 'request')} scored", tuple(lead)


def _facts(folder: Folder) -> tuple[tuple[str, str], ...]:
    rows = [("run folder", str(folder.path))]
    for kind, name in (("pointwise", "one at a time"), ("compared", "against each other")):
        if lines := folder.files.get(kind):
            judge, template = (_section(lines.header, part) for part in ("judge", "template"))
            used = ", ".join(sorted({fact.template for fact in getattr(folder, kind)}))
            model = " on ".join(dict.fromkeys(str(judge[part]) for part in ("model", "engine") if part in judge))
            rows += [
                (f"judged {name}", f"template {template.get('id', used)}, {lines.path.name}"),
                ("judge", " · ".join(filter(None, [model, str(judge.get("fingerprint", ""))[:16]]))),
            ]
    return tuple(dict.fromkeys((name, value) for name, value in rows if value))


def _section(header: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = header.get(name)
    return section if isinstance(section, dict) else {}
