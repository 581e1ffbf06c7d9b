"""What becomes of a prompt that is too long for the judge: refused, or cut at its head. Pure but for the counting.

Cut are characters of the request's own prompt, never of the criteria, the completions or the frame. A conversation
loses its oldest turns, with the media in them, then text from the head of the oldest that is left, whose media stay;
the last character of the last user turn always stays.
The cut is the smallest that leaves room for the reply, and the same for every order in which the completions are shown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, TypeAlias

from flexreward.engines.base import Answer, Sampling
from flexreward.templates.text import text_of
from flexreward.types import Message, Part, Text

ContextPolicy: TypeAlias = Literal["refuse", "cut"]


def room_for_reply(sampling: Sampling, answer: Answer | None, max_context: int) -> int:
    """Tokens kept free after the prompt: the longest reply, but no more than half of the context.

    A judge whose replies may be as long as its context would see no prompt at all otherwise.
    """
    forced = 0 if answer is None else answer.longest + 1
    return min(sampling.max_tokens + forced, max_context // 2)


def most_cut(prompt: Text) -> int:
    """How many characters can be cut from the head."""
    if isinstance(prompt, str):
        return max(len(prompt) - 1, 0)
    users = [i for i, turn in enumerate(prompt) if turn.role == "user"]
    until = users[-1] if users else len(prompt) - 1
    return max(sum(len(_text(turn)) for turn in prompt[: until + 1]) - 1, 0)


def cut_head(prompt: Text, count: int) -> Text:
    """The prompt without its first ``count`` characters; a turn that has none left goes with its heading."""
    if isinstance(prompt, str):
        return prompt[count:]
    turns: list[Message] = list(prompt)
    while count and (length := len(_text(turns[0]))) <= count:
        count -= length
        del turns[0]
    if count:
        turns[0] = replace(turns[0], content=_without(turns[0].content, count))
    return tuple(turns)


def _text(turn: Message) -> str:
    return turn.content if isinstance(turn.content, str) else text_of(turn.content)


def _without(content: str | tuple[Part, ...], count: int) -> str | tuple[Part, ...]:
    """A turn without the first characters of its text."""
    if isinstance(content, str):
        return content[count:]
    kept: list[Part] = []
    for piece in content:
        if isinstance(piece, str):
            piece, count = piece[count:], max(count - len(piece), 0)
        kept.append(piece)
    return tuple(kept)


def fewest(fits: Callable[[int], bool], most: int) -> int | None:
    """The least count from 0 to ``most`` that fits, where more always fits if less does; ``None`` where none does."""
    if fits(0):
        return 0
    if not most or not fits(most):
        return None
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high
