"""The pairs that a folder shows, read twice: once for what the list says of each, once for its whole text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flexreward.report.cards import label
from flexreward.report.evals.browser import Words
from flexreward.report.evals.rows import Fact, Place, excerpt, in_brief
from flexreward.report.evals.verdict import Json, judged, shown
from flexreward.report.folder import as_scores, best, fetch, read_lines
from flexreward.report.text import plain, visible
from flexreward.report.why import disagreement
from flexreward.report.words import in_words, number, plural, sentence

GOOD, BAD = ("kept",), ("flipped", "half_tied", "unscored")
BETTER, WORSE = "the better won", "the worse won"


def words_of(outcomes: Mapping[str, int], num_shown: int) -> Words:
    """How the page speaks of its pairs.

    Args:
        outcomes: How many pairs there are of each.
    """
    total = sum(outcomes.values())
    told = "Each pair with both orders and what the judge wrote in each."
    if num_shown < total:
        told = (
            f"Of {plural(total, 'judged pair')} {num_shown:,} can be read here, drawn at random with a fixed seed, as "
            f"many of each outcome as of any other where there are so many. {told}"
        )
    return Words(
        results={outcome: outcome.replace("_", " ") for outcome in outcomes},
        told=told,
        by="scores ",
        noun="pair",
        group="by the truth",
        beside_people=False,
        best="chosen",
        missing="is there; it is too large for this page, or cannot be read",
        good=GOOD,
        bad=BAD,
        drawn_by="each outcome",
    )


def read_facts(path: Path) -> list[Fact]:
    """Every pair of ``shown.jsonl``, in its order.

    Raises:
        OutputError: A line is broken.
    """
    return [_fact(place, line) for place, line in read_lines(path)]


def _fact(place: int, line: Mapping[str, Any]) -> Fact:
    scores = as_scores(line.get("scores"))
    votes = [vote for order in line.get("orders") or () for vote in order.get("votes") or ()]
    unread = next((str(vote.get("reason") or "") for vote in votes if vote.get("scores") is None), "")
    return Fact(
        place=Place(place, None),
        id=visible(str(line["id"])),
        group=_by_truth(line, scores),
        result=str(line["outcome"]),
        reason=visible(unread),
        orders="",
        people="",
        judge=" : ".join(number(score) for score in scores) if scores else "",
        said=excerpt(line),
    )


def _by_truth(line: Mapping[str, Any], scores: tuple[float, ...] | None) -> str:
    truth = as_scores(line.get("truth"))
    if truth is None or scores is None or truth[0] == truth[1] or scores[0] == scores[1]:
        return ""
    return BETTER if best(truth) == best(scores) else WORSE


def teller(path: Path) -> Callable[[Fact, bool], Json]:
    """Gives a whole pair, its line read again."""

    def tell(fact: Fact, inline: bool) -> Json:
        [line] = fetch(path, [fact.place.outcome])
        return pair(line, fact)

    return tell


def pair(line: Mapping[str, Any], fact: Fact) -> Json:
    """Everything that an opened row shows."""
    scores = as_scores(line.get("scores"))
    winner = best(scores) if scores and fact.result == "kept" else None
    winners = [best(found) for order in line.get("orders") or () if (found := as_scores(order.get("scores")))]
    verdict = judged(line, fact)
    return {
        "id": fact.id,
        "group": fact.group,
        "human": _why(fact.result),
        "prompt": shown(plain(line.get("prompt"))),
        "media": [
            {"kind": "image"} | {key: visible(str(value)) for key, value in one.items()} for one in line["images"]
        ],
        "completions": [
            {
                "label": label(i),
                "text": shown(plain(text)),
                "media": [],
                "system": _aside(line, i),
                "best": winner == i,
            }
            for i, text in enumerate(line["completions"])
        ],
        "judges": [verdict | {"brief": in_brief(scores) if scores else "", "disagree": disagreement(winners)}],
    }


def _why(outcome: str) -> str:
    return (
        "Both orders name the same winner, and no rule drops it." if outcome == "kept" else sentence(in_words(outcome))
    )


def _aside(line: Mapping[str, Any], index: int) -> str:
    """What is known of a completion besides its text."""
    parts = []
    if origins := line.get("origins"):
        origin = origins[index]
        if origin.get("temperature") is not None:
            parts.append(f"temperature {number(origin['temperature'])}")
        if origin.get("finish_reason") == "length":
            parts.append("cut at its limit")
    if truth := as_scores(line.get("truth")):
        parts.append({1.0: "right", 0.0: "wrong"}.get(truth[index], f"truly {number(truth[index])}"))
    return ", ".join(parts)
