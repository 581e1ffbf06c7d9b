import asyncio
import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import soundfile

from flexreward.errors import MediaError, RefusedError
from flexreward.media.decoder import Decoder
from flexreward.media.intake import audio_of, image_of
from flexreward.media.limits import MIB, Limits
from flexreward.types import Media

SMALL = image_of(PIL.Image.new("RGB", (4, 4), "red"))


def black(side: int) -> Media:
    out = io.BytesIO()
    PIL.Image.new("L", (side, side)).save(out, "PNG")
    return Media(kind="image", data=out.getvalue())


def quiet(seconds: int, rate: int) -> Media:
    """Much work: an odd rate."""
    out = io.BytesIO()
    soundfile.write(out, np.zeros(seconds * rate), rate, format="WAV", subtype="PCM_U8")
    return Media(kind="audio", data=out.getvalue())


@pytest.mark.parametrize(
    ("limits", "media", "message"),
    [
        (
            Limits(memory_bytes=160 * MIB),
            black(7_900),
            "needs more than 167772160 bytes to decode, the limit memory_bytes",
        ),
        (Limits(wall_s=0.01), SMALL, "took longer than 0.01 s to decode, the limit wall_s"),
        pytest.param(
            *(Limits(cpu_s=0), quiet(60, 191_999), "took more than 0 s of processor time to decode, the limit cpu_s"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_file_that_costs_too_much_is_one_line_and_the_next_one_decodes(limits, media, message):
    decoder = Decoder(limits)
    try:
        with pytest.raises(MediaError) as error:
            decoder.decode(media)
        assert message in str(error.value)
        decoder.limits = Limits()
        assert decoder.decode(SMALL).size == (4, 4)
    finally:
        decoder.close()


def test_a_worker_that_dies_is_one_refusal_and_is_replaced():
    decoder = Decoder(workers=1)
    try:
        decoder.decode(SMALL)
        (worker,) = decoder._idle
        os.kill(worker._process.pid, signal.SIGSTOP)  # neither dead nor alive: the next one waits for it
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(decoder.decode, SMALL)
            time.sleep(0.1)
            os.kill(worker._process.pid, signal.SIGKILL)
            with pytest.raises(MediaError, match=r"the image: the decoder broke on it \(SIGKILL\)"):
                waiting.result(timeout=20)
        assert decoder.decode(SMALL).size == (4, 4)
    finally:
        decoder.close()


def test_processes_are_kept_so_that_decoding_is_quick():
    decoder = Decoder(workers=1)
    try:
        decoder.decode(SMALL)
        pid = decoder._idle[0]._process.pid
        start = time.perf_counter()
        for _ in range(50):
            decoder.decode(SMALL)
        assert time.perf_counter() - start < 5
        assert decoder._idle[0]._process.pid == pid
    finally:
        decoder.close()


def test_no_more_processes_run_than_were_allowed(decoder):
    with ThreadPoolExecutor(8) as pool:
        sizes = [image.size for image in pool.map(decoder.decode, [SMALL] * 64)]
    assert sizes == [(4, 4)] * 64
    assert len(decoder._idle) <= 2


def test_a_worker_has_no_secrets_and_can_write_nothing(decoder, monkeypatch):
    monkeypatch.setenv("FLEXREWARD_API_KEY", "secret")
    own = Decoder(workers=1)
    try:
        own.decode(SMALL)
        proc = Path(f"/proc/{own._idle[0]._process.pid}")
        if not proc.exists():
            pytest.skip("no /proc here")
        assert b"secret" not in (proc / "environ").read_bytes()
        limits = (proc / "limits").read_text()
        lines = {" ".join(line.split()[:3]): line.split() for line in limits.splitlines()}
        assert lines["Max file size"][3:5] == ["0", "0"]
        assert lines["Max core file"][4:6] == ["0", "0"]
        assert lines["Max address space"][3:5] == [str(Limits().memory_bytes)] * 2
        assert "unlimited" not in lines["Max cpu time"]
    finally:
        own.close()


def test_a_request_is_held_to_its_number_and_its_bytes():
    limits = Limits(media_per_request=3, bytes_per_request=4_000)
    decoder = Decoder(limits)
    with pytest.raises(MediaError, match="the request has 4 media, the limit media_per_request is 3"):
        decoder.decode_all([SMALL] * 4)
    with pytest.raises(MediaError, match="the request has 6000 bytes of media, the limit bytes_per_request is 4000"):
        decoder.decode_all([Media(kind="image", data=b"x" * 3_000)] * 2)


async def test_for_an_engine_a_refusal_is_the_request_s_and_media_keep_their_order(decoder):
    blue = image_of(PIL.Image.new("RGB", (2, 2), "blue"))
    tone = audio_of(np.zeros(1_600, np.float32), rate=16_000)
    red, sound, second, again = await decoder.decoded((SMALL, tone, blue, SMALL))
    assert (red.size, len(sound.samples_N), second.size) == ((4, 4), 1_600, (2, 2))
    assert again is red
    with pytest.raises(RefusedError, match="the image: is no image by its first bytes"):
        await decoder.decoded((SMALL, Media(kind="image", data=b"nothing")))


def test_what_is_no_plain_file_is_not_waited_for(decoder, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, message in (
        (tmp_path / "pipe", "is no plain file"),
        (tmp_path, "is no plain file"),
        (Path("/dev/zero"), "is no plain file"),
        (tmp_path / "none", "cannot be read: No such file"),
        (tmp_path / "a\0b", "cannot be read: not a path"),
    ):
        with pytest.raises(MediaError, match=message):
            decoder.decode(Media(kind="image", path=path))


def _decode_in_fork(decoder: Decoder, pipe: object) -> None:
    pipe.send(decoder.decode(SMALL).size)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_that_was_forked_off_starts_workers_of_its_own():
    decoder = Decoder(workers=1)
    try:
        decoder.decode(SMALL)
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        child = context.Process(target=_decode_in_fork, args=(decoder, theirs))
        child.start()
        assert ours.poll(20)
        assert ours.recv() == (4, 4)
        child.join(20)
        assert decoder.decode(SMALL).size == (4, 4)
    finally:
        decoder.close()


PARENT = """
import json, sys, threading, time
from pathlib import Path
from flexreward.media.decoder import Decoder
from flexreward.types import Media
decoder = Decoder(workers=2)
small, large = (Media(kind=kind, path=Path(path)) for kind, path in zip(("image", "audio"), sys.argv[1:]))
decoder.decode(small)
idle = decoder._take()
threading.Thread(target=decoder.decode, args=(large,), daemon=True).start()
busy = None
while busy is None:
    time.sleep(0.01)
    found = Path(f"/proc/{__import__('os').getpid()}/task").glob("*/children")
    pids = {int(pid) for path in found for pid in path.read_text().split()} - {idle._process.pid}
    busy = min(pids, default=None)
time.sleep(0.3)
print(json.dumps([idle._process.pid, busy]), flush=True)
time.sleep(60)
"""


@pytest.mark.slow
def test_workers_idle_and_busy_end_with_a_parent_that_was_killed(tmp_path):
    if not Path("/proc/self/task").exists():
        pytest.skip("no /proc here")
    (tmp_path / "small.png").write_bytes(SMALL.data)
    (tmp_path / "large.wav").write_bytes(quiet(300, 191_999).data)
    command = [sys.executable, "-c", PARENT, str(tmp_path / "small.png"), str(tmp_path / "large.wav")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        pids = json.loads(parent.stdout.readline())
        assert all(Path(f"/proc/{pid}").exists() for pid in pids)
        parent.kill()
    until = time.monotonic() + 10
    while any(Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids):
        assert time.monotonic() < until, "a worker outlived its parent"
        time.sleep(0.05)


def test_the_caller_loads_no_decoder_of_sounds_or_films():
    code = (
        "import sys, numpy as np\nfrom flexreward.media.intake import audio_of\n"
        "from flexreward.media.decoder import Decoder\n"
        "d = Decoder(); d.decode(audio_of(np.zeros(99, np.float32), rate=16000)); d.close()\n"
        "print({'soundfile', 'av', 'scipy', 'PIL'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_a_lower_limit_of_the_machine_is_kept():
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from flexreward.media.decoder import Decoder\nfrom flexreward.types import Media\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (500, 500))\n"
        "d = Decoder(); print(d.decode(Media(kind='image', data=sys.stdin.buffer.read())).size)\n"
        "print(resource.prlimit(d._idle[0]._process.pid, resource.RLIMIT_AS)); d.close()"
    )
    run = subprocess.run([sys.executable, "-c", code], input=SMALL.data, capture_output=True, check=True)
    assert run.stdout.splitlines() == [b"(4, 4)", b"(1073741824, 1073741824)"]


def test_a_closed_decoder_starts_nothing():
    decoder = Decoder()
    decoder.close()
    with pytest.raises(RuntimeError, match="closed"):
        asyncio.run(decoder.decoded((SMALL,)))
