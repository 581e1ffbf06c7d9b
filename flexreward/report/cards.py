"""Outcome lines and sample rows as the cards of a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from flexreward.pairs.best_of_n import choice
from flexreward.report.folder import Fact, SampleFact, as_scores, best
from flexreward.report.page import Comparison, CompletionView, OrderView, Problem, ReplyView
from flexreward.report.reply import reply_view
from flexreward.report.text import plain
from flexreward.report.why import disagreement, why_kept, why_picked
from flexreward.report.words import cut_prompt, in_words

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Asked(NamedTuple):
    """The sample behind a card, as far as the folder holds it."""

    fact: SampleFact | None = None
    row: Mapping[str, Any] | None = None

    @property
    def kind(self) -> str:
        return self.fact.kind if self.fact else ""

    @property
    def truth(self) -> str | None:
        return self.fact.truth if self.fact else None

    @property
    def prompt(self) -> str | None:
        return plain(self.row["prompt"]) if self.row and "prompt" in self.row else None

    def completion(self, index: int) -> str | None:
        texts = self.row.get("completions") if self.row else None
        return plain(texts[index]) if isinstance(texts, list) and index < len(texts) else None

    def right(self, index: int) -> bool | None:
        return self.fact.right[index] if self.fact and index < len(self.fact.right) else None


def problem(name: str, facts: Sequence[Fact], lines: Sequence[Mapping[str, Any]], asked: Asked) -> Problem:
    """All completions of one sample that were judged one at a time, each with its whole outcome line."""
    views = []
    for place, (fact, line) in enumerate(zip(facts, lines, strict=True)):
        index = fact.indices[0] if fact.indices else place
        views.append(
            CompletionView(
                label=f"#{index + 1}",
                text=asked.completion(index),
                right=asked.right(index),
                score=fact.scores[0] if fact.scores else None,
                reason="" if fact.scores else in_words(fact.reason),
                note=cut_prompt(line.get("prompt_cut")),
                replies=tuple(reply for order in line.get("orders") or () for reply in _replies(order)),
            )
        )
    picked = choice([view.score for view in views]) if len(views) > 1 else ()
    views = [replace(view, picked=i in picked) for i, view in enumerate(views)]
    return Problem(
        id=name,
        kind=asked.kind,
        prompt=asked.prompt,
        truth=asked.truth,
        completions=tuple(views),
        why=why_picked(views) if len(views) > 1 else "",
    )


def comparison(fact: Fact, line: Mapping[str, Any], asked: Asked, *, status: str, reason: str) -> Comparison:
    """One request whose completions were judged against each other."""
    orders = tuple(_order(order) for order in line.get("orders") or ())
    width = max([len(fact.scores or ()), *(len(order.shown) for order in orders)])
    views = tuple(
        CompletionView(
            label=label(slot),
            text=asked.completion(index),
            right=asked.right(index),
            score=fact.scores[slot] if fact.scores else None,
        )
        for slot, index in enumerate(fact.indices or range(width))
    )
    return Comparison(
        id=fact.id,
        kind=asked.kind,
        prompt=asked.prompt,
        truth=asked.truth,
        completions=views,
        orders=orders,
        status=status,
        reason=reason,
        why=why_kept(status, reason, orders, views),
        disagreement=disagreement([order.prefers for order in orders if order.scores]),
        note=cut_prompt(line.get("prompt_cut")),
    )


def label(index: int) -> str:
    """``A``, ``B`` ... for completions that are compared; numbers beyond the alphabet."""
    return LETTERS[index] if index < len(LETTERS) else f"#{index + 1}"


def _order(order: Mapping[str, Any]) -> OrderView:
    scores = as_scores(order.get("scores"))
    top = best(scores) if scores else None
    return OrderView(
        shown=tuple(label(index) for index in order.get("order") or ()),
        scores=scores,
        prefers=None if top is None else label(top),
        replies=_replies(order),
    )


def _replies(order: Mapping[str, Any]) -> tuple[ReplyView, ...]:
    return tuple(reply_view(vote) for vote in order.get("votes") or ())


def pair_status(fact: Fact, dropped: Mapping[str, str]) -> tuple[str, str]:
    """``kept``, ``tied`` or ``dropped`` with the reason; what the pair builder wrote wins over what can be inferred."""
    if reason := dropped.get(fact.id, ""):
        return ("tied" if reason == "tied" else "dropped"), reason
    if fact.scores is None:
        return "dropped", "unscored"
    if reason := disagreement(fact.winners):
        return "dropped", reason
    return ("tied", "tied") if best(fact.scores) is None else ("kept", "")
