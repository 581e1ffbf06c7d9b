"""The model's two moves: read some prompts, and add one token to every reply under way.

Shapes: B rows, Q new places, K places in all, V tokens of the vocabulary, D width of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from flexreward.engines.encoding import Encoded
from flexreward.engines.senses import Shown
from flexreward.engines.slots import SlotCache
from flexreward.engines.towers import Towers
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
    offsets: list[int]
    """What is added to a place of the reply: media take more places in a prompt than they span of its positions."""


class Runner:
    """Owns the model and its caches. Not thread-safe: one thread calls it.

    Args:
        silenced: Tokens that have no chance, such as some whose rows in the head were never trained.
    """

    def __init__(
        self, model: Any, towers: Towers | None = None, *, num_starts: int = 4, silenced: Sequence[int] = ()
    ) -> None:
        config = model.config.get_text_config()
        kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
        if not kinds <= KNOWN_LAYERS:
            raise JudgeError(
                f"the transformers engine cannot batch models with {', '.join(sorted(kinds - KNOWN_LAYERS))}"
            )
        self._model = model
        self._towers = towers
        self._flash = "flash" in model.config._attn_implementation
        self._kinds = kinds
        self._window: int | None = getattr(config, "sliding_window", None) if "sliding_attention" in kinds else None
        self._num_layers = config.num_hidden_layers
        self._num_starts = num_starts
        self._silenced = torch.tensor(silenced, device=model.device) if silenced else None
        self._starts: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = {}
        self.reset()

    def reset(self) -> None:
        """Forget all replies under way, and free what they took."""
        self._slots = SlotCache(self._num_layers)

    def release(self) -> None:
        """Free the model. Nothing may be called after this."""
        self._starts.clear()
        self.reset()
        self._model = self._towers = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def read(self, prompts: Sequence[Encoded], shown: Sequence[Sequence[Shown]]) -> Prefill:
        """Run over prompts together, the start that all of them share read once and kept for the next time.

        Args:
            shown: The media of each prompt, whose pads stand at its ``places``.
        """
        first = prompts[0]
        shared = first.ids[: first.num_shared]
        if len(shared) < LEAST_SHARED or any(p.ids[: len(shared)] != shared for p in prompts):
            shared = ()
        cache = DynamicCache()
        for i, (keys, values) in enumerate(self._start(shared)):
            cache.update(keys.expand(len(prompts), -1, -1, -1), values.expand(len(prompts), -1, -1, -1), i)
        rows = [p.ids[len(shared) :] for p in prompts]
        media = [
            [(at - len(shared), one) for at, one in zip(p.places, some, strict=True)]
            for p, some in zip(prompts, shown, strict=True)
        ]
        spans, offsets = self._spans(prompts, shown)
        logits_BV = self._forward(rows, cache, len(shared), media=media, spans=spans)
        width = max(map(len, rows))
        return Prefill(
            logits_BV=logits_BV,
            read=[(layer.keys, layer.values) for layer in cache.layers],
            shared=len(shared),
            pads=[width - len(row) for row in rows],
            offsets=offsets,
        )

    def admit(self, prefill: Prefill, row: int, copies: int) -> None:
        """Let ``copies`` replies to prompt ``row`` begin, in the next slots."""
        self._slots.admit(prefill.read, row, shared=prefill.shared, pad=prefill.pads[row], copies=copies)

    def drop(self, slot: int) -> None:
        """End the reply in ``slot``. The one in the last slot takes its place."""
        self._slots.drop(slot)

    def step(self, tokens: Sequence[int], places: Sequence[int], offsets: Sequence[int]) -> Tensor:
        """Add a token to every reply under way, in the order of their slots; the logits ``(B, V)`` of the next.

        Args:
            places: Where each token stands, counted from the start of its prompt.
            offsets: What to add for its position, a number a reply.
        """
        device = self._model.device
        places_B = self._slots.begin(places, device)
        steps_K = torch.arange(max(places) + 1, device=device)
        seen_BK = steps_K <= places_B[:, None]
        mask = self._mask(seen_BK[:, None], places_B[:, None], steps_K.expand_as(seen_BK), seen_BK)
        ids_BQ = torch.tensor(tokens, device=device)[:, None]
        positions_BQ = places_B[:, None]
        if self._towers is not None:
            positions_BQ = positions_BQ + torch.tensor(offsets, device=device)[:, None]
        return self._logits(ids_BQ, positions_BQ, attention_mask=mask, past_key_values=self._slots, use_cache=True)

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

    def _spans(
        self, prompts: Sequence[Encoded], shown: Sequence[Sequence[Shown]]
    ) -> tuple[dict[int, Tensor], list[int]]:
        """Positions ``(3, L)`` of the prompts that show something a tower looks at, by row; and every row's offset."""
        spans: dict[int, Tensor] = {}
        offsets = [0] * len(prompts)
        if self._towers is not None:
            for b, (prompt, media) in enumerate(zip(prompts, shown, strict=True)):
                if any(one.rows_TD is None for one in media):
                    spans[b], offsets[b] = self._towers.positions(len(prompt.ids), prompt.places, media)
        return spans, offsets

    def _forward(
        self,
        rows: Sequence[Sequence[int]],
        cache: DynamicCache,
        past: int,
        *,
        media: Sequence[Sequence[tuple[int, Shown]]] = (),
        spans: dict[int, Tensor] | None = None,
    ) -> Tensor:
        """Read rows after ``past`` places that all have, padded on the left, and return the last logits ``(B, V)``.

        Args:
            media: What each row shows, with the place in the row where its pads begin.
            spans: Positions ``(3, L)`` of all places of a row, the past included, where they are not simply counted.
        """
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
        embeds_BQD = self._embeds(ids_BQ, media, [width - len(row) for row in rows]) if any(media) else None
        positions = places_BQ
        if spans:
            positions = places_BQ.expand(3, *places_BQ.shape).clone()
            for b, span_3L in spans.items():
                positions[:, b, width - len(rows[b]) :] = span_3L[:, past:]
        return self._logits(ids_BQ, positions, embeds_BQD, attention_mask=mask, past_key_values=cache, use_cache=True)

    def _embeds(self, ids_BQ: Tensor, media: Sequence[Sequence[tuple[int, Shown]]], pads: Sequence[int]) -> Tensor:
        """The rows of the model's input, ``(B, Q, D)``: those of tokens, and in place of pads those of media."""
        embeds_BQD: Tensor = self._model.get_input_embeddings()(ids_BQ.clamp(min=0))
        for b, some in enumerate(media):
            looked = [one for _, one in some if one.rows_TD is None]
            seen = iter(self._towers.rows(looked) if self._towers is not None else ())
            for at, one in some:
                rows_TD = next(seen) if one.rows_TD is None else torch.from_numpy(one.rows_TD)
                start = pads[b] + at
                embeds_BQD[b, start : start + one.width] = rows_TD.to(embeds_BQD)
        return embeds_BQD

    def _logits(self, ids_BQ: Tensor, positions: Tensor, embeds_BQD: Tensor | None = None, **named: Any) -> Tensor:
        """Of the last place, ``(B, V)``."""
        if self._towers is not None:
            if embeds_BQD is None:
                embeds_BQD = self._model.get_input_embeddings()(ids_BQ)
            positions_3BQ = positions if positions.ndim == 3 else positions.expand(3, *positions.shape)
            return self._heard(self._towers.logits(embeds_BQD, positions_3BQ, **named))
        given = {"input_ids": ids_BQ} if embeds_BQD is None else {"inputs_embeds": embeds_BQD}
        out = self._model(**given, position_ids=positions, logits_to_keep=1, **named)
        return self._heard(out.logits[:, -1])

    def _heard(self, logits_BV: Tensor) -> Tensor:
        """The logits, those of silenced tokens as low as they can be."""
        if self._silenced is None:
            return logits_BV
        return logits_BV.index_fill(-1, self._silenced, torch.finfo(logits_BV.dtype).min)

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
