"""The score that a judge expects to give: each number on the scale weighted by how likely the judge was to write it.

    <answer>8</answer>    8: 0.5   7: 0.3   9: 0.15   "x": 0.05    ->    7.84 from 0.95 of the probability

Two answers that are both an 8 so differ by how near they came to a 7 or a 9: fewer ties from one reply. Pure. What is
known of the numbers is what the engine reported beside each token of the one that was written:

- A number of several tokens is walked token by token. At each, an alternative continues what stands before it, and has
  the probability of all that was written so far times its own.
- An alternative that does not end the number is read as the number it makes so far. Where one more digit could follow
  on the scale (a 1 on the scale to 10, which may become a 10), or a point on a scale no wider than 1, it is nobody's.
- Nobody's, too, are alternatives that make no number, or one off the scale, and what is not among the likeliest tokens.
  The mean is over what is known, at the least the number as it was written; it is taken to be all there is.

Probabilities are those at temperature 1, given the thought that was written: several replies are still several
opinions, and ``aggregate: expected`` takes their mean.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from math import exp, fsum
from typing import NamedTuple

from flexreward.engines.base import Capabilities
from flexreward.errors import RecipeError
from flexreward.parse import Reasoning, Span, answer_spans, final_span
from flexreward.types import Judgment, Outcome, Reason, Reply, Scale, TokenLogprob, Unscored, Verdict

TOP = 20
"""Alternatives asked for at each token: as many as servers give."""
BEGUN = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)(\s*)(.*)", re.DOTALL)
END = "</answer>"


class Expected(NamedTuple):
    score: float
    known: float
    """Share of the probability, at the number's place, that makes a number on the scale."""


def check_expected(
    engine: str, can: Capabilities, *, template: str, reader: str, asked: str = "aggregate", mean: str = "mean"
) -> None:
    """Refuse a judge that cannot score by expectation.

    Args:
        asked: The field that asks for it.
        mean: What it may be instead, for any engine.

    Raises:
        RecipeError: The engine reports no log-probabilities, or the template's answers are no numbers.
    """
    if not can.logprobs:
        of, remedy = (" of a forced answer", f"take {mean}, or leave out think") if can.forced else ("", f"take {mean}")
        raise RecipeError(
            f"{asked}: expected needs log-probabilities, and the engine {engine} reports none{of}; {remedy}"
        )
    if reader != "scores":
        labels = "majority" if asked == "aggregate" else mean
        raise RecipeError(f"{asked}: expected needs numbers, and the template {template!r} has labels; take {labels}")


def with_expected(reply: Reply, verdict: Verdict, *, reasoning: Reasoning) -> Outcome:
    """The verdict read from ``reply``, each score the expected one; unscored where nothing says how likely it was."""
    found = expectations(reply, scale=verdict.scale, reasoning=reasoning)
    if found is None:
        what = "do not spell it" if reply.logprobs else "are missing"
        return Unscored(reason=Reason.REFUSED, reply=reply.text, detail=f"the reply's log-probabilities {what}")
    return replace(verdict, scores=tuple(one.score for one in found))


def expected_scores(judgment: Judgment, *, scale: Scale, reasoning: Reasoning) -> tuple[float, ...] | None:
    """Of a scored judgment, in the order of its request: the mean over its orders, of each one's readable replies.

    ``None`` where it is unscored, or some reply does not say how likely its numbers were.
    """
    if not isinstance(judgment.outcome, Verdict):
        return None
    means = []
    for one in judgment.orders:
        replies = [vote.reply for vote in one.votes if isinstance(vote.outcome, Verdict)]
        found = [expectations(reply, scale=scale, reasoning=reasoning) for reply in replies]
        read = [[answer.score for answer in answers] for answers in found if answers]
        if len(read) < len(replies) or any(len(scores) != len(one.order) for scores in read):
            return None
        by_slot = [fsum(scores) / len(scores) for scores in zip(*read, strict=True)]
        means.append([by_slot[one.order.index(i)] for i in range(len(one.order))])
    return tuple(fsum(scores) / len(scores) for scores in zip(*means, strict=True))


def expectations(reply: Reply, *, scale: Scale, reasoning: Reasoning) -> tuple[Expected, ...] | None:
    """One for each answer of a readable reply; ``None`` where its log-probabilities are not those of its text."""
    # Not the reply's own text: that may begin with a started turn, and a token can be half of a character.
    spelled = "".join(token.text for token in reply.logprobs)
    spans, texts = _answers(reply.text, reasoning)
    places, spellings = _answers(spelled, reasoning)
    if not spans or texts != spellings:
        return None
    return tuple(
        _expected(reply.logprobs, place, float(text), scale) for place, text in zip(places, texts, strict=True)
    )


def _answers(text: str, reasoning: Reasoning) -> tuple[list[Span], list[str]]:
    final = final_span(text, reasoning)
    spans = (final and answer_spans(text, final)) or []
    return spans, [text[span.start : span.end] for span in spans]


def _expected(tokens: Sequence[TokenLogprob], place: Span, written: float, scale: Scale) -> Expected:
    """Of the number at these characters of the tokens' text."""
    values, masses, reached = [written], [0.0], 1.0
    begun, at = "", 0
    for token in tokens:
        start, at = at, at + len(token.text)
        if at <= place.start:
            continue
        if start > place.end:
            break
        lead = token.text[: max(place.start - start, 0)]
        for text, logprob in token.top:
            value = None if text == token.text else _value(begun, lead, text, scale)
            if value is not None and value in scale:
                values.append(value)
                masses.append(reached * exp(logprob))
        reached *= exp(token.logprob)
        begun += token.text[len(lead) :]
        if at > place.end:  # what ends the number is part of how likely it was
            break
    masses[0] = reached
    known = fsum(masses)
    if known == 0:
        return Expected(written, 0.0)
    score = fsum(value * mass for value, mass in zip(values, masses, strict=True)) / known
    return Expected(min(max(score, min(values)), max(values)), min(known, 1.0))


def _value(begun: str, lead: str, text: str, scale: Scale) -> float | None:
    """The number that an alternative token makes; ``None`` where it makes none, or the beginning of one."""
    if lead.isspace():
        text = text.lstrip()
    elif text.startswith(lead):
        text = text.removeprefix(lead)
    else:
        return None
    found = BEGUN.fullmatch(begun + text)
    if found is None:
        return None
    number, space, after = found.groups()
    value = float(number)
    if after:
        return value if END.startswith(after) or after.startswith(END) else None
    if space or "." in number:
        return value
    a_digit_fits = value > 0 and 10 * value <= scale.high
    a_point_matters = scale.high - scale.low <= 1 and value < scale.high
    return None if a_digit_fits or a_point_matters else value
