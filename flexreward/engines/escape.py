"""Text for a server that turns it into tokens itself: what spells a special token is broken, so that none can arise.

A word joiner (U+2060) is put after the first character of every string in question. It has no width and no effect on
shaping, so a person sees the text as it was; no tokenizer of these families drops it, and normal form C keeps it.
Unlike the zero-width joiner it has no place inside emoji or Indic words, so real text hardly ever holds one. Joiners
that already stand inside such a string are passed over, which makes the escape reversible for every text.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from flexreward.errors import RecipeError

JOINER = "\u2060"

CONTROL = ("<|", "<\uff5c")
"""What opens every control token of Qwen2.5, -VL, -Omni and Llama-3 (reserved ones too), and of DeepSeek."""
TAGS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
"""Tokens of the Qwen families that are spelled like tags."""
NAME = "word-joiner-1"
"""Raised with every change of the strings above or of the rule, so that no verdict outlives its escape."""


@dataclass(frozen=True, kw_only=True)
class Escape:
    """Breaks ``CONTROL``, ``TAGS`` and ``more`` in text.

    Raises:
        RecipeError: A string of ``more`` has one character, which cannot be broken, or holds a word joiner.
    """

    more: tuple[str, ...] = ()
    """Further special tokens of the served model."""
    own: bool = False
    """For a started turn, the model's own writing: tags are its to write, control tokens are not."""

    def __post_init__(self) -> None:
        for token in self.more:
            if len(token) < 2 or JOINER in token:
                raise RecipeError(f"special_tokens: {token!r} cannot be escaped: expected two characters or more")

    @property
    def name(self) -> str:
        """What the fingerprint calls it: the rule, and the strings that were added to it."""
        return " ".join([NAME, *sorted(set(self.more))])

    def apply(self, text: str) -> str:
        """``text`` without any of the strings; ``undo`` gives it back."""
        return self._begins.sub(rf"\g<0>{JOINER}", text)

    def undo(self, text: str) -> str:
        """What was written, of a text that was escaped."""
        return self._escaped.sub(r"\1", text)

    def split(self, text: str, cuts: Sequence[int]) -> list[str]:
        """The escaped text in ``len(cuts) + 1`` pieces, cut at places of the original.

        A string that reaches over a cut is broken too: a server may join the pieces again.
        """
        begins = [found.start() for found in self._begins.finditer(text)]
        escaped = self.apply(text)
        ends = [0, *(cut + bisect_left(begins, cut) for cut in cuts), len(escaped)]
        return [escaped[start:end] for start, end in pairwise(ends)]

    @cached_property
    def _strings(self) -> tuple[str, ...]:
        return CONTROL if self.own else (*CONTROL, *TAGS, *self.more)

    @cached_property
    def _begins(self) -> re.Pattern[str]:
        """The first character of each string, joiners between the others passed over; overlapping ones too."""
        return re.compile("|".join(f"{re.escape(s[0])}(?={_loose(s[1:])})" for s in self._strings))

    @cached_property
    def _escaped(self) -> re.Pattern[str]:
        ways = "|".join(f"{re.escape(s[0])}(?={JOINER}{_loose(s[1:])})" for s in self._strings)
        return re.compile(f"({ways}){JOINER}")


def _loose(rest: str) -> str:
    return "".join(f"{JOINER}*{re.escape(character)}" for character in rest)
