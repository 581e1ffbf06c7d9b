"""Parts of a run as files: ``parts/part-00000.jsonl`` holds what became of the first rows of the input.

A header line says of which rows, by which judge and policy; then come the lines of ``sampled.jsonl``, of
``pair_outcomes.jsonl`` and of its timings, as they stand there when all parts are put together.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from flexreward.errors import OutputError
from flexreward.files.outcome_file import timings_path
from flexreward.files.outcomes import check_header, encode, request_digest
from flexreward.files.samples import Sample
from flexreward.files.whole import replaced
from flexreward.fingerprint import digest
from flexreward.pairs.build import OUTCOMES
from flexreward.policy.sampled import SAMPLED

PARTS = "parts"
REMEDY = "take the old ones, another --out, or --overwrite"


class Lines(NamedTuple):
    """What became of the rows of a part: whole lines."""

    sampled: bytes
    outcomes: bytes
    timings: bytes


def part_path(folder: Path, number: int) -> Path:
    """Where a part is written, by its place in the input."""
    return folder / PARTS / f"part-{number:05d}.jsonl"


def rows_digest(samples: Iterable[Sample]) -> str:
    """Names the rows of a part: two that differ in it ask something else."""
    return digest([[sample.id, request_digest(sample.request())] for sample in samples])[:16]


def part_file(who: Mapping[str, Any], number: int, rows: str, lines: Lines) -> bytes:
    """A part as it is written.

    Args:
        who: Judge, template, policy and how pairs are chosen: what all parts of a run have in common.
        rows: Their digest.
    """
    counts = {name: text.count(b"\n") for name, text in lines._asdict().items()}
    return b"".join((encode({**who, "part": number, "rows": rows, "lines": counts}), *lines))


def standing(folder: Path, who: Mapping[str, Any]) -> dict[int, str]:
    """The parts that are there, each with the digest of its rows.

    Raises:
        OutputError: One is another judge's or policy's, or chose pairs in another way.
    """
    found: dict[int, str] = {}
    for path in sorted((folder / PARTS).glob("part-*.jsonl")):
        with path.open("rb") as file:
            header = check_header(path, file.readline())
        for name in who.keys() - {"flexreward"}:
            if header.get(name) != who[name]:
                raise OutputError(f"{path}: is of another {name}; give another --out, or --overwrite")
        found[header["part"]] = header["rows"]
    return found


def drop_halves(paths: Iterable[Path]) -> None:
    """Remove parts that are not whole, as they are found where a file is written in place."""
    for path in paths:
        header, end, body = path.read_bytes().partition(b"\n")
        if not end or body.count(b"\n") != sum(json.loads(header)["lines"].values()):
            path.unlink()


def other_rows(number: int) -> OutputError:
    """A part that is there holds other rows than the input has at its place."""
    return OutputError(
        f"part-{number:05d}.jsonl: was made of other rows than stand there now: the samples or --part-rows changed; "
        f"{REMEDY}"
    )


def put_together(folder: Path, count: int, who: Mapping[str, Any]) -> None:
    """Write the files that one machine writes, from the first ``count`` parts, and remove the parts.

    Killed in between and run again it ends in the same: the outcomes come last, and the parts go after them.

    Raises:
        OutputError: There are more parts than the input has rows for.
    """
    if part_path(folder, count).exists():
        raise other_rows(count)
    outcomes = folder / OUTCOMES
    policy = {name: who[name] for name in ("flexreward", "policy") if name in who}
    judge = {name: who[name] for name in ("flexreward", "judge", "template")}
    if "policy" in who:
        _joined(folder / SAMPLED, encode(policy), (_lines(folder, i, "sampled") for i in range(count)))
    _joined(timings_path(outcomes), b"", (_lines(folder, i, "timings") for i in range(count)))
    _joined(outcomes, encode(judge), (_lines(folder, i, "outcomes") for i in range(count)))
    shutil.rmtree(folder / PARTS)


def _joined(path: Path, header: bytes, parts: Iterable[Iterator[bytes]]) -> None:
    with ExitStack() as files:
        file = files.enter_context(replaced(path))
        file.write(header)
        for lines in parts:
            file.writelines(lines)


def _lines(folder: Path, number: int, name: str) -> Iterator[bytes]:
    with part_path(folder, number).open("rb") as file:
        counts: dict[str, int] = json.loads(file.readline())["lines"]
        for other, count in counts.items():
            for _ in range(count):
                line = file.readline()
                if other == name:
                    yield line
            if other == name:
                return
