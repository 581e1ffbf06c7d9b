"""What a checkpoint is shown besides text, and how a medium becomes what its towers take.

    Media -> decoded in a subprocess -> fitted to the model's patches -> Shown

An image is fitted here, as the reference does it, before any engine gets it: its sides become multiples of a patch's,
within the checkpoint's bounds of pixels. An engine's own processing then finds nothing to resize, and all engines show
the same pixels. Shapes: T frames, H rows, W columns, C colours, N samples.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from math import ceil, floor, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flexreward.engines.base import Embeddings, Placed
from flexreward.engines.encoding import Slot
from flexreward.errors import JudgeError, MediaError, RefusedError, SampleError
from flexreward.media.bounds import check_request, name_of
from flexreward.media.decoder import Decoder, Film, Sound, shared_decoder
from flexreward.types import Media, Molecule

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

CACHE_BYTES = 256 << 20
"""Of media made ready and kept: the two orders of a pair, and all votes, show the same ones."""
EMBEDDINGS = Slot((), -1, ())
"""Rows that stand for no token. The id is nobody's and is never looked up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """How a model cuts images and films into patches."""

    patch: int
    """Pixels along a side."""
    merge: int
    """Patches along each side that become one row of the model's input."""
    frames: int
    """Frames in one patch; an image is shown as so many times itself."""
    min_pixels: int
    max_pixels: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def side(self) -> int:
        """Pixels along the side of what one row shows."""
        return self.patch * self.merge

    def fitted(self, width: int, height: int) -> tuple[int, int]:
        """Width and height as they are shown: multiples of ``side``, the shape kept about, within the bounds; above
        them where one side is a single row.

        Raises:
            MediaError: It is more than 200 times as long as wide, which the models do not take.

        Source: QwenLM/Qwen2.5-VL:qwen-vl-utils/src/qwen_vl_utils/vision_process.py, ``smart_resize``.
        """
        if max(width, height) > 200 * min(width, height):
            raise MediaError(f"has {width} x {height} pixels, more than 200 times as long as wide")
        # A side of less than half a row comes to 0 here, and the image is grown until it has one.
        wide, high = (round(length / self.side) * self.side for length in (width, height))
        if wide * high > self.max_pixels:
            shrink = sqrt(width * height / self.max_pixels)
            return self._down(width / shrink), self._down(height / shrink)
        if wide * high < self.min_pixels:
            grow = sqrt(self.min_pixels / (width * height))
            return self._up(width * grow), self._up(height * grow)
        return wide, high

    def _down(self, length: float) -> int:
        return max(self.side, floor(length / self.side) * self.side)

    def _up(self, length: float) -> int:
        return ceil(length / self.side) * self.side


