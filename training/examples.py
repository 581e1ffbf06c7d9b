"""Judgments -> token ids and labels, in the very frame that the judge is asked in later."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from flexreward.engines.base import Prompt
from flexreward.engines.encoding import Encoder
from flexreward.errors import JudgeError, SampleError
from training.data import Lesson

IGNORED = -100
MARK = "flexrewardREPLYcontent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One row for the trainer."""

    input_ids: list[int]
    labels: list[int]
    """``IGNORED`` over the prompt; over the assistant's turn, its end-of-turn token included, the ids themselves."""


class Framer:
    """Turns judgments into examples for one tokenizer.

    Raises:
        JudgeError: the chat template is missing, or ends the assistant's turn with no token of its own.
    """

    def __init__(self, tokenizer: Any, *, name: str = "tokenizer") -> None:
        self._name = name
        self._encoder = Encoder(tokenizer, name=name)
        self.end_of_turn = _end_of_turn(tokenizer, name)

    def example(self, item: Lesson) -> Example:
        """The prompt's ids exactly as at inference, then the reply's, then the end of the turn."""
        asked = self._encoder.encode(Prompt(system=item.system, user=item.user)).ids
        whole = self._encoder.encode(Prompt(system=item.system, user=item.user, prefix=item.reply)).ids
        if whole[: len(asked)] != asked:
            raise JudgeError(f"{self._name}: the reply's first word grows into the frame; no row can be trained on")
        ids = [*whole, self.end_of_turn]
        return Example(input_ids=ids, labels=[IGNORED] * len(asked) + ids[len(asked) :])

    def examples(
        self, items: Iterable[Lesson], *, max_length: int, too_long: Literal["drop", "refuse"]
    ) -> tuple[list[Example], int]:
        """All examples of at most ``max_length`` tokens, and how many judgments were left out. None is ever cut.

        Raises:
            SampleError: one is too long and ``too_long`` is ``refuse``, or none is left.
        """
        kept: list[Example] = []
        num_dropped = 0
        for item in items:
            example = self.example(item)
            length = len(example.input_ids)
            if length <= max_length:
                kept.append(example)
            elif too_long == "refuse":
                raise SampleError(
                    f"{item.where}: {length} tokens, above max_length {max_length}; too_long: drop leaves it out"
                )
            else:
                num_dropped += 1
        if not kept:
            raise SampleError(f"no row is left to train on: {num_dropped} were above max_length {max_length}")
        return kept, num_dropped


def _end_of_turn(tokenizer: Any, name: str) -> int:
    """The token that the chat template writes right after an assistant's text: what the judge must learn to say."""
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": MARK}]
    after = tokenizer.apply_chat_template(turns, tokenize=False).rpartition(MARK)[2]
    ids = tokenizer.encode(after, add_special_tokens=False)
    if not ids or ids[0] not in tokenizer.added_tokens_decoder:
        raise JudgeError(
            f"{name}: the chat template ends an assistant's turn with {after!r}, which holds no token for it"
        )
    return int(ids[0])
