"""Prompts in vLLM's own terms: media as its processors take them, rows beside ids, and what follows an input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flexreward.engines.encoding import Encoded
from flexreward.engines.senses import Shown


def by_kind(shown: Sequence[Shown], what: Callable[[Shown], Any]) -> dict[str, list[Any]]:
    """Lists by kind, each in the order shown, which is how vLLM goes through the places in a prompt."""
    found: dict[str, list[Any]] = {}
    for one in shown:
        found.setdefault(one.kind, []).append(what(one))
    return found


def medium_of(one: Shown) -> Any:
    from PIL import Image

    if one.frames_THWC is None:
        return one.samples_N, 16_000
    return one.frames_THWC.copy() if one.film else Image.fromarray(one.frames_THWC[0])


def as_they_are(shown: Sequence[Shown]) -> dict[str, Any]:
    """Tell vLLM's processors to resize and to pick nothing: that was done."""
    named: dict[str, Any] = {}
    if any(one.kind in ("image", "video") for one in shown):
        named["do_resize"] = False
    if any(one.kind == "video" for one in shown):
        named |= {"do_sample_frames": False, "cap_pixels_per_frame": False}
    return named


def paced(found: Any, shown: Sequence[Shown], frames: int) -> Any:
    """vLLM's input with each film's own seconds from one patch to the next, in place of a pace that it assumes."""
    import torch

    films = [one.film for one in shown if one.film is not None]
    for item, film in zip(found["mm_kwargs"].get("video", []), films, strict=True):
        if item is not None:  # else it was sent before, under the same name
            item["second_per_grid_ts"].data = torch.tensor(frames / film.fps)
    return found


def with_rows(encoded: Encoded, shown: Sequence[Shown], width: int, dtype: str) -> dict[str, Any]:
    """Ids, rows ``(L, D)`` and which of the two counts at each place."""
    import torch

    ids = torch.tensor(encoded.ids)
    rows_LD = torch.zeros(len(ids), width, dtype=getattr(torch, dtype))
    is_token = torch.ones(len(ids), dtype=torch.bool)
    for at, one in zip(encoded.places, shown, strict=True):
        rows_LD[at : at + one.width] = torch.from_numpy(one.rows_TD).to(rows_LD)
        is_token[at : at + one.width] = False
    return {
        "prompt_embeds": rows_LD,
        "prompt_token_ids": ids.clamp(min=0).tolist(),
        "is_token_ids": is_token.tolist(),
    }


def longer_by(read: Any, tokens: Sequence[int]) -> dict[str, Any]:
    """An input with further tokens after it."""
    longer = {**read, "prompt_token_ids": [*read["prompt_token_ids"], *tokens]}
    if "prompt_embeds" in read:
        rows_LD = read["prompt_embeds"]
        longer["prompt_embeds"] = rows_LD.new_zeros(len(longer["prompt_token_ids"]), rows_LD.shape[1])
        longer["prompt_embeds"][: len(rows_LD)] = rows_LD
        longer["is_token_ids"] = [*read["is_token_ids"], *[True] * len(tokens)]
    return longer
