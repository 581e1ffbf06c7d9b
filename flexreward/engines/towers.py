"""A model's towers and its places: media become rows of its input, and every row gets its place in time and space.

Shapes: T frames, H rows, W columns, C colours of an image; N patches of P values; L places of a prompt; R rows of
width D.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    import numpy.typing as npt

from flexreward.engines.senses import Hearing, Senses, Shown, Sight

CACHE_BYTES = 256 << 20
"""Of rows kept on the model's device."""


def patches(frames_THWC: npt.NDArray[np.uint8], sight: Sight) -> tuple[npt.NDArray[np.float32], tuple[int, int, int]]:
    """Frames as the tower takes them, ``(N, P)``, and the grid of patches: how many in time, down and across.

    Patches that are merged to one row follow each other. One frame alone fills its patches by standing still.

    Source: huggingface/transformers:src/transformers/models/qwen2_vl/image_processing_qwen2_vl.py, ``patchify``.
    """
    if len(frames_THWC) == 1:
        frames_THWC = np.repeat(frames_THWC, sight.frames, axis=0)
    count, height, width, colours = frames_THWC.shape
    mean_C, std_C = np.array(sight.mean, np.float32), np.array(sight.std, np.float32)
    scaled = (frames_THWC.astype(np.float32) * np.float32(1 / 255) - mean_C) / std_C
    grid = (count // sight.frames, height // sight.patch, width // sight.patch)
    p, m = sight.patch, sight.merge
    cut = scaled.reshape(grid[0], sight.frames, grid[1] // m, m, p, grid[2] // m, m, p, colours)
    ordered = cut.transpose(0, 2, 5, 3, 6, 8, 1, 4, 7)
    return np.ascontiguousarray(ordered).reshape(grid[0] * grid[1] * grid[2], -1), grid


NO_GRID = (0, 0, 0)
"""Of a sound, whose rows follow each other as words do."""


class Span(NamedTuple):
    """Where an image or a film stands in a prompt."""

    at: int
    grid: tuple[int, int, int]
    """Rows in time, down and across."""
    step: float
    """Positions from one row in time to the next."""


def positions(length: int, spans: Sequence[Span]) -> tuple[npt.NDArray[np.int64], int]:
    """Positions in time, height and width of all places of a prompt, ``(3, L)``; and what is added to a place after it.

    Text goes on after the largest position of what is shown before it, in whichever of the three directions it lies.
    transformers 5 goes on after the largest in space instead, whatever a film's length; the models were trained, and
    the published figures measured, as here.

    Source: QwenLM/Qwen2.5-VL, section 2.1.2 of arXiv 2502.13923; vllm-project/vllm:vllm/model_executor/models/
        qwen2_5_vl.py, ``get_mrope_input_positions``.
    """
    places_3L = np.empty((3, length), dtype=np.int64)
    start = at = 0
    for span in spans:
        num_text = span.at - at
        places_3L[:, at : span.at] = np.arange(num_text) + start
        start += num_text
        grid_3R = np.indices(span.grid).reshape(3, -1)
        grid_3R[0] = (grid_3R[0] * span.step).astype(np.int64)
        at = span.at + grid_3R.shape[1]
        places_3L[:, span.at : at] = grid_3R + start
        start += int(grid_3R.max()) + 1
    places_3L[:, at:] = np.arange(length - at) + start
    return places_3L, start - at


class Towers:
    """The towers of one model. Not thread-safe: one thread calls it.

    Args:
        model: A model of transformers that has ``get_image_features`` and its like.
    """

    def __init__(self, model: Any, senses: Senses) -> None:
        self._model = model
        config = model.config
        self._per_second = float(
            getattr(config, "position_id_per_seconds", 0) or config.vision_config.tokens_per_second
        )
        self._sight, self._hearing = senses.sight, senses.hearing
        self._text = model.get_decoder()
        self._head = model.get_output_embeddings()
        self._kept: OrderedDict[tuple[str, str], Tensor] = OrderedDict()

    def logits(self, embeds_BQD: Tensor, positions_3BQ: Tensor, **named: Any) -> Tensor:
        """Of the last place, ``(B, V)``. The head is not run over a whole prompt."""
        hidden_BQD = self._text(inputs_embeds=embeds_BQD, position_ids=positions_3BQ, **named).last_hidden_state
        logits_BV: Tensor = self._head(hidden_BQD[:, -1])
        return logits_BV

    def rows(self, shown: Sequence[Shown]) -> list[Tensor]:
        """Each medium's rows, ``(R, D)``, R its ``width``. What was shown a moment ago is not looked at again."""
        new = {(one.kind, one.digest): one for one in shown if (one.kind, one.digest) not in self._kept}
        found = {key: self._kept[key] for key in {(one.kind, one.digest) for one in shown} - new.keys()}
        for kind in ("image", "video", "audio"):
            some = [one for one in new.values() if one.kind == kind]
            if some:
                made = self._heard(some) if kind == "audio" else self._seen(kind, some)
                found |= {(one.kind, one.digest): rows for one, rows in zip(some, made, strict=True)}
        for key, rows in found.items():
            self._kept[key] = rows
            self._kept.move_to_end(key)
        taken = sum(rows.numel() * rows.element_size() for rows in self._kept.values())
        while taken > CACHE_BYTES and len(self._kept) > 1:
            _, rows = self._kept.popitem(last=False)
            taken -= rows.numel() * rows.element_size()
        return [found[one.kind, one.digest] for one in shown]

    def positions(self, length: int, places: Sequence[int], shown: Sequence[Shown]) -> tuple[Tensor, int]:
        """Positions ``(3, L)`` of a prompt whose media begin at ``places``, and the offset of what follows it."""
        spans = [Span(at, self._grid(one), self._step(one)) for at, one in zip(places, shown, strict=True)]
        places_3L, offset = positions(length, [span for span in spans if span.grid != NO_GRID])
        return torch.from_numpy(places_3L).to(self._model.device), offset

    def _seen(self, kind: str, some: Sequence[Shown]) -> Sequence[Tensor]:
        assert self._sight is not None
        cut = [patches(one.frames_THWC, self._sight) for one in some if one.frames_THWC is not None]
        device = self._model.device
        pixels_NP = torch.from_numpy(np.concatenate([values for values, _ in cut])).to(device)
        grids_M3 = torch.tensor([grid for _, grid in cut], device=device)
        look = self._model.get_image_features if kind == "image" else self._model.get_video_features
        rows: Sequence[Tensor] = look(pixels_NP, grids_M3).pooler_output
        return rows

    def _heard(self, some: Sequence[Shown]) -> Sequence[Tensor]:
        assert self._hearing is not None
        made = spectra(some, self._hearing)
        features = torch.from_numpy(made["input_features"]).to(self._model.device, self._model.dtype)
        mask = torch.from_numpy(made["attention_mask"]).to(self._model.device)
        rows: Tensor = self._model.get_audio_features(features, mask).last_hidden_state
        return torch.split(rows, [one.width for one in some])

    def _grid(self, one: Shown) -> tuple[int, int, int]:
        """Rows in time, down and across."""
        if one.frames_THWC is None or self._sight is None:
            return NO_GRID
        count, height, width, _ = one.frames_THWC.shape
        return max(1, count // self._sight.frames), height // self._sight.side, width // self._sight.side

    def _step(self, one: Shown) -> float:
        """Positions from one row in time to the next."""
        if one.film is None or self._sight is None:
            return 0.0
        return self._sight.frames / one.film.fps * self._per_second


def spectra(some: Sequence[Shown], hearing: Hearing) -> dict[str, Any]:
    """Log-mel spectra of sounds and which of their places are real, each as long as the longest that there may be."""
    made = hearing.extractor(
        [one.samples_N for one in some],
        sampling_rate=hearing.extractor.sampling_rate,
        padding="max_length",
        return_attention_mask=True,
        return_tensors="np",
    )
    return dict(made)
