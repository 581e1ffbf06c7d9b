"""The process that decodes: one file at a time from standard input, pixels or samples to standard output.

It holds no secrets (its environment is made for it), cannot write a file, has a bounded address space, and a bounded
processor time for every file. It ends when its parent does. Both ways a message is a JSON object with ``size`` in it,
its length before it, and that many bytes after it: nothing is unpickled from here.
"""

from __future__ import annotations

import json
import os
import resource
import struct
import sys
import threading
import time
from typing import Any, BinaryIO

from flexreward.errors import MediaError
from flexreward.media.limits import FilmCaps, Limits
from flexreward.types import Modality

LENGTH = struct.Struct("<I")
MAX_HEADER = 1 << 20
NO_MEMORY = 77
"""Exit status of a process that met its address space."""
LIFE_CPU_S = 3600
"""Processor time of all files together; not even code that has taken the process over can raise it."""


def write_message(stream: BinaryIO, header: dict[str, Any], *parts: bytes | memoryview) -> None:
    """Write ``header`` and the bytes of all ``parts``."""
    text = json.dumps(header | {"size": sum(len(part) for part in parts)}).encode()
    stream.write(LENGTH.pack(len(text)) + text)
    for part in parts:
        stream.write(part)
    stream.flush()


def read_message(stream: BinaryIO, *, max_size: int) -> tuple[dict[str, Any], bytes] | None:
    """The next message; ``None`` where the stream has ended.

    Raises:
        ValueError: It ends in the middle, or is longer than it may be.
    """
    begin = stream.read(LENGTH.size)
    if len(begin) < LENGTH.size:
        return None
    length = LENGTH.unpack(begin)[0]
    if length > MAX_HEADER:
        raise ValueError(f"a header of {length} bytes")
    header = json.loads(stream.read(length))
    size = header.get("size") if isinstance(header, dict) else None
    if not isinstance(size, int) or not 0 <= size <= max_size:
        raise ValueError(f"a message of {size} bytes, at most {max_size} expected")
    data = stream.read(size)
    if len(data) < size:
        raise ValueError("a message that was cut")
    return header, data


def main(parent: int, memory_bytes: int) -> None:
    """Answer until standard input ends or the process ``parent`` does."""
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    for limit, most in ((resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_AS, memory_bytes)):
        _bound(limit, most, most)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints writes no answer
    try:
        _serve(answers, memory_bytes)
    except MemoryError:  # whatever is left of the heap is not built upon
        os._exit(NO_MEMORY)


def _serve(answers: BinaryIO, memory_bytes: int) -> None:
    while (message := read_message(sys.stdin.buffer, max_size=memory_bytes)) is not None:
        header, data = message
        _allow(header["cpu_s"])
        try:
            told, parts = _decode(header, data)
        except MediaError as error:
            told, parts = {"refused": str(error)}, ()
        except MemoryError:
            raise
        except Exception as error:  # a decoder's own fault, which ends no caller's run
            told, parts = {"refused": f"cannot be decoded ({type(error).__name__})"}, ()
        del data, message
        write_message(answers, told, *parts)
        del parts


def _decode(header: dict[str, Any], data: bytes) -> tuple[dict[str, Any], tuple[bytes | memoryview, ...]]:
    kind: Modality = header["kind"]
    limits = Limits(**header["limits"])
    if kind == "image":
        from flexreward.media.images import decode_image

        size = header["size_shown"]
        image = decode_image(data, header["format"], limits, tuple(size) if size else None)
        return {"width": image.width, "height": image.height}, (image.tobytes(),)
    if kind == "audio":
        from flexreward.media.sounds import decode_sound

        samples_N = decode_sound(data, header["format"], limits)
        return {"samples": len(samples_N)}, (samples_N.tobytes(),)
    from flexreward.media.films import decode_film

    strip = decode_film(data, header["format"], limits, FilmCaps(**header["caps"]))
    height, width, _ = strip.frames[0].shape
    told = {
        "width": width,
        "height": height,
        "indices": strip.indices,
        "source_fps": strip.source_fps,
        "source_frames": strip.source_frames,
    }
    return told, tuple(frame.tobytes() for frame in strip.frames)


def _allow(cpu_s: int) -> None:
    """So much processor time from now on; the kernel ends the process after that."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    until = int(used.ru_utime + used.ru_stime) + 1 + cpu_s
    _bound(resource.RLIMIT_CPU, until, LIFE_CPU_S)


def _bound(limit: int, soft: int, hard: int) -> None:
    """Set a limit, or keep the lower one that this process was started with."""
    given = resource.getrlimit(limit)[1]
    most = hard if given == resource.RLIM_INFINITY else min(hard, given)
    resource.setrlimit(limit, (min(soft, most), most))


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.25)
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
