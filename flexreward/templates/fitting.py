"""Which bundled template shows what: by the number of completions, what they are, and what comes with the prompt."""

from __future__ import annotations

from collections.abc import Sequence

from flexreward.types import Completion, Media

PLAIN = {1: "score", 2: "pair"}
MADE = {("image", "image"): "mj-align", ("video", "video"): "gen-video", ("audio",): "mos"}
"""By what the completions are: alignment of images with their prompt, videos, speech."""


def fitting_id(completions: Sequence[Completion], media: Sequence[Media]) -> str | None:
    """The id of the bundled template, or ``None`` where none shows such a request.

    Args:
        media: The prompt's own.
    """
    made = tuple(one.kind if isinstance(one, Media) else "text" for one in completions)
    own = tuple(medium.kind for medium in media)
    if made == ("image", "image") and own == ("image",):
        return "gen-edit"
    if set(made) != {"text"}:
        return MADE.get(made) if not own else None
    plain = PLAIN.get(len(made), "batch")
    return {(): plain, ("image",): f"image-{plain}"}.get(own)
