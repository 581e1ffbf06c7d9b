"""Pairs for a reader to look at: all of a small folder, of a large one a sample in equal parts of each outcome.

One line a pair in ``shown.jsonl``, whole: prompt, both completions, both orders with the judge's replies. The page of
the folder is drawn from it and from the summary, so that it needs no samples and stays quick at any size.
"""

from __future__ import annotations

import base64
import heapq
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from flexreward.errors import MediaError
from flexreward.files.outcomes import encode_fast
from flexreward.files.samples import Sample
from flexreward.media.bounds import read_media
from flexreward.media.kinds import HEAD_BYTES, kind_of
from flexreward.media.limits import LIMITS, Limits
from flexreward.pairs.keep import JudgedPair
from flexreward.pairs.study import KEPT, known_truth
from flexreward.types import Completion, Media

SHOWN = "shown.jsonl"
MOST_PAIRS, MOST_BYTES = 8_000, 64_000_000
SMALL_BYTES = 48_000
"""A larger image is named and not shown."""
FORMATS = ("JPEG", "PNG", "GIF", "WEBP")
"""What browsers show."""


@dataclass(slots=True, kw_only=True)
class Shown:
    """Draws evenly from a stream of pairs of unknown length, each outcome for itself.

    Every pair gets a number at random; of each outcome those with the lowest stay, so many that all outcomes have equal
    parts as far as they reach.

    Args:
        truth: The column that says how good each completion really is, where a sample has it.
        limits: What images are held to.
    """

    truth: str | None = None
    limits: Limits = LIMITS
    most_pairs: int = MOST_PAIRS
    most_bytes: int = MOST_BYTES
    num_seen: int = 0
    _heaps: dict[str, list[tuple[float, int, bytes]]] = field(default_factory=lambda: defaultdict(list))
    """By outcome; the highest number, negated, on top."""
    _below: dict[str, float] = field(default_factory=dict)
    """Numbers at which an outcome's pairs were let go."""
    _num: int = 0
    _bytes: int = 0
    _rng: random.Random = field(default_factory=lambda: random.Random(0))

    def offer(self, sample: Sample, pair: JudgedPair, reason: str | None, row: Mapping[str, Any]) -> None:
        """One more pair.

        Args:
            row: Its outcome, as the file has it.
        """
        self.num_seen += 1
        outcome, number = reason or KEPT, self._rng.random()
        if number >= self._below.get(outcome, 1.0):
            return
        line = encode_fast(self._whole(sample, pair, outcome, row))
        heapq.heappush(self._heaps[outcome], (-number, self.num_seen, line))
        self._num += 1
        self._bytes += len(line)
        while self._num > self.most_pairs or (self._bytes > self.most_bytes and self._num > 1):
            largest = max(self._heaps, key=lambda name: len(self._heaps[name]))
            gone, _, line = heapq.heappop(self._heaps[largest])
            self._below[largest] = -gone
            self._num -= 1
            self._bytes -= len(line)

    def lines(self) -> Iterator[bytes]:
        """Those that stay, in the order in which they came."""
        for _, line in sorted((at, line) for heap in self._heaps.values() for _, at, line in heap):
            yield line

    def _whole(self, sample: Sample, pair: JudgedPair, outcome: str, row: Mapping[str, Any]) -> dict[str, Any]:
        truth = known_truth(sample, self.truth) if self.truth is not None else None
        return {
            "id": pair.id,
            "outcome": outcome,
            "prompt": _plain(sample.prompt),
            "images": [self._image(medium, i) for i, medium in enumerate((*sample.media, *sample.inside), 1)],
            "completions": [_plain(sample.completions[i]) for i in pair.indices],
            "origins": [sample.origins[i].as_json() for i in pair.indices] if sample.origins else None,
            "truth": None if truth is None else [truth[i] for i in pair.indices],
            "scores": pair.scores,
            "orders": row["orders"],
            "reason": row["reason"],
            **({"prompt_cut": row["prompt_cut"]} if "prompt_cut" in row else {}),
        }

    def _image(self, medium: Media, number: int) -> dict[str, str]:
        """``name``, and ``src`` where it is small enough to stand in a page."""
        name = f"image {number}" if medium.path is None else medium.path.name
        try:
            if medium.path is not None and medium.path.stat().st_size > SMALL_BYTES:
                return {"name": name}
            data = medium.data if medium.data is not None else read_media(medium, self.limits)
            kind = kind_of(data[:HEAD_BYTES], "image", name)
        except (MediaError, OSError):
            return {"name": name}
        if len(data) > SMALL_BYTES or kind.format not in FORMATS:
            return {"name": name}
        return {"name": name, "src": f"data:image/{kind.format.lower()};base64,{base64.b64encode(data).decode()}"}


def _plain(text: Completion) -> Any:
    assert not isinstance(text, Media), "refused before it was judged"
    if isinstance(text, str):
        return text
    return [{"role": turn.role, "content": _content(turn.content)} for turn in text]


def _content(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join("⟨image⟩" if isinstance(part, Media) else part for part in content)
