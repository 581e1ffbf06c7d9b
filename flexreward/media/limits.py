"""How large a medium may be, and what its decoding may cost. Every refusal names the field that it met."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import inf
from typing import Any

from flexreward.types import Modality

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Upper bounds, each inclusive."""

    image_bytes: int = 32 * MIB
    audio_bytes: int = 64 * MIB
    video_bytes: int = 256 * MIB
    image_pixels: int = 64_000_000
    """Width times height, of an image and of every frame of a film; read from the header, before any is decoded."""
    audio_seconds: float = 600.0
    audio_channels: int = 8
    video_seconds: float = 600.0
    video_frames: int = 768
    """Frames that are shown, as the reference has it; frames that are given as such are refused above it."""
    media_per_request: int = 64
    molecules_per_request: int = 64
    molecule_chars: int = 2000
    """Of one SMILES."""
    bytes_per_request: int = 512 * MIB
    cpu_s: int = 10
    """Processor seconds for one image or sound; whole seconds, as the kernel counts."""
    video_cpu_s: int = 60
    """The same for one film."""
    wall_s: float = 120.0
    """Seconds on the clock for one medium, waiting for a processor included."""
    memory_bytes: int = 2048 * MIB
    """Address space of a decoding process, its libraries included."""

    def bytes_of(self, kind: Modality) -> int:
        """Largest file of a kind."""
        return {"image": self.image_bytes, "audio": self.audio_bytes, "video": self.video_bytes}[kind]

    def cpu_of(self, kind: Modality) -> int:
        """Processor seconds for one medium of a kind."""
        return self.video_cpu_s if kind == "video" else self.cpu_s


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmCaps:
    """Which frames of a film are shown, and how large.

    Source: jongwooko/flex-judge:test/genai_bench_vllm.py, 1 frame a second of at most 224 * 224 pixels, taken as
        qwen_vl_utils takes them: an even number, at least four where there are so many, evenly spread.
    """

    fps: float = 1.0
    min_frames: int = 4
    frame_pixels: int = 224 * 224
    """Larger frames are made smaller, sides multiples of 28. The reference's lower bound is not kept: it is twice this,
    so that frames slightly below the cap come out at double its size there."""


LIMITS = Limits()
CAPS = FilmCaps()


def read_limits(values: Mapping[str, object]) -> tuple[Limits, FilmCaps]:
    """Fields of ``Limits`` and of ``FilmCaps`` by name, the rest at their defaults.

    Raises:
        ValueError: One line: there is no such field, or its value is none that it can have.
    """
    defaults = {field.name: field.default for kind in (Limits, FilmCaps) for field in fields(kind)}
    for name, value in values.items():
        if name not in defaults:
            near = difflib.get_close_matches(str(name), defaults, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(defaults)}"
            raise ValueError(f"unknown field {str(name)!r}, {hint}")
        whole = isinstance(defaults[name], int)
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not 0 < value < inf:
            raise ValueError(f"{name} is {value!r}, expected a {'whole ' if whole else ''}number above 0")
    own: list[dict[str, Any]] = [
        {field.name: values[field.name] for field in fields(kind) if field.name in values}
        for kind in (Limits, FilmCaps)
    ]
    limits, caps = Limits(**own[0]), FilmCaps(**own[1])
    if caps.frame_pixels < 28 * 28:
        raise ValueError(f"frame_pixels is {caps.frame_pixels}, expected at least 784: frames have sides of 28")
    if limits.memory_bytes < 128 * MIB:
        raise ValueError(f"memory_bytes is {limits.memory_bytes}, expected at least {128 * MIB}: libraries take that")
    return limits, caps
