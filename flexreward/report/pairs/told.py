"""What a folder of pairs comes to, in words, and what one could do about it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from flexreward.report.page import Count, Gauge
from flexreward.report.words import in_words, interval, listed, percent, plural

Part = Mapping[str, Any]

NEAR = 0.05
"""A share further than this from a half, its interval included, is worth a remark."""
COIN = 0.55
"""Agreement with the truth below this is little better than a coin."""


class Remark(NamedTuple):
    """Something that the figures say to do."""

    words: str
    remedy: str
    """Options of ``flexreward pairs``; nothing is judged again."""


def headline(study: Part) -> str:
    kept = study["yield"]["kept"]
    by_outcome = study["yield"]["by_outcome"]
    return f"{by_outcome.get('kept', 0):,} of {plural(kept['n'], 'judged pair')} kept"


def lead(study: Part) -> tuple[str, ...]:
    """A paragraph on what was kept and how well it is chosen."""
    dropped = [(name, num) for name, num in study["yield"]["by_outcome"].items() if name != "kept"]
    told = ["A pair is kept when both orders name the same winner and the rules ask for nothing more."]
    if dropped:
        reasons = listed([f"{num:,} {name.replace('_', ' ')}" for name, num in dropped])
        told.append(f"What is not kept stands aside with its reason: {reasons}.")
    if num := study["yield"]["duplicates"]:
        told.append(f"{plural(num, 'pair')} of equal texts, or of texts that an earlier pair had, were never judged.")
    truth = study.get("truth")
    if truth and truth["before"]["value"] is not None:
        words = f"By the column {truth['column']} the better one wins in {_told(truth['before'])}"
        words += " of the pairs with a winner"
        if truth["after"]["value"] is not None:
            words += f", and in {_told(truth['after'])} of the kept ones"
        told.append(f"{words}.")
    return (" ".join(told),)


def gauges(summary: Part) -> tuple[Gauge, ...]:
    study = summary["study"]
    kept = study["yield"]["kept"]
    found = [Gauge("kept", percent(kept["value"]), f"{_spread(kept)} {KEPT}".strip())]
    if study["flips"]["n"]:
        found.append(Gauge("flips", percent(study["flips"]["value"]), f"{_spread(study['flips'])} {FLIPS}"))
    if study["slot_1"]["before"]["n"]:
        slots = study["slot_1"]["before"]
        found.append(Gauge("for slot 1", percent(slots["value"]), f"{_spread(slots)} {SLOTS}"))
    if summary.get("parse_rate") is not None:
        found.append(Gauge("parse rate", percent(summary["parse_rate"]), PARSED))
    return tuple(found)


def counts(study: Part) -> tuple[Count, ...]:
    """Every outcome with what it means."""
    tones = {"kept": "good", "tied": "plain"}
    by_outcome = {"kept": 0} | study["yield"]["by_outcome"]
    return tuple(
        Count(
            name, num, "both orders name the same winner" if name == "kept" else in_words(name), tones.get(name, "bad")
        )
        for name, num in by_outcome.items()
    )


def remarks(study: Part) -> tuple[Remark, ...]:
    """What to do, where a figure says something."""
    found = []
    longer, earlier = study["longer_won"]["after"], study["earlier_won"]["after"]
    if leans(longer):
        side = "longer" if longer["value"] > 0.5 else "shorter"
        share = longer["value"] if side == "longer" else 1 - longer["value"]
        words = f"The winner is the {side} text in {percent(share)} of the kept pairs: a policy would learn length."
        found.append(Remark(words, "--balance length"))
    if leans(earlier):
        side = "earlier" if earlier["value"] > 0.5 else "later"
        share = earlier["value"] if side == "earlier" else 1 - earlier["value"]
        words = f"The winner is the {side} completion of its sample in {percent(share)} of the kept pairs."
        if study.get("temperatures"):
            words += " Completions stand in the order of their temperatures, so this is the temperature’s doing too."
        found.append(Remark(words, "--balance position"))
    truth = study.get("truth") or {}
    weak = [one for one in truth.get("by_margin") or () if one["value"] < COIN and one["to"] is not None]
    if weak and truth["before"]["value"] is not None and truth["before"]["value"] >= COIN:
        last = max(one["to"] for one in weak)
        if any(one["from"] >= last for one in truth["by_margin"]):
            words = f"Below a margin of {last:g} the better one wins hardly more often than by a coin."
            found.append(Remark(words, f"--keep margin={last:g}"))
    apart = [one for one in study["histograms"]["length"]["bins"] if one[0] >= 2]
    far = sum(study["histograms"]["length"]["kept"][-len(apart) :]) if apart else 0
    if (num := sum(study["histograms"]["length"]["kept"])) and far / num > 0.5:
        words = f"In {percent(far / num)} of the kept pairs one text is more than twice as long as the other."
        found.append(Remark(words, "--keep ratio=2"))
    return tuple(found)


def leans(share: Part) -> bool:
    """Whether a share that should be a half is not, beyond its interval."""
    return share["value"] is not None and (share["low"] > 0.5 + NEAR or share["high"] < 0.5 - NEAR)


def facts(summary: Part, header: Part, folder: Path) -> tuple[tuple[str, str], ...]:
    """At the foot of the page."""
    judge, template = header.get("judge") or {}, header.get("template") or {}
    model = " on ".join(dict.fromkeys(str(judge[part]) for part in ("model", "engine") if judge.get(part)))
    rows = [
        ("run folder", str(folder)),
        ("judge", " · ".join(filter(None, [model, str(judge.get("fingerprint", ""))[:16]]))),
        ("template", str(template.get("id") or "")),
        ("scores", "from {:g} to {:g}".format(*template["scale"]) if template.get("scale") else ""),
        ("intervals", "95 %, Wilson's, pairs taken as independent of each other"),
    ]
    return tuple((name, value) for name, value in rows if value)


def _told(found: Part) -> str:
    return f"{percent(found['value'])} ({interval(found['low'], found['high'])})"


def _spread(found: Part) -> str:
    return "" if found["value"] is None else f"{interval(found['low'], found['high'])}."


KEPT = "Of the judged pairs; only these become rows to train on."
FLIPS = "Readable pairs whose winner turns with the order: there the judge follows the place."
SLOTS = "Of all orders that name a winner; a judge without a leaning names slot 1 half of the time."
PARSED = "Replies of the judge that could be read. The rest is unscored: never a zero, a middle score or a tie."
