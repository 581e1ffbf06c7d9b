"""How large a medium may be, and what its decoding may cost. Every refusal names the field that it met."""

from __future__ import annotations

from dataclasses import dataclass

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
