"""The model's two moves: read some prompts, and add one token to every reply under way.

Shapes: B rows, Q new places, K places in all, V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from flexreward.engines.encoding import Encoded
from flexreward.engines.slots import SlotCache
from flexreward.errors import JudgeError

LEAST_SHARED = 16
"""A common start shorter than this is not worth a forward pass of its own."""
KNOWN_LAYERS = frozenset({"full_attention", "sliding_attention"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefill:
    """Prompts that were read together, from which replies can begin."""

    logits_BV: Tensor
    """Of each reply's first token."""
    read: list[tuple[Tensor, Tensor]]
    """Keys and values, a pair a layer."""
    shared: int
    """Places at the start that all prompts have in common."""
    pads: list[int]
    """Places of padding after them, a number a row."""


class Runner:
    """Owns the model and its caches. Not thread-safe: one thread calls it."""

    def __init__(self, model: Any, *, num_starts: int = 4) -> None:
        config = model.config.get_text_config()
        kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
        if not kinds <= KNOWN_LAYERS:
            raise JudgeError(
                f"the transformers engine cannot batch models with {', '.join(sorted(kinds - KNOWN_LAYERS))}"
            )
        self._model = model
        self._flash = "flash" in model.config._attn_implementation
        self._kinds = kinds
        self._window: int | None = getattr(config, "sliding_window", None) if "sliding_attention" in kinds else None
        self._num_layers = config.num_hidden_layers
        self._num_starts = num_starts
        self._starts: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = {}
        self.reset()

    def reset(self) -> None:
        """Forget all replies under way, and free what they took."""
        self._slots = SlotCache(self._num_layers)

    def release(self) -> None:
        """Free the model. Nothing may be called after this."""
        self._starts.clear()
        self.reset()
        self._model = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def read(self, prompts: Sequence[Encoded]) -> Prefill:
        """Run over prompts together, the start that all of them share read once and kept for the next time."""
        first = prompts[0]
        shared = first.ids[: first.num_shared]
        if len(shared) < LEAST_SHARED or any(p.ids[: len(shared)] != shared for p in prompts):
            shared = ()
        cache = DynamicCache()
        for i, (keys, values) in enumerate(self._start(shared)):
            cache.update(keys.expand(len(prompts), -1, -1, -1), values.expand(len(prompts), -1, -1, -1), i)
        rows = [p.ids[len(shared) :] for p in prompts]
        logits_BV = self._forward(rows, cache, len(shared))
        width = max(map(len, rows))
        return Prefill(
            logits_BV=logits_BV,
            read=[(layer.keys, layer.values) for layer in cache.layers],
            shared=len(shared),
            pads=[width - len(row) for row in rows],
        )

    def admit(self, prefill: Prefill, row: int, copies: int) -> None:
        """Let ``copies`` replies to prompt ``row`` begin, in the next slots."""
        self._slots.admit(prefill.read, row, shared=prefill.shared, pad=prefill.pads[row], copies=copies)

    def drop(self, slot: int) -> None:
        """End the reply in ``slot``. The one in the last slot takes its place."""
        self._slots.drop(slot)

    def step(self, tokens: Sequence[int], places: Sequence[int]) -> Tensor:
        """Add a token to every reply under way, in the order of their slots; the logits ``(B, V)`` of the next."""
        device = self._model.device
        places_B = self._slots.begin(places, device)
        steps_K = torch.arange(max(places) + 1, device=device)
        seen_BK = steps_K <= places_B[:, None]
        mask = self._mask(seen_BK[:, None], places_B[:, None], steps_K.expand_as(seen_BK), seen_BK)
        ids_BQ = torch.tensor(tokens, device=device)[:, None]
        out = self._model(
            input_ids=ids_BQ,
            position_ids=places_B[:, None],
            attention_mask=mask,
            past_key_values=self._slots,
            use_cache=True,
        )
        logits_BV: Tensor = out.logits[:, -1]
        return logits_BV

    def _start(self, ids: tuple[int, ...]) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of a start that many prompts have; the ones used last are kept."""
        if not ids:
            return []
        if (start := self._starts.pop(ids, None)) is None:
            cache = DynamicCache()
            self._forward([ids], cache, 0)
            start = [(layer.keys, layer.values) for layer in cache.layers]
        self._starts[ids] = start
        if len(self._starts) > self._num_starts:
            del self._starts[next(iter(self._starts))]
        return start

    def _forward(self, rows: Sequence[Sequence[int]], cache: DynamicCache, past: int) -> Tensor:
        """Read rows after ``past`` places that all have, padded on the left, and return the last logits ``(B, V)``."""
        device = self._model.device
        width = max(map(len, rows))
        pads_B1 = torch.tensor([[width - len(row)] for row in rows], device=device)
        ids_BQ = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows], device=device)
        steps_K = torch.arange(past + width, device=device)
        # Padding lies between the common past and the row's own tokens.
        real_BK = (steps_K < past) | (steps_K >= past + pads_B1)
        places_BK = torch.where(steps_K < past, steps_K, (steps_K - pads_B1).clamp_(min=past))
        places_BQ = places_BK[:, past:]
        causal_QK = steps_K <= steps_K[past:, None]
        mask = self._mask(real_BK[:, None] & causal_QK, places_BQ, places_BK, real_BK)
        out = self._model(
            input_ids=ids_BQ,
            position_ids=places_BQ,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits_BV: Tensor = out.logits[:, -1]
        return logits_BV

    def _mask(self, seen_BQK: Tensor, places_BQ: Tensor, places_BK: Tensor, real_BK: Tensor) -> Any:
        """The mask in the form that the model's attention takes, made here because rows stand at different places."""
        if self._flash:
            # It removes padding itself and knows the window; made for CUDA alone.
            masks = {kind: None if bool(real_BK.all()) else real_BK for kind in self._kinds}
        else:
            low = torch.finfo(self._model.dtype).min
            zero = torch.zeros((), dtype=self._model.dtype, device=seen_BQK.device)
            masks = {kind: torch.where(seen_BQK, zero, low)[:, None] for kind in self._kinds}
            if self._window is not None:
                near_BQK = places_BQ[:, :, None] - places_BK[:, None] < self._window
                masks["sliding_attention"] = torch.where(seen_BQK & near_BQK, zero, low)[:, None]
        return masks if self._window is not None else next(iter(masks.values()))
