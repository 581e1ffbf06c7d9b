"""A judge's reply split for reading: the thinking, then the final part with its scores marked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flexreward.parse import Reasoning, answer_spans, final_span
from flexreward.report.page import ReplyView, Segment
from flexreward.report.words import in_words


def reply_view(vote: Mapping[str, Any]) -> ReplyView:
    """One vote of an outcome line."""
    reply = str(vote.get("reply") or "")
    read = vote.get("scores") is not None
    reasoning, final = split(reply, mark=read)
    return ReplyView(
        reasoning=reasoning,
        final=final,
        problem="" if read else in_words(str(vote.get("reason") or "unscored")),
        note="thought cut short" if vote.get("thought_cut") is True else "",
    )


def split(reply: str, *, mark: bool) -> tuple[str | None, tuple[Segment, ...]]:
    """The reasoning, and the final part cut where scores begin and end.

    Args:
        mark: Whether scores were read from this reply, so that they stand out.
    """
    final = final_span(reply, _reasoning(reply))
    if final is None:
        return _bare(reply), ()
    reasoning = reply[: final.start] + reply[final.end :]
    parts, done = [], final.end - len(reply[final.start : final.end].lstrip())
    for span in (answer_spans(reply, final) if mark else None) or ():
        parts += [Segment(reply[done : span.start], False), Segment(reply[span.start : span.end], True)]
        done = span.end
    parts.append(Segment(reply[done : final.end], False))
    return _bare(reasoning) if reasoning.strip() else None, tuple(part for part in parts if part.text)


def _reasoning(reply: str) -> Reasoning:
    # The outcome file does not say where the template puts the thought, but the reply shows it.
    begins_with_answer = reply.lstrip().startswith("<answer>")
    return "last" if begins_with_answer or not ("<think>" in reply or "</think>" in reply) else "first"


def _bare(reasoning: str) -> str:
    return reasoning.strip().removeprefix("<think>").removesuffix("</think>").strip()
