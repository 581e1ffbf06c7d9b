"""Rows through ``flexreward pairs --ray`` with a scripted judge: the rate, and whether memory stays flat.

``python -m flexreward.bench.spread 1000000`` prints, while it runs, the memory of the command and of all processes of
its cluster, and in the end one line of JSON. Both readings are of the streaming alone, once a tenth of the rows is
written and when all are: what grows between them grows with the rows.

100,000 rows, one worker: 925 rows a second; the command 148 and 149 MB, with its cluster 1,180 and 1,170 (2 cores of an
AMD EPYC, beside other work and giving way to it, 2026-11-27).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

PART_ROWS = 2_000
PROMPT = "Sort these numbers from small to large and say which stands in the middle: 7, 3, 9, 1, 5. "
COMPLETION = "In order they are 1, 3, 5, 7 and 9, so that the number in the middle is 5. "
POLL_S = 1.0


def measure(num_rows: int, folder: Path, *, part_rows: int = PART_ROWS) -> dict[str, Any]:
    """One run over so many rows of two completions.

    Returns:
        Rows a second from the first part that is written to the last; MB of private memory of the command, and of it
        and the cluster, at a tenth and at the end; peak of both.
    """
    samples = folder / "samples.jsonl"
    with samples.open("w") as file:
        for number in range(num_rows):
            texts = [COMPLETION * (1 + number % 3), COMPLETION * (1 + number % 2) + str(number)]
            file.write(json.dumps({"prompt": f"{PROMPT}{number}", "completions": texts}) + "\n")
    (folder / "judge.yaml").write_text("model: 'scripted:longer'\nengine: scripted\ntemplate: pair\n")
    options = ["--judge", str(folder / "judge.yaml"), "--no-store", "--part-rows", str(part_rows), "--json"]
    command = [sys.executable, "-m", "flexreward", "pairs", str(samples), "--out", str(folder / "out"), "--ray"]
    process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL)
    num_parts = -(-num_rows // part_rows)
    first: tuple[float, int] | None = None
    tenth: tuple[float, float] | None = None
    last = peak = (0.0, 0.0)
    rate = 0.0
    while process.poll() is None:
        time.sleep(POLL_S)
        written = len(list((folder / "out/parts").glob("part-*.jsonl")))
        if not written or (folder / "out/pair_outcomes.jsonl").exists():
            continue
        last = _mb([process.pid]), _mb(_family(process.pid))
        peak = max(peak[0], last[0]), max(peak[1], last[1])
        first = first or (time.monotonic(), written)
        if written > first[1]:
            rate = (written - first[1]) * part_rows / (time.monotonic() - first[0])
        if tenth is None and written >= num_parts / 10:
            tenth = last
        print(f"{written} of {num_parts} parts, {rate:.0f} rows/s, {last[0]:.0f} and {last[1]:.0f} MB", flush=True)
    if process.returncode:
        raise RuntimeError(f"flexreward pairs --ray ended with {process.returncode}")
    return {"rows": num_rows, "rows_per_s": rate, "mb_at_a_tenth": tenth, "mb_at_the_end": last, "mb_peak": peak}


def _family(pid: int) -> set[int]:
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
    found = {pid}
    while more := {one for one, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def _mb(pids: Iterable[int]) -> float:
    """What they hold for themselves alone, so that the object store is not counted once for each."""
    found = 0
    for pid in pids:
        with suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            found += sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty")))
    return found / 1024


if __name__ == "__main__":
    os.environ.pop("RAY_ADDRESS", None)
    with TemporaryDirectory(prefix="flexreward-spread-") as name:
        print(json.dumps(measure(int(sys.argv[1]), Path(name))))
