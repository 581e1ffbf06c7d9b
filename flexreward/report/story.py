"""What happened in a run, in plain words: headline, gauges, counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from flexreward.report.charts import Point
from flexreward.report.folder import Fact, Folder
from flexreward.report.page import Count, Gauge
from flexreward.report.why import disagreement
from flexreward.report.words import in_words, listed, number, percent, plural


class Story(NamedTuple):
    title: str
    headline: str
    lead: tuple[str, ...]
    gauges: tuple[Gauge, ...]
    counts: tuple[Count, ...]
    facts: tuple[tuple[str, str], ...]


def tell(folder: Folder, statuses: Sequence[tuple[str, str]]) -> Story:
    curve = points(folder)
    headline, lead = _picked_better(folder, curve) if len(curve) > 1 else _judged(folder)
    counts = _pair_counts(folder.summary, statuses) if _built_pairs(folder) else _reason_counts(folder)
    return Story(
        title=f"flexreward: {folder.path.resolve().name}",
        headline=headline,
        lead=lead,
        gauges=_gauges(folder, counts),
        counts=counts,
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
    num_problems = len({fact.sample for fact in folder.pointwise})
    num_each = len(folder.pointwise) / max(1, num_problems)
    lead = [
        f"A policy was given {plural(num_problems, 'problem')} and wrote {number(num_each)} completions for each. "
        "The judge read every completion, thought about it, and gave it a score. "
        "For each problem the completion with the best score was picked; "
        "the known answers only serve to check the picks.",
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


def _built_pairs(folder: Folder) -> bool:
    return bool(folder.dropped) or "pairs" in folder.summary


def _pair_counts(summary: Mapping[str, Any], statuses: Sequence[tuple[str, str]]) -> tuple[Count, ...]:
    """Kept, tied, and dropped by reason: from the summary, else counted here."""
    pairs = summary.get("pairs")
    pairs = pairs if isinstance(pairs, dict) else {}
    tally = Counter(reason if status == "dropped" else status for status, reason in statuses)
    kept, tied = int(pairs.get("kept", tally.pop("kept", 0))), int(pairs.get("tied", tally.pop("tied", 0)))
    dropped = {name: int(num) for name, num in (pairs.get("dropped") or tally).items() if name not in ("kept", "tied")}
    return (
        Count("kept", kept, "both orders name the same winner", "good"),
        Count("tied", tied, in_words("tied"), "plain"),
        *(Count(reason, int(count), in_words(reason), "bad") for reason, count in _by_count(dropped)),
    )


def _reason_counts(folder: Folder) -> tuple[Count, ...]:
    facts = [*folder.pointwise, *folder.compared]
    unscored = Counter(fact.reason or "unscored" for fact in facts if fact.scores is None)
    scored = len(facts) - sum(unscored.values())
    return (
        Count("scored", scored, "a verdict was read", "good"),
        *(Count(reason, count, in_words(reason), "bad") for reason, count in _by_count(unscored)),
    )


def _by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-int(item[1]), item[0]))


def _gauges(folder: Folder, counts: Sequence[Count]) -> tuple[Gauge, ...]:
    facts = [*folder.pointwise, *folder.compared]
    summary = folder.summary
    parsed = summary.get("parse_rate", sum(f.num_read for f in facts) / max(1, sum(f.num_replies for f in facts)))
    gauges = [
        Gauge(
            "parse rate",
            percent(parsed),
            "Replies of the judge that could be read. The rest is unscored: set aside with a reason, never "
            "counted as a zero, a middle score or a tie.",
        )
    ]
    flip_rate = summary.get("flip_rate", _flip_rate(folder.compared))
    if flip_rate is not None:
        gauges.append(
            Gauge(
                "flip rate",
                percent(flip_rate),
                "Comparisons in which the winner changed when the same two completions were shown in the other order. "
                "A flip means that the judge followed the place and not the content.",
            )
        )
    if _built_pairs(folder):
        dropped = [count for count in counts if count.tone == "bad"]
        reasons = listed([f"{count.num:,} {count.name.replace('_', ' ')}" for count in dropped])
        gauges += [
            Gauge(
                "pairs kept",
                f"{counts[0].num:,}",
                "Both orders agree on the winner. Only these become training pairs.",
            ),
            Gauge(
                "pairs dropped",
                f"{sum(count.num for count in dropped):,}",
                (f"{reasons[:1].upper() + reasons[1:]}. " if dropped else "")
                + "A pair on which the judge disagrees with itself would teach noise, so it is left out.",
            ),
            Gauge(
                "pairs tied",
                f"{counts[1].num:,}",
                "Equal scores. A tie is a real verdict, but it leaves nothing to prefer.",
            ),
        ]
    if (speed := summary.get("judgments_per_s")) is not None:
        gauges.append(
            Gauge(
                "judgments a second",
                number(float(speed)),
                "How fast the judge worked on this machine, thinking included.",
            )
        )
    return tuple(gauges)


def _flip_rate(facts: Sequence[Fact]) -> float | None:
    readable = [fact.winners for fact in facts if len(fact.orders) > 1 and all(fact.orders)]
    return sum(disagreement(winners) == "flipped" for winners in readable) / len(readable) if readable else None


def _facts(folder: Folder) -> tuple[tuple[str, str], ...]:
    rows = [("run folder", str(folder.path))]
    for kind, name in (("pointwise", "one at a time"), ("compared", "against each other")):
        if lines := folder.files.get(kind):
            judge, template = (_section(lines.header, part) for part in ("judge", "template"))
            used = ", ".join(sorted({fact.template for fact in getattr(folder, kind)}))
            model = " ".join(str(judge.get(part, "")) for part in ("model", "engine")).strip()
            rows += [
                (f"judged {name}", f"template {template.get('id', used)}, {lines.path.name}"),
                ("judge", " · ".join(filter(None, [model, str(judge.get("fingerprint", ""))[:16]]))),
            ]
    return tuple(dict.fromkeys((name, value) for name, value in rows if value))


def _section(header: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = header.get(name)
    return section if isinstance(section, dict) else {}
