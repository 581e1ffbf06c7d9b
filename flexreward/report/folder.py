"""A run folder read twice: once for the facts of every line, once for the few whole lines that a page shows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from flexreward.errors import OutputError

PART = re.compile(r"(?P<sample>.+)[#:/](?P<indices>\d+(?:[-,]\d+)*)", re.DOTALL)
"""``q1#0`` is the first completion of sample ``q1``, ``q1#0-3`` its first against its fourth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """What the whole page needs to know of one outcome; the rest stays in the file."""

    place: int
    """Byte at which its line begins."""
    id: str
    sample: str
    indices: tuple[int, ...]
    """Which completions of the sample were judged, in the request's order; empty means all."""
    template: str
    scores: tuple[float, ...] | None
    orders: tuple[tuple[float, ...] | None, ...]
    """The scores of each order, by completion."""
    reason: str
    num_replies: int
    num_read: int
    """Replies that hold a verdict."""

    @property
    def winners(self) -> tuple[int | None, ...]:
        """The winner of each order that could be read, ``None`` for a tie."""
        return tuple(best(scores) for scores in self.orders if scores)


class OutcomeLines(NamedTuple):
    """An outcome file, and the first line of it."""

    path: Path
    header: Mapping[str, Any]


class SampleFact(NamedTuple):
    place: int
    kind: str
    truth: str | None
    right: tuple[bool | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """The facts of a run folder."""

    path: Path
    summary: Mapping[str, Any]
    curve: Mapping[str, Any] = field(default_factory=dict)
    """Best-of-N with its intervals, where the summary holds none."""
    pointwise: tuple[Fact, ...] = ()
    compared: tuple[Fact, ...] = ()
    samples: Mapping[str, SampleFact] = field(default_factory=dict)
    dropped: Mapping[str, str] = field(default_factory=dict)
    """Reason by id, as the pair builder wrote it."""
    samples_path: Path | None = None
    files: Mapping[str, OutcomeLines] = field(default_factory=dict)
    """Where ``pointwise`` and ``compared`` stand."""


def best(scores: tuple[float, ...]) -> int | None:
    top = max(scores)
    return scores.index(top) if scores.count(top) == 1 else None


def read_folder(path: Path, samples_path: Path | None = None) -> Folder:
    """The facts of every outcome of a run: a folder, or one file that a command wrote with ``--out``.

    Raises:
        OutputError: Something is missing (the message names the command that makes it) or cannot be read.
    """
    judged = (beside(path, "outcomes.jsonl"), _pair_file(path, "pair_outcomes.jsonl"))
    outcomes = [file for file in judged if file.is_file()] or [path] * path.is_file()
    summary = _json(beside(path, "summary.json"))
    _require(path, summary, outcomes)
    curve = _json(beside(path, "curve.json"))
    if samples_path and not samples_path.is_file():
        raise OutputError(f"{samples_path}: no such file; --samples takes the rows that were judged")
    samples_path = samples_path or beside(path, "samples.jsonl")
    samples = dict(_sample_facts(samples_path, curve.get("truth") or "right")) if samples_path.is_file() else {}
    facts: dict[str, list[Fact]] = {"pointwise": [], "compared": []}
    files: dict[str, OutcomeLines] = {}
    for file in outcomes:
        header: dict[str, Any] = {}
        for place, line in read_lines(file):
            if "id" not in line or "status" not in line:
                header = header or line
                continue
            kind = "compared" if max(len(line.get("scores") or ()), *_widths(line), 1) > 1 else "pointwise"
            if files.setdefault(kind, OutcomeLines(file, header)).path == file:
                facts[kind].append(_fact(place, line, samples))
    if path.is_file() and not files:
        raise OutputError(f"{path}: holds no outcomes; name the file or folder that judge, best-of-n or pairs wrote")
    return Folder(
        path=path,
        summary=summary,
        curve=curve,
        pointwise=tuple(facts["pointwise"]),
        compared=tuple(facts["compared"]),
        samples=samples,
        dropped=dict(_dropped(_pair_file(path, "dropped.jsonl"))),
        samples_path=samples_path if samples else None,
        files=files,
    )


def beside(path: Path, name: str) -> Path:
    """Where a run keeps what it calls ``name``: ``runs/a/outcomes.jsonl``, or ``best.outcomes.jsonl`` by best.jsonl."""
    if not path.is_file():
        return path / name
    return path.with_name(f"{path.name.removesuffix('.jsonl').removesuffix('.outcomes')}.{name}")


def _require(path: Path, summary: Mapping[str, Any], outcomes: list[Path]) -> None:
    if not path.exists():
        raise OutputError(
            f"{path}: no such run; `make quickstart` or `flexreward best-of-n SAMPLES --out DIR` makes one"
        )
    if "best_of_n" in summary and "pairs" in summary:  # a quickstart, which is shown whole or not at all
        for file in (path / "samples.jsonl", path / "outcomes.jsonl", _pair_file(path, "pair_outcomes.jsonl")):
            if not file.is_file():
                raise OutputError(f"{file}: missing; `make quickstart` makes it")
    if not outcomes:
        command = f"flexreward judge SAMPLES --out {path / 'outcomes.jsonl'}"
        raise OutputError(f"{path / 'outcomes.jsonl'}: missing; `{command}` makes it")


def _pair_file(path: Path, name: str) -> Path:
    """The pair builder's files stand in the run folder itself, or in its ``pairs``."""
    return path / "pairs" / name if (path / "pairs" / name).is_file() else beside(path, name)


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Every object of a JSONL file with the byte it begins at; a last line that was cut short is left out."""
    place = 0
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                line = json.loads(raw) if raw.strip() else None
            except ValueError as error:
                if not raw.endswith(b"\n"):
                    return
                raise OutputError(
                    f"{path}: line {number}: broken JSON ({error}); run the job that wrote it again"
                ) from error
            if isinstance(line, dict):
                yield place, line
            place += len(raw)


def fetch(path: Path, places: list[int]) -> list[dict[str, Any]]:
    """The whole lines that begin at ``places``."""
    with path.open("rb") as file:
        return [json.loads(file.readline()) for place in places if file.seek(place) == place]


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise OutputError(f"{path}: broken JSON ({error}); run the job that wrote it again") from error
    return found if isinstance(found, dict) else {}


def _fact(place: int, line: dict[str, Any], samples: Mapping[str, SampleFact]) -> Fact:
    name = str(line["id"])
    votes = [vote for order in line.get("orders") or () for vote in order.get("votes") or ()]
    part = None if name in samples else PART.fullmatch(name)
    return Fact(
        place=place,
        id=name,
        sample=part["sample"] if part else name,
        indices=tuple(int(i) for i in re.split("[-,]", part["indices"])) if part else (),
        template=str(line.get("template", "")),
        scores=as_scores(line.get("scores")) if line["status"] == "scored" else None,
        orders=tuple(as_scores(order.get("scores")) for order in line.get("orders") or ()),
        reason=str(line.get("reason") or ""),
        num_replies=len(votes),
        num_read=sum(vote.get("scores") is not None for vote in votes),
    )


def _widths(line: dict[str, Any]) -> list[int]:
    return [len(order.get("order") or ()) for order in line.get("orders") or ()] or [0]


def as_scores(value: object) -> tuple[float, ...] | None:
    if not isinstance(value, list) or not value or not all(isinstance(score, int | float) for score in value):
        return None
    return tuple(float(score) for score in value)


def _sample_facts(path: Path, truth_column: str) -> Iterator[tuple[str, SampleFact]]:
    for number, (place, row) in enumerate(read_lines(path), 1):
        completions = row.get("completions")
        count = len(completions) if isinstance(completions, list) else 0
        right = row.get(truth_column)
        right = right if isinstance(right, list) and len(right) == count else [None] * count
        truth = next((row[name] for name in ("answer", "truth", "reference") if row.get(name) is not None), None)
        yield (
            str(row.get("id", f"row-{number:06d}")),
            SampleFact(
                place=place,
                kind=str(row.get("kind") or ""),
                truth=None if truth is None else str(truth),
                right=tuple(bool(value) if value in (0, 1) else None for value in right),
            ),
        )


def _dropped(path: Path) -> Iterator[tuple[str, str]]:
    for _, line in read_lines(path) if path.is_file() else ():
        if "id" in line:
            yield str(line["id"]), str(line.get("reason") or "dropped")
