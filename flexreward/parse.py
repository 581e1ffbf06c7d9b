"""Text to scores: what the judge wrote becomes a verdict, or an Unscored with its reason. Pure, and guesses nothing.

    reply -> its final part -> the answers in it -> numbers or labels -> Verdict | Unscored

The reply is partly written by what is being judged (a thought quotes the completions), so only the final part is read,
all of it must fit, and nothing is repaired: one answer too many, a stray tag or a number off the scale is a reason.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple, TypeAlias

from flexreward.types import Outcome, Reason, Reply, Scale, Unscored, Verdict

Reasoning: TypeAlias = Literal["first", "last", "none"]
"""Where the thought stands: before the answers, after them, or nowhere (then the whole reply is final)."""

Reader: TypeAlias = Literal["scores", "genai"]
"""Which of ``READERS`` reads the reply: numbers, or GenAI-Bench's labels."""

ANSWER_TAG = re.compile(r"</?answer>")
THINK_TAG = re.compile(r"</?think>")
NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")

LABELS = {
    "[[A>B]]": (1.0, 0.0),
    "[[B<A]]": (1.0, 0.0),
    "[[B>A]]": (0.0, 1.0),
    "[[A<B]]": (0.0, 1.0),
    "[[A=B=Good]]": (1.0, 1.0),
    "[[A=B=Bad]]": (0.0, 0.0),
}
"""GenAI-Bench's four labels, two of them in two spellings, as scores of A and B from 0 (bad) to 1 (good)."""


class Span(NamedTuple):
    """Characters ``start`` up to ``end`` of a reply."""

    start: int
    end: int


def final_span(text: str, reasoning: Reasoning) -> Span | None:
    """Where the judge speaks for itself; ``None`` when its thought never ends.

    A thought that comes first ends at the last ``</think>``, so that a completion quoted inside it can close no thought
    but its own; a ``<think>`` after that opens one that does not end.
    """
    if reasoning == "first":
        end_of_thought = text.rfind("</think>")
        if end_of_thought < 0 or text.find("<think>", end_of_thought) >= 0:
            return None
        return Span(end_of_thought + len("</think>"), len(text))
    if reasoning == "last":
        thought = THINK_TAG.search(text)
        return Span(0, thought.start() if thought else len(text))
    return Span(0, len(text))


def answer_spans(text: str, final: Span) -> list[Span] | None:
    """What stands inside each ``<answer>`` of the final part, without outer spaces; ``None`` if the tags do not pair.

    For a readable reply these are exactly the places of its numbers.
    """
    tags = list(ANSWER_TAG.finditer(text, *final))
    if any((tag[0] == "<answer>") != (i % 2 == 0) for i, tag in enumerate(tags)) or len(tags) % 2:
        return None
    return [
        _stripped(text, opening.end(), closing.start()) for opening, closing in zip(tags[::2], tags[1::2], strict=True)
    ]


def parse_scores(reply: Reply, *, count: int, scale: Scale, reasoning: Reasoning) -> Outcome:
    """Read one number a completion, in the order shown. Decimals are welcome; signs, fractions and words are not."""
    answers = _answers(reply, reasoning)
    if isinstance(answers, Unscored):
        return answers
    for answer in answers:
        if not NUMBER.fullmatch(answer):
            return _unscored(Reason.NOT_A_NUMBER, reply, f"expected a number, found {_short(answer)}")
    if len(answers) != count:
        return _wrong_count(reply, len(answers), count)
    scores = tuple(float(answer) for answer in answers)
    for answer, score in zip(answers, scores, strict=True):
        if score not in scale:
            detail = f"expected {scale.low:g} to {scale.high:g}, found {_short(answer)}"
            return _unscored(Reason.OFF_SCALE, reply, detail)
    return Verdict(scores=scores, scale=scale, reply=reply.text)


def parse_labels(reply: Reply, *, count: int, scale: Scale, reasoning: Reasoning) -> Outcome:
    """Read the one label that compares two completions, on the scale from 0 to 1."""
    assert count == 2, "a label compares two completions"
    answers = _answers(reply, reasoning)
    if isinstance(answers, Unscored):
        return answers
    for answer in answers:
        if answer not in LABELS:
            return _unscored(Reason.NOT_A_NUMBER, reply, f"expected one of {', '.join(LABELS)}, found {_short(answer)}")
    if len(answers) != 1:
        return _wrong_count(reply, len(answers), 1)
    return Verdict(scores=LABELS[answers[0]], scale=scale, reply=reply.text)


def _answers(reply: Reply, reasoning: Reasoning) -> list[str] | Unscored:
    """What the final part answers, as text: at least one, or the reason why there is none."""
    # Even when every answer seems to be there: the next token could have been another digit, or another answer.
    if reply.truncated:
        return _unscored(Reason.TRUNCATED, reply, "the reply was cut at its token limit")
    final = final_span(reply.text, reasoning)
    if final is None:
        return _unscored(Reason.NO_END, reply, "no </think> ends the thought")
    spans = answer_spans(reply.text, final)
    if spans is None:
        return _unscored(Reason.NOT_A_NUMBER, reply, "an <answer> tag without its other half")
    if not spans:
        return _unscored(Reason.NO_ANSWER, reply, "the final part holds no <answer>")
    return [reply.text[span.start : span.end] for span in spans]


def _wrong_count(reply: Reply, found: int, expected: int) -> Unscored:
    reason = Reason.MISSING if found < expected else Reason.EXTRA
    return _unscored(reason, reply, f"expected {expected} answer{'s' * (expected > 1)}, found {found}")


def _unscored(reason: Reason, reply: Reply, detail: str) -> Unscored:
    return Unscored(reason=reason, reply=reply.text, detail=detail)


def _stripped(text: str, start: int, end: int) -> Span:
    inside = text[start:end]
    bare = inside.lstrip()
    start += len(inside) - len(bare)
    return Span(start, start + len(bare.rstrip()))


def _short(answer: str) -> str:
    """One line of it, whatever it holds."""
    return repr(answer if len(answer) <= 40 else answer[:40] + "...")


READERS = {"scores": parse_scores, "genai": parse_labels}
"""The readers that a template can name."""
