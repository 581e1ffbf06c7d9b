"""Rows through ``flexreward pairs --ray`` with a scripted judge: the rate, and whether memory stays flat.

``python -m flexreward.bench.spread 1000000 FOLDER`` prints rate and memory now and then, and in the end one line of
JSON. Killed, it goes on where it was: the command passes over the parts that stand in FOLDER, and readings are kept
beside them. Without FOLDER it begins anew in one that is gone afterwards.

Memory is what the command holds for itself alone, and it with all processes of its cluster. Both are read while rows
stream, after a tenth of what one process of the command has written and in the last tenth of it: what grows between
the two grows with the rows.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from flexreward.files.whole import replaced

PART_ROWS = 2_000
PROMPT = "Sort these numbers from small to large and say which stands in the middle: 7, 3, 9, 1, 5. "
COMPLETION = "In order they are 1, 3, 5, 7 and 9, so that the number in the middle is 5. "
POLL_S = 2.0
SAY_S = 20.0
READINGS = "readings.jsonl"


class Reading(NamedTuple):
    """Of a moment of a run."""

    pid: int
    """The command's: a run that was killed goes on in another."""
    at_s: float
    num_parts: int
    """Written by now."""
    streams: bool
    """Whether rows still stream; afterwards parts are put together, and pairs filtered and shown."""
    command_mb: float
    all_mb: float
    """The command with its cluster."""


def measure(num_rows: int, folder: Path, *, part_rows: int = PART_ROWS, poll_s: float = POLL_S) -> dict[str, Any]:
    """One run over so many rows of two completions, or what is left of it; see ``figures``."""
    samples = folder / "samples.jsonl"
    if not samples.exists():
        with replaced(samples) as file:
            file.writelines(_rows(num_rows))
    (folder / "judge.yaml").write_text("model: 'scripted:longer'\nengine: scripted\ntemplate: pair\n")
    options = ["--judge", str(folder / "judge.yaml"), "--no-store", "--part-rows", str(part_rows), "--json"]
    command = [sys.executable, "-m", "flexreward", "pairs", str(samples), "--out", str(folder / "out"), "--ray"]
    process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL)
    told = 0.0
    try:
        with (folder / READINGS).open("a") as file:
            while process.poll() is None:
                time.sleep(poll_s)
                if (reading := _reading(process.pid, folder / "out")) is None:
                    continue
                file.write(json.dumps(reading) + "\n")
                file.flush()
                if reading.at_s - told >= SAY_S:
                    told = reading.at_s
                    print(_line(figures(read(folder), num_rows, part_rows), reading), flush=True)
    finally:
        process.terminate()
        process.wait()
    if process.returncode:
        raise RuntimeError(f"flexreward pairs --ray ended with {process.returncode}")
    return figures(read(folder), num_rows, part_rows)


def read(folder: Path) -> list[Reading]:
    """All readings of a folder."""
    return [Reading(*json.loads(line)) for line in (folder / READINGS).read_text().splitlines()]


def figures(readings: Sequence[Reading], num_rows: int, part_rows: int) -> dict[str, Any]:
    """What the readings come to.

    Returns:
        ``rows_per_s`` while rows streamed. Of the process that wrote the most parts, medians of the private MB of the
        command and of it with its cluster: ``mb_early``, between 5 and 15 % of its parts, and ``mb_late``, in the last
        tenth. ``mb_peak`` of all, ``mb_peak_after`` once no row streamed, and how many processes it took.
    """
    runs = [list(group) for _, group in itertools.groupby(readings, key=lambda reading: reading.pid)]
    # Rows of a run that goes on stream from its first new part on; until then its cluster begins.
    streams = [[reading for reading in run if reading.streams and reading.num_parts > run[0].num_parts] for run in runs]
    streams = [run for run in streams if run and run[-1].num_parts > run[0].num_parts]
    if not streams:
        return {"rows": num_rows, "rows_per_s": 0.0, "num_runs": len(runs)}
    num_written = [run[-1].num_parts - run[0].num_parts for run in streams]
    seconds = sum(run[-1].at_s - run[0].at_s for run in streams)
    longest = streams[num_written.index(max(num_written))]
    after = [reading for reading in readings if not reading.streams]
    return {
        "rows": num_rows,
        "rows_per_s": sum(num_written) * part_rows / seconds,
        "rows_at_a_stretch": max(num_written) * part_rows,
        "mb_early": _mb(_share(longest, 0.05, 0.15)),
        "mb_late": _mb(_share(longest, 0.9, 1.0)),
        "mb_peak": _most(itertools.chain(*streams)),
        "mb_peak_after": _most(after),
        "num_runs": len(runs),
    }


def _share(run: Sequence[Reading], low: float, high: float) -> list[Reading]:
    first, last = run[0].num_parts, run[-1].num_parts
    found = [reading for reading in run if low <= (reading.num_parts - first) / (last - first) <= high]
    return found or [run[-1]]


def _mb(readings: Sequence[Reading]) -> dict[str, float]:
    return {
        "command": median(reading.command_mb for reading in readings),
        "with_cluster": median(reading.all_mb for reading in readings),
    }


def _most(readings: Iterable[Reading]) -> dict[str, float]:
    found = [(reading.command_mb, reading.all_mb) for reading in readings] or [(0.0, 0.0)]
    return {"command": max(one for one, _ in found), "with_cluster": max(both for _, both in found)}


def _line(found: dict[str, Any], reading: Reading) -> str:
    what = f"{reading.num_parts} parts, {found['rows_per_s']:.0f} rows/s" if reading.streams else "put together"
    return f"{what}, {reading.command_mb:.0f} MB the command, {reading.all_mb:.0f} MB with its cluster"


def _rows(num_rows: int) -> Iterator[bytes]:
    for number in range(num_rows):
        texts = [COMPLETION * (1 + number % 3), COMPLETION * (1 + number % 2) + str(number)]
        yield json.dumps({"prompt": f"{PROMPT}{number}", "completions": texts}).encode() + b"\n"


def _reading(pid: int, out: Path) -> Reading | None:
    """Nothing before the first part stands."""
    streams = not (out / "pair_outcomes.jsonl").exists()
    num_parts = len(list((out / "parts").glob("part-*.jsonl")))
    if streams and not num_parts:
        return None
    at_s = time.monotonic()
    return Reading(pid, at_s, num_parts, streams, _held_mb([pid]), _held_mb(_family(pid)))


def _family(pid: int) -> set[int]:
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
    found = {pid}
    while more := {one for one, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def _held_mb(pids: Iterable[int]) -> float:
    """What they hold for themselves alone, so that the object store is not counted once for each."""
    found = 0
    for pid in pids:
        with suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            found += sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty")))
    return found / 1024


if __name__ == "__main__":
    os.environ.pop("RAY_ADDRESS", None)
    num_rows, *folders = sys.argv[1:]
    with TemporaryDirectory(prefix="flexreward-spread-") as name:
        folder = Path(folders[0] if folders else name)
        folder.mkdir(parents=True, exist_ok=True)
        print(json.dumps(measure(int(num_rows), folder)))
