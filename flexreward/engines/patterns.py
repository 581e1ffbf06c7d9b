"""Constrained decoding: which tokens may come next, so that what is written matches a regular expression.

By llguidance, which vLLM has too: from one tokenizer both draw from the same tokens, and write the same. Its reading of
a tokenizer bars added tokens that look like tags. Where ``<answer>`` is a token of the model's own, it is let in here;
vLLM spells it out.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Collection
from typing import Any

import torch
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
from tokenizers import Tokenizer
from torch import Tensor

from flexreward.engines.encoding import Encoder
from flexreward.errors import RefusedError

KEPT = 64
"""Patterns kept ready: a judge has one for each number of completions."""


class Progress:
    """One reply on its way through a pattern."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def allowed_V(self, num_tokens: int, device: torch.device) -> Tensor:
        """(V,) bool: what may come next; the end of the turn exactly when the pattern is complete."""
        bits = torch.frombuffer(bytearray(self._matcher.compute_bitmask()), dtype=torch.uint8).to(device)
        places = torch.arange(8, dtype=torch.uint8, device=device)
        allowed = (bits[:, None] >> places & 1).flatten().bool()[:num_tokens]
        return torch.nn.functional.pad(allowed, (0, num_tokens - len(allowed)))

    def add(self, token: int) -> None:
        self._matcher.consume_token(token)


class Patterns:
    """Of one tokenizer, for any thread. What it needs is made when the first pattern comes.

    Args:
        tokenizer: A fast tokenizer of transformers.
        num_tokens: The vocabulary of the model, which may be larger than the tokenizer's.
        ends: The tokens that end a turn.
    """

    def __init__(self, tokenizer: Any, encoder: Encoder, *, num_tokens: int, ends: Collection[int]) -> None:
        self._tokenizer = tokenizer
        self._encoder = encoder
        self._num_tokens = max(num_tokens, len(tokenizer))
        self._end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else min(ends)
        self._table: LLTokenizer | None = None
        self._ready: dict[str, LLMatcher] = {}
        self._lock = threading.Lock()

    def check(self, pattern: str) -> None:
        """Make ready what replies need that are held to ``pattern``: up to seconds for the first one.

        Raises:
            RefusedError: The pattern is no regular expression, or this tokenizer cannot be held to one.
        """
        self.begin(pattern)

    def begin(self, pattern: str) -> Progress:
        """A reply that has nothing written yet. Raises RefusedError as ``check`` does."""
        with self._lock:
            if pattern not in self._ready:
                if len(self._ready) >= KEPT:
                    self._ready.clear()
                self._ready[pattern] = self._compile(pattern)
            return Progress(self._ready[pattern].deep_copy())

    def _compile(self, pattern: str) -> LLMatcher:
        try:
            re.compile(pattern)
        except re.error as error:
            raise RefusedError(f"pattern: {pattern!r} is no regular expression: {error}") from error
        if self._table is None:
            self._table = self._read()
        grammar = LLMatcher.grammar_from_regex(pattern)
        if wrong := LLMatcher.validate_grammar(grammar, self._table):
            raise RefusedError(f"pattern: {pattern!r} cannot be held to: {' '.join(wrong.split())}")
        return LLMatcher(self._table, grammar, log_level=0)

    def _read(self) -> LLTokenizer:
        backend: Tokenizer = self._tokenizer.backend_tokenizer
        spec = json.loads(backend.to_str())
        spec["truncation"] = spec["padding"] = None
        try:
            table = LLTokenizer(json.dumps(spec), n_vocab=self._num_tokens, eos_token=self._end)
            if not self._encoder.marks:
                return table
            return LLTokenizer(TokenizerWrapper(_WithMarks(self._encoder, table)), n_vocab=self._num_tokens)
        except ValueError as error:
            why = " ".join(str(error).split())
            raise RefusedError(f"pattern: this model's tokenizer cannot be held to one: {why}") from error


class _WithMarks:
    """The table again, in which the model's own marks are text; in the shape that llguidance asks for."""

    def __init__(self, encoder: Encoder, table: LLTokenizer) -> None:
        self._encoder = encoder
        self.eos_token_id = table.eos_token
        self.bos_token_id = None
        self.tokens = [table.decode_bytes([i]) for i in range(table.vocab_size)]
        for text, i in encoder.marks.items():
            self.tokens[i] = text.encode()
        self.special_token_ids = sorted(encoder.added - set(encoder.marks.values()))

    def __call__(self, text: bytes) -> list[int]:
        """How the model would write it."""
        return self._encoder.write(text.decode())
