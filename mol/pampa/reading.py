"""A reply to one of the two labels, or to none; and how likely the model was to write the other.

Two readings stand beside each other. The strict one takes the label that the model gives as its answer, word for word,
and nothing else. The lenient one is the published: it looks for a phrase in what stands after the last marker, so that
"not high permeability" is high.

Source: DongkiKim95/Mol-LLaMA:pampa/inference.py:109-118 for the lenient reading.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp

from flexreward.parse import Span
from flexreward.types import Reason, TokenLogprob
from mol.pampa.recipe import Labels

POSITIVE, NEGATIVE, UNREAD = 1, 0, -1
AROUND = " \t*_`\"'’‘“”."
"""What may stand around a label: emphasis, quotes, a full stop."""
PUBLISHED_MARKER = "Final answer: "
"""Of the lenient reading, to the letter."""
PUBLISHED_BEGUN = re.compile("[Ff]inal [Aa]nswer:")
"""A reply without it is continued, where the recipe asks for that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a reply answers."""

    label: int
    """1 positive, 0 negative, -1 unread."""
    span: Span | None = None
    """Where the label stands; ``None`` for the unread."""
    reason: Reason | None = None
    """Why it is unread."""


def read_strict(text: str, labels: Labels, *, truncated: bool = False) -> Reading:
    """The label after the last marker, or on the last line where there is no marker.

    That line must be one of the two label texts, whatever its capitals, with at most ``AROUND`` around it. The prompt
    shows the negative label without a marker, so the marker is not asked for. What was cut is unread, even where a
    label stands: the next words could have taken it back.
    """
    if truncated:
        return Reading(label=UNREAD, reason=Reason.TRUNCATED)
    markers = [found.end() for found in re.finditer(re.escape(labels.marker), text, re.IGNORECASE)]
    bare = text.rstrip()
    start = markers[-1] if markers else bare.rfind("\n") + 1
    start += len(text[start:]) - len(text[start:].lstrip())
    end = text.find("\n", start)
    line = Span(start, len(text) if end < 0 else end)
    for label, word in ((POSITIVE, labels.positive), (NEGATIVE, labels.negative)):
        span = _bare(text, line)
        if text[span.start : span.end].casefold() == word.text.strip(AROUND).casefold():
            return Reading(label=label, span=span)
    return Reading(label=UNREAD, reason=Reason.NOT_A_NUMBER if markers else Reason.NO_ANSWER)


def read_published(text: str, labels: Labels) -> int:
    """1, 0 or -1 as the published code reads a reply: the positive phrases are looked for first.

    Words, and parts of words with hyphens, may begin with a capital.
    """
    final = text.rpartition(PUBLISHED_MARKER)[2]
    for label, word in ((POSITIVE, labels.positive), (NEGATIVE, labels.negative)):
        if any(_loose(phrase).search(final) for phrase in word.published):
            return label
    return UNREAD


def probability(tokens: Sequence[TokenLogprob], labels: Labels) -> float | None:
    """How likely the positive label is, of the two, where ``tokens`` begin with the answer (after blanks).

    The labels are walked token by token until they part. Each alternative that goes on with one of them, and not with
    the other, has the probability of all that was written before it times its own; what goes on with both, or with
    neither, is nobody's. ``None`` where nothing is known of either: no log-probabilities, or another text.
    """
    words = tuple(word.text.casefold() for word in (labels.negative, labels.positive))
    masses, reached, begun = [0.0, 0.0], 1.0, ""
    for token in tokens:
        others = [(text, logprob) for text, logprob in token.top if text != token.text]
        for text, logprob in ((token.text, token.logprob), *others):
            label = _goes_on(begun + text, words)
            if label is not None:
                masses[label] += reached * exp(logprob)
        begun += token.text
        reached *= exp(token.logprob)
        if not any(_fits(begun, word) for word in words) or _goes_on(begun, words) is not None:
            break
    total = sum(masses)
    return masses[POSITIVE] / total if total > 0 else None


def tokens_from(tokens: Sequence[TokenLogprob], start: int) -> Sequence[TokenLogprob]:
    """The tokens from that character of their text on; the first of them is cut to it where it begins before.

    Its alternatives are cut alike, and those that begin otherwise left out.
    """
    at = 0
    for i, token in enumerate(tokens):
        lead, at = start - at, at + len(token.text)
        if at <= start:
            continue
        if lead == 0:
            return tokens[i:]
        head = token.text[:lead]
        top = tuple((text[lead:], logprob) for text, logprob in token.top if text.startswith(head))
        return [TokenLogprob(text=token.text[lead:], logprob=token.logprob, top=top), *tokens[i + 1 :]]
    return ()


def _goes_on(text: str, words: tuple[str, str]) -> int | None:
    """The one label that ``text`` begins, or holds whole."""
    fitting = [label for label, word in enumerate(words) if _fits(text, word)]
    return fitting[0] if len(fitting) == 1 else None


def _fits(text: str, word: str) -> bool:
    begun = text.lstrip(AROUND + "\n").casefold()
    return word.startswith(begun) or begun.startswith(word)


def _bare(text: str, line: Span) -> Span:
    inside = text[line.start : line.end]
    bare = inside.lstrip(AROUND)
    start = line.start + len(inside) - len(bare)
    return Span(start, start + len(bare.rstrip(AROUND)))


def _loose(phrase: str) -> re.Pattern[str]:
    def either(found: re.Match[str]) -> str:
        letter = found[0]
        return f"[{letter.upper()}{letter.lower()}]"

    return re.compile(re.sub(r"(?<![a-zA-Z])[a-zA-Z]", either, re.escape(phrase).replace(r"\-", "-")))
