"""Media as a model takes them. Other processes do the decoding, so that no file can hurt this one."""

from __future__ import annotations

import asyncio
import atexit
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, cast

from flexreward.errors import MediaError, RefusedError
from flexreward.media.bounds import check_request, name_of, read_media
from flexreward.media.digest import check_unchanged
from flexreward.media.kinds import HEAD_BYTES, Kind, kind_of
from flexreward.media.limits import CAPS, LIMITS, FilmCaps, Limits
from flexreward.media.worker import LIFE_CPU_S, NO_MEMORY, read_message, write_message
from flexreward.types import Media

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL.Image import Image

PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "SYSTEMROOT")
"""What a worker sees of the environment: no keys, no tokens."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sound:
    """Mono, the mean of all channels."""

    samples_N: npt.NDArray[np.float32]
    """(N,) in [-1, 1]."""
    rate: int = 16_000
    """Samples a second."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Film:
    """Frames picked evenly from a film (see ``flexreward.media.films.picked``), or all that were given."""

    frames_THWC: npt.NDArray[np.uint8]
    """(T, H, W, 3); T is even, H and W are multiples of 28."""
    indices: tuple[int, ...]
    """Which frames of the source they are."""
    source_fps: float
    source_frames: int

    @property
    def fps(self) -> float:
        """Frames shown for each second of the source."""
        return len(self.indices) / self.source_frames * self.source_fps


Decoded: TypeAlias = "Image | Sound | Film"


