"""One row as the page's script lays it out: plain JSON of texts in which nothing hidden is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from flexreward.report.cards import label
from flexreward.report.evals.media import media_of
from flexreward.report.evals.rows import Fact, in_brief
from flexreward.report.folder import as_scores
from flexreward.report.reply import reply_view
from flexreward.report.text import plain, visible
from flexreward.report.words import cut_prompt, in_words, number

HEAD_CHARS, TAIL_CHARS = 24_000, 8_000
"""A longer text shows its two ends: more than any real reply, less than what would stall a phone."""

Json: TypeAlias = dict[str, Any]
Part: TypeAlias = Mapping[str, Any]
Shown: TypeAlias = str | list[str | int]
"""A text, or its head, how many characters are left out, and its tail."""


def verdict(line: Part, sample: Part | None, fact: Fact, folder: Path, *, inline: bool) -> Json:
    """Everything that an opened row shows."""
    return question(line, sample, folder, inline=inline) | {"id": fact.id, "judges": [judged(line, fact)]}


def question(line: Part, sample: Part | None, folder: Path, *, inline: bool, prefix: str = "") -> Json:
    """What was asked, what was judged, and what people said of it.

    Args:
        folder: The run folder.
        inline: Whether small media go into the page.
        prefix: The way from the page to the run folder, where it is not in it.
    """
    human = as_scores(line.get("human")) or ()
    found = sample.get("completions") if sample else None
    texts = found if isinstance(found, list) and len(found) == len(human) else [None] * len(human)
    media = media_of(sample, folder, inline=inline, prefix=prefix) if sample else []
    # Media that are completions come last; such a completion has no text.
    bare = [i for i, text in enumerate(texts) if text is None] if sample and len(media) >= texts.count(None) else []
    own = dict(zip(bare, media[len(media) - len(bare) :], strict=True))
    return {
        "group": visible(str(line.get("group") or "")),
        "human": people_said(human),
        "prompt": shown(plain(sample.get("prompt"))) if sample else None,
        "media": media[: len(media) - len(bare)],
        "completions": [
            {
                "label": label(i),
                "text": None if texts[i] is None else shown(plain(texts[i])),
                "media": [own[i]] if i in own else [],
                "system": _system(line, i),
                "best": len(human) > 1 and value == max(human) > min(human),
            }
            for i, value in enumerate(human)
        ],
    }


def _system(line: Part, index: int) -> str:
    systems = line.get("systems") or ()
    return visible(str(systems[index])) if index < len(systems) else ""


def judged(line: Part, fact: Fact) -> Json:
    """What one judge made of it, order by order."""
    scores = as_scores(line.get("scores"))
    return {
        "result": fact.result,
        "brief": fact.judge,
        "scores": [number(score) for score in scores or ()],
        "reason": in_words(fact.reason) if scores is None else "",
        "disagree": fact.orders,
        **_note(cut_prompt(line.get("prompt_cut"))),
        "orders": [_order(order) for order in line.get("orders") or ()],
    }


def people_said(human: Sequence[float]) -> str:
    """In words: a favourite, a ranking, a tie, a rating."""
    brief = in_brief(human)
    if len(human) == 1:
        return f"People gave {brief}."
    if brief in ("tie", "both bad"):
        return {"tie": "People see a tie.", "both bad": "People find both bad."}[brief]
    return f"People rank {brief}." if ">" in brief else f"People prefer {brief}."


def shown(text: str) -> Shown:
    """The text with every hidden character spelled out; the middle of a very long one left out."""
    if len(text) <= HEAD_CHARS + TAIL_CHARS:
        return visible(text)
    return [visible(text[:HEAD_CHARS]), len(text) - HEAD_CHARS - TAIL_CHARS, visible(text[-TAIL_CHARS:])]


def _order(order: Part) -> Json:
    scores = as_scores(order.get("scores"))
    return {
        "shown": [label(int(index)) for index in order.get("order") or ()],
        "scores": [number(score) for score in scores or ()],
        "prefers": in_brief(scores) if scores else "",
        "votes": [_vote(vote) for vote in order.get("votes") or ()],
    }


def _vote(vote: Part) -> Json:
    view, scores = reply_view(vote), as_scores(vote.get("scores"))
    return {
        "scores": [number(score) for score in scores or ()],
        "thought": None if view.reasoning is None else shown(view.reasoning),
        "final": [[shown(part.text), int(part.score)] for part in view.final],
        "problem": view.problem,
        **_note(view.note),
    }


def _note(words: str) -> Json:
    """Few have one, and a page holds many."""
    return {"note": words} if words else {}