@dataclass(frozen=True, slots=True, kw_only=True)
class Hearing:
    """How a model cuts sounds into rows. Sounds are mono at 16 kHz."""

    extractor: Any
    """transformers' WhisperFeatureExtractor, with the checkpoint's settings."""

    @property
    def longest_s(self) -> float:
        """Seconds of the longest sound that the model is shown."""
        return float(self.extractor.n_samples / self.extractor.sampling_rate)

    def width(self, num_samples: int) -> int:
        """Rows of the model's input: one for 40 ms."""
        spectra = -(-num_samples // int(self.extractor.hop_length))
        return ((spectra - 1) // 2 + 1 - 2) // 2 + 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shown:
    """A medium as a model takes it, before its towers."""

    kind: str
    digest: str
    width: int
    """Rows of the model's input."""
    frames_THWC: npt.NDArray[np.uint8] | None = None
    """Of an image, T is 1; of a film, even. H and W are multiples of ``Sight.side``."""
    film: Film | None = None
    """Where the frames are those of a film: which they are, and how fast it goes."""
    samples_N: npt.NDArray[np.float32] | None = None
    rows_TD: npt.NDArray[np.float32] | None = None
    """Rows that were made elsewhere, of the model's own width D."""

    @property
    def num_bytes(self) -> int:
        """Main memory taken."""
        return sum(array.nbytes for array in (self.frames_THWC, self.samples_N) if array is not None)


class Shelf:
    """Media made ready: each once, by whoever asks first, and kept while there is room. For any thread."""

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, Future[Shown]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str, make: Callable[[], Shown]) -> Shown:
        """What ``make`` made, now or before. What it raises is raised to all who wait, and not kept."""
        with self._lock:
            if (found := self._kept.get(key)) is None:
                mine = self._kept[key] = Future()
            else:
                self._kept.move_to_end(key)
        if found is not None:
            return found.result()
        try:
            shown = make()
        except BaseException as error:
            with self._lock:
                del self._kept[key]
            mine.set_exception(error)
            raise
        mine.set_result(shown)
        self._make_room()
        return shown

    def _make_room(self) -> None:
        with self._lock:
            done = {key: one.result().num_bytes for key, one in self._kept.items() if one.done()}
            taken = sum(done.values())
            for key, num_bytes in done.items():
                if taken <= self._max_bytes:
                    return
                del self._kept[key]
                taken -= num_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Senses:
    """What one checkpoint is shown, by kind, and the media made ready for it. For any thread."""

    slots: Mapping[str, Slot] = field(default_factory=dict)
    """Tokens around the medium, by kind: whatever has one can be shown."""
    sight: Sight | None = None
    hearing: Hearing | None = None
    decoder: Decoder = field(default_factory=shared_decoder)
    shelf: Shelf = field(default_factory=Shelf)

    @property
    def kinds(self) -> frozenset[str]:
        """``image``, ``video``, ``audio``: those that the model takes."""
        return frozenset(self.slots) - {"embeddings"}

    @property
    def identity(self) -> dict[str, str]:
        """How media are shown: what replies depend on besides the weights."""
        found: dict[str, str] = {}
        if self.sight is not None:
            caps = self.decoder.caps
            film = f"{caps.fps:g} frames/s from {caps.min_frames}, up to {caps.frame_pixels} pixels"
            found["sight"] = f"{self.sight.min_pixels} to {self.sight.max_pixels} pixels; {film}"
        if self.hearing is not None:
            found["hearing"] = f"up to {self.hearing.longest_s:g} s"
        return found

    async def shown(self, placed: Sequence[Placed]) -> tuple[Shown, ...]:
        """The media of a prompt, in order.

        Raises:
            RefusedError: One is broken, too large, or of a kind that this model is not shown.
        """
        return await asyncio.to_thread(self.shown_now, placed) if placed else ()

    def shown_now(self, placed: Sequence[Placed]) -> tuple[Shown, ...]:
        """``shown`` for a caller that may wait."""
        media = [one.media for one in placed]
        if unseen := next((one.kind for one in media if one.kind not in self.slots), None):
            raise RefusedError(f"this model cannot be shown the {unseen} of this prompt")
        try:
            check_request([one for one in media if isinstance(one, Media)], self.decoder.limits)
            return tuple(self._ready(one) for one in media)
        except SampleError as error:
            raise RefusedError(str(error)) from error

    def _ready(self, media: Media | Molecule | Embeddings) -> Shown:
        if isinstance(media, Embeddings):
            return self._rows(media)
        assert isinstance(media, Media), "no slot of a language model takes a molecule"
        return self.shelf.get(f"{media.kind} {media.digest}", lambda: self._made(media))

    def _made(self, media: Media) -> Shown:
        import numpy as np
        from PIL.Image import Resampling

        where = name_of(media)
        decoded = self.decoder.decode(media)
        try:
            if isinstance(decoded, Sound):
                return self._heard(decoded, media.digest)
            assert self.sight is not None, "a slot for it means that there is sight"
            if isinstance(decoded, Film):
                _, height, width, _ = decoded.frames_THWC.shape
                if height % self.sight.side or width % self.sight.side:
                    raise MediaError(f"has frames of {width} x {height} pixels, no multiples of {self.sight.side}")
                return self._seen("video", media.digest, decoded.frames_THWC, film=decoded)
            size = self.sight.fitted(decoded.width, decoded.height)
            image = decoded if decoded.size == size else decoded.resize(size, Resampling.BICUBIC)
            return self._seen("image", media.digest, np.asarray(image, dtype=np.uint8)[None])
        except MediaError as error:
            raise MediaError(f"{where}: {error}") from error

    def _seen(self, kind: str, digest: str, frames_THWC: npt.NDArray[np.uint8], **more: Any) -> Shown:
        assert self.sight is not None
        count, height, width, _ = frames_THWC.shape
        rows = max(1, count // self.sight.frames) * (height // self.sight.side) * (width // self.sight.side)
        return Shown(kind=kind, digest=digest, width=rows, frames_THWC=frames_THWC, **more)

    def _heard(self, sound: Sound, digest: str) -> Shown:
        assert self.hearing is not None
        seconds, longest = len(sound.samples_N) / sound.rate, self.hearing.longest_s
        if seconds > longest:
            raise MediaError(f"lasts {seconds:.1f} s, the model is shown {longest:g} s at most; cut it")
        width = self.hearing.width(len(sound.samples_N))
        if width < 1:
            raise MediaError(f"lasts {seconds * 1000:.0f} ms, too short for the model to be shown")
        return Shown(kind="audio", digest=digest, width=width, samples_N=sound.samples_N)

    def _rows(self, given: Embeddings) -> Shown:
        return Shown(kind=given.kind, digest=given.digest, width=len(given.rows_TD), rows_TD=given.rows_TD)


def check_width(shown: Sequence[Shown], width: int) -> None:
    """Refuse embeddings of another model.

    Raises:
        RefusedError: Their rows are not as wide as those of this model's input.
    """
    for one in shown:
        if one.rows_TD is not None and (one.rows_TD.ndim != 2 or one.rows_TD.shape[1] != width or not one.width):
            raise RefusedError(
                f"embeddings of shape {one.rows_TD.shape}, expected (rows, {width}) with at least one row"
            )


def read_senses(config: Any, tokenizer: Any, folder: Path, *, decoder: Decoder | None = None, **bounds: Any) -> Senses:
    """What the model of this config is shown.

    Args:
        config: transformers' config of the checkpoint.
        folder: Where the files of its processor are.
        bounds: ``min_pixels`` and ``max_pixels`` of an image, instead of the checkpoint's.

    Raises:
        JudgeError: A token or a file that it needs is missing.
    """
    from flexreward.engines.families import family_of

    family = family_of(config)
    settings = _settings(folder) if family else {}
    text = {"embeddings": EMBEDDINGS}
    made: dict[str, Any] = {"decoder": decoder or shared_decoder()}
    if family is None:
        if given := [name for name, value in bounds.items() if value is not None]:
            raise JudgeError(f"{given[0]}: this model is shown no images; leave it out")
        return Senses(slots=text, **made)
    made["slots"] = text | family.slots(config, tokenizer, name=str(folder))
    vision = family.thinker(config).vision_config
    size = settings.get("size") or {}
    low = bounds.get("min_pixels") or settings.get("min_pixels") or size.get("shortest_edge")
    high = bounds.get("max_pixels") or settings.get("max_pixels") or size.get("longest_edge")
    if not low or not high or low > high:
        raise JudgeError(
            f"{folder}: its image processor is bound to {low} to {high} pixels; set min_pixels, max_pixels"
        )
    made["sight"] = Sight(
        patch=vision.patch_size,
        merge=vision.spatial_merge_size,
        frames=vision.temporal_patch_size,
        min_pixels=low,
        max_pixels=high,
        mean=tuple(settings["image_mean"]),
        std=tuple(settings["image_std"]),
    )
    if "audio" in family.kinds:
        made["hearing"] = Hearing(extractor=_extractor(folder))
    return Senses(**made)


def _settings(folder: Path) -> dict[str, Any]:
    """The image processor's settings, from whichever file has them."""
    for name, part in (("preprocessor_config.json", None), ("processor_config.json", "image_processor")):
        path = folder / name
        if not path.is_file():
            continue
        try:
            found = json.loads(path.read_bytes())
            found = found if part is None else found.get(part, {})
        except (ValueError, AttributeError) as error:
            raise JudgeError(f"{path}: is no JSON object; copy it again") from error
        if isinstance(found, dict) and {"image_mean", "image_std"} <= found.keys():
            return found
    raise JudgeError(
        f"{folder}: has no settings of an image processor; set processor to the folder or hub id of its base model"
    )


def _extractor(folder: Path) -> Any:
    from transformers import WhisperFeatureExtractor

    try:
        return WhisperFeatureExtractor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise JudgeError(
            f"{folder}: has no settings of a sound's feature extractor; set processor to the folder of its base model"
        ) from error
