"""Keys and values of the replies under way: one slot a reply, its tokens from place 0 on, rewritten where they lie.

A finished reply's slot is taken over by the last one, so the slots in use are always the first ones and a step reads a
plain slice. transformers sees an ordinary cache.

Shapes: B rows, H key heads, T places, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


class SlotLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's keys and values, ``(slots, H, T, D)`` each."""

    is_sliding = False

    def __init__(self) -> None:
        super().__init__()
        self.rows_B = self.places_B = torch.empty(0, dtype=torch.long)
        self.length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        # Zeros: what a masked place holds is multiplied by 0, and 0 times a stray NaN would be NaN.
        self.keys = torch.zeros_like(key_states)
        self.values = torch.zeros_like(value_states)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write one new token a row, ``(B, H, 1, D)``; return the slices to attend to, ``(B, H, length, D)``."""
        self.keys[self.rows_B, :, self.places_B] = key_states[:, :, 0]
        self.values[self.rows_B, :, self.places_B] = value_states[:, :, 0]
        used = slice(None, len(self.rows_B))
        return self.keys[used, :, : self.length], self.values[used, :, : self.length]

    def get_seq_length(self) -> int:
        return self.length - 1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length, 0

    def get_max_length(self) -> int:
        return -1

    def room(self, slots: int, places: int, like: tuple[Tensor, Tensor]) -> None:
        """Grow to at least so many slots and places, keeping what is written."""
        old = (self.keys, self.values) if self.is_initialized else None
        if old and old[0].shape[0] >= slots and old[0].shape[2] >= places:
            return
        slots, places = (max(slots, old[0].shape[0]), max(places, old[0].shape[2])) if old else (slots, places)
        grown = [new.new_zeros(slots, new.shape[1], places, new.shape[3]) for new in like]
        for new, written in zip(grown, old or (), strict=False):
            new[: written.shape[0], :, : written.shape[2]] = written
        self.keys, self.values = grown
        self.is_initialized = True


class SlotCache(Cache):  # type: ignore[misc]
    """The layers, and which slots are in use."""

    STEP = 64
    """Places are added by this many, so that room is made seldom."""

    def __init__(self, num_layers: int) -> None:
        super().__init__(layers=[SlotLayer() for _ in range(num_layers)])
        self.used = 0

    def admit(self, read: Sequence[tuple[Tensor, Tensor]], row: int, *, shared: int, pad: int, copies: int) -> None:
        """Give ``copies`` new slots what a prefill holds in ``row``, without the padding after ``shared`` places."""
        length = read[0][0].shape[2] - pad
        first, used = self.used, self.used + copies
        for layer, (keys, values) in zip(self.layers, read, strict=True):
            layer.room(1 << (used - 1).bit_length(), self._places(length), (keys, values))
            for slots, new in ((layer.keys, keys), (layer.values, values)):
                slots[first:used, :, :shared] = new[row, :, :shared]
                slots[first:used, :, shared:length] = new[row, :, shared + pad :]
        self.used = used

    def drop(self, slot: int) -> None:
        """Free a slot. The last one in use moves into its place."""
        self.used -= 1
        if slot != self.used:
            for layer in self.layers:
                layer.keys[slot] = layer.keys[self.used]
                layer.values[slot] = layer.values[self.used]

    def begin(self, places: Sequence[int], device: torch.device) -> Tensor:
        """Get ready for a step that writes one token a row at ``places``; returns them as a tensor."""
        assert len(places) == self.used
        rows_B = torch.arange(self.used, device=device)
        places_B = torch.tensor(places, device=device)
        length = max(places) + 1
        for layer in self.layers:
            layer.room(self.used, self._places(length), (layer.keys, layer.values))
            layer.rows_B, layer.places_B, layer.length = rows_B, places_B, length
        return places_B

    def _places(self, length: int) -> int:
        return -(-length // self.STEP) * self.STEP