class Decoder:
    """A few processes that decode, started when first needed and kept. May be used from many threads.

    Args:
        workers: How many media are decoded at a time; further ones wait.
    """

    def __init__(self, limits: Limits = LIMITS, *, caps: FilmCaps = CAPS, workers: int = 2) -> None:
        self.limits = limits
        self.caps = caps
        self._num_workers = workers
        self._closed = False
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()
        self._foreign: list[_Worker] = []
        self._begin()
        _ALL.add(self)

    def _begin(self) -> None:
        """Begin with no process: at the start, and again in a process that was forked off.

        What was held at the moment of a fork stays held there for ever, and the workers and their pipes are the
        parent's: they are kept untouched, since to close a pipe would write what is left in its buffer.
        """
        self._places = threading.BoundedSemaphore(self._num_workers)
        self._lock = threading.Lock()
        self._foreign += [*self._idle, *self._busy]
        self._idle, self._busy = [], set()
        for worker in self._foreign:
            worker.disown()

    def decode(self, media: Media) -> Decoded:
        """An image as RGB (PIL), a sound at 16 kHz, a film as frames.

        Raises:
            MediaError: One line: too large, broken, not of its kind, or beyond what decoding may cost.
        """
        where = name_of(media)
        data = read_media(media, self.limits)
        check_unchanged(media, data)
        return self._decode(media, data, kind_of(data[:HEAD_BYTES], media.kind, where), where)

    def decode_all(self, media: Sequence[Media]) -> tuple[Decoded, ...]:
        """All media of one request, in order; one that stands there twice is decoded once.

        Raises:
            MediaError: There are too many, they are too large together, or one is refused.
        """
        check_request(media, self.limits)
        done: dict[Media, Decoded] = {}
        for one in media:
            if one not in done:
                done[one] = self.decode(one)
        return tuple(done[one] for one in media)

    async def decoded(self, media: Sequence[Media]) -> tuple[Decoded, ...]:
        """``decode_all`` for an engine: off the loop, and a refusal is the engine's.

        Raises:
            RefusedError: As ``MediaError`` above, so that the request ends Unscored and no other is touched.
        """
        try:
            return await asyncio.to_thread(self.decode_all, media)
        except MediaError as error:
            raise RefusedError(str(error)) from error

    def close(self) -> None:
        """End all processes; what they are decoding is refused. A decoder that was closed starts none."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            busy = list(self._busy)
        for worker in idle:
            worker.end()
        for worker in busy:  # its own thread sees that it ended
            worker.kill()

    def _decode(self, media: Media, data: bytes, found: Kind, where: str) -> Decoded:
        with self._places:
            worker = self._take()
            again = False
            try:
                answer, payload = worker.ask(media, found.format, data, self.caps, where)
                again = True
            except MediaError as error:
                if self._closed:
                    raise MediaError(f"{where}: the decoder was closed while it was decoded") from error
                raise
            finally:
                self._give_back(worker, again=again)
        if "refused" in answer:
            raise MediaError(f"{where}: {answer['refused']}")
        try:
            return _made(media, answer, payload, self.limits)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise MediaError(f"{where}: the decoder gave an answer that does not fit") from error

    def _take(self) -> _Worker:
        while True:
            with self._lock:
                if self._closed:
                    raise RuntimeError("the decoder is closed")
                if not self._idle:
                    worker = _Worker(self.limits)
                    self._busy.add(worker)
                    return worker
                worker = self._idle.pop()
                if worker.usable:
                    self._busy.add(worker)
                    return worker
            worker.end()

    def _give_back(self, worker: _Worker, *, again: bool) -> None:
        with self._lock:
            self._busy.discard(worker)
            if again and worker.usable and not self._closed:
                self._idle.append(worker)
                return
        worker.end()


_ALL: weakref.WeakSet[Decoder] = weakref.WeakSet()


def _begin_all() -> None:
    for decoder in list(_ALL):
        decoder._begin()


os.register_at_fork(after_in_child=_begin_all)


class _Worker:
    """One process, and the two pipes to it."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._late = False
        self._cpu_left = LIFE_CPU_S
        path = os.pathsep.join([str(Path(__file__).parents[2]), *(entry for entry in sys.path if entry)])
        kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "flexreward.media.worker", str(os.getpid()), str(limits.memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=kept | threads | {"PYTHONPATH": path},
            cwd="/",
            start_new_session=True,  # Ctrl-C is for the parent, which then closes
        )

    @property
    def usable(self) -> bool:
        """Whether it lives and has time left."""
        return not self._late and self._process.poll() is None and self._cpu_left > 0

    def ask(self, media: Media, format: str, data: bytes, caps: FilmCaps, where: str) -> tuple[dict[str, Any], bytes]:
        """What the worker says of a file; after an exception it is of no more use."""
        cpu_s = self._limits.cpu_of(media.kind)
        self._cpu_left -= cpu_s + 1
        header = {
            "kind": media.kind,
            "format": format,
            "size_shown": media.size,
            "cpu_s": cpu_s,
            "limits": asdict(self._limits),
            "caps": asdict(caps),
        }
        stdin, stdout = cast("BinaryIO", self._process.stdin), cast("BinaryIO", self._process.stdout)

        def stop() -> None:
            self._late = True
            self._process.kill()

        timer = threading.Timer(self._limits.wall_s, stop)
        timer.daemon = True
        timer.start()
        answer = None
        try:
            write_message(stdin, header, data)
            answer = read_message(stdout, max_size=_most_bytes(media, self._limits, caps))
        except (OSError, ValueError, RecursionError):
            pass
        finally:
            timer.cancel()
        if answer is None:
            raise MediaError(f"{where}: {self._ended(cpu_s, self._late)}")
        return answer

    def _ended(self, cpu_s: int, late: bool) -> str:
        if late:
            return f"took longer than {self._limits.wall_s:g} s to decode, the limit wall_s"
        try:
            code = self._process.wait(timeout=1)  # it has ended already, or closed its pipe without ending
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        if code == -signal.SIGXCPU:
            return f"took more than {cpu_s} s of processor time to decode, the limit cpu_s or video_cpu_s"
        if code == NO_MEMORY:
            return f"needs more than {self._limits.memory_bytes} bytes to decode, the limit memory_bytes"
        how = signal.Signals(-code).name if code < 0 else f"status {code}"
        return f"the decoder broke on it ({how})"

    def kill(self) -> None:
        """End it, from whatever thread."""
        self._process.kill()

    def end(self) -> None:
        """Kill it and close the pipes."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            try:
                if pipe is not None:
                    pipe.close()
            except OSError:  # what was not yet written to a worker that is gone
                pass

    def disown(self) -> None:
        """Forget that it is a child: it is that of the process that this one was forked from."""
        self._process.returncode = 0


def _most_bytes(media: Media, limits: Limits, caps: FilmCaps) -> int:
    """The longest answer that an honest worker gives."""
    if media.kind == "audio":
        return 4 * (int(limits.audio_seconds * 16_000) + 16_000)
    if media.kind == "image":
        return 3 * limits.image_pixels
    return 3 * (limits.video_frames + 1) * max(caps.frame_pixels, 28 * 28)


def _made(media: Media, told: dict[str, Any], payload: bytes, limits: Limits) -> Decoded:
    """The value, after a check that the worker's answer is what it can be."""
    import numpy as np

    if media.kind == "audio":
        samples_N = np.frombuffer(payload, dtype=np.float32)
        if not 0 < len(samples_N) == told["samples"]:
            raise ValueError("samples")
        return Sound(samples_N=samples_N)
    width, height = int(told["width"]), int(told["height"])
    if min(width, height) < 1:
        raise ValueError("pixels")
    if media.kind == "image":
        import PIL.Image

        if width * height > limits.image_pixels or media.size not in (None, (width, height)):
            raise ValueError("pixels")
        return PIL.Image.frombytes("RGB", (width, height), payload)
    indices = tuple(int(index) for index in told["indices"])
    frames_THWC = np.frombuffer(payload, dtype=np.uint8).reshape(len(indices), height, width, 3)
    fps, total = float(told["source_fps"]), int(told["source_frames"])
    if not indices or not 0 < fps < float("inf") or total <= 0:
        raise ValueError("frames")
    return Film(frames_THWC=frames_THWC, indices=indices, source_fps=fps, source_frames=total)


@cache
def shared_decoder(limits: Limits = LIMITS, caps: FilmCaps = CAPS) -> Decoder:
    """The one that all engines of the same limits share; closed when the program ends."""
    decoder = Decoder(limits, caps=caps)
    atexit.register(decoder.close)
    return decoder
