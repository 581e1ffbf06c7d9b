"""A run folder: which rows of a benchmark, what they look like, what the judge said of them, what it comes to.

select -> survey (samples.jsonl) -> judge (outcomes.jsonl, resumable) -> summarize (summary.json) -> pages
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flexreward.errors import OutputError, SampleError
from flexreward.evals.base import Benchmark, Row
from flexreward.evals.media_rows import sized
from flexreward.evals.replies import RepliesJudge
from flexreward.evals.rows import item_of
from flexreward.evals.shown import shown
from flexreward.evals.source import Folder, refuse_changed
from flexreward.files.outcome_file import OutcomeFile
from flexreward.files.outcomes import Item, read_header
from flexreward.files.whole import replaced, update_summary
from flexreward.templates import Template
from flexreward.templates.files import nearest

if TYPE_CHECKING:
    from flexreward.evals.calibrate import Calibration


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    """Where the files of one run stand."""

    path: Path

    @property
    def outcomes(self) -> Path:
        return self.path / "outcomes.jsonl"

    @property
    def samples(self) -> Path:
        return self.path / "samples.jsonl"

    @property
    def media(self) -> Path:
        return self.path / "media"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    @property
    def calibrator(self) -> Path:
        return self.path / "calibrator.json"

    def read_summary(self) -> dict[str, Any]:
        """What is known of the run; empty before it is begun."""
        try:
            found = json.loads(self.summary.read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Some rows of a benchmark, in its order."""

    benchmark: Benchmark
    folder: Folder
    subset: str | None = None
    """Only rows of this group."""
    limit: int | None = None
    """Only so many, counted after the subset is taken."""
    image_size: tuple[int, int] | None = None
    """Width and height that every image is brought to (see ``Drawn``)."""

    def rows(self) -> Iterator[Row]:
        """The rows, one at a time.

        Raises:
            SampleError: A file is missing, a row is not what the publisher writes, or there is no such group.
        """
        num_rows = 0
        groups: dict[str, None] = {}
        for row in self.benchmark.rows(self.folder):
            groups[row.group] = None
            if self.subset not in (None, row.group):
                continue
            num_rows += 1
            yield row if self.image_size is None else replace(row, request=sized(row.request, self.image_size))
            if num_rows == self.limit:
                return
        if not num_rows and self.subset is not None:
            named = [group for group in groups if group]
            remedy = nearest(self.subset, named) if named else "leave --subset out: it has no groups"
            raise SampleError(f"--subset {self.subset}: {self.benchmark.name} has no such group, {remedy}")
        if not num_rows:
            raise SampleError(f"{self.folder.path}: holds no rows of {self.benchmark.name}; {self.folder.remedy}")

    def items(self) -> Iterator[Item]:
        """The rows as the judge takes them, with what people said as columns."""
        return map(item_of, self.rows())


def survey(selection: Selection, template: Template | None, run: RunFolder, *, overwrite: bool) -> int:
    """Read all rows once, write them down as they are shown, and count them: before a model is loaded for nothing.

    Raises:
        SampleError: An id stands twice, or the template cannot show the first row.
        OutputError: The folder cannot be written, or holds more rows; what stands there is left as it is.
    """
    seen: set[str] = set()
    with replaced(run.samples) as file:
        for row in selection.rows():
            name = row.request.id
            if name in seen:
                raise SampleError(f"{selection.folder.path}: the id {name!r} stands twice; copy the files again")
            if template is not None and not seen:
                template.render(row.request)
            seen.add(name)
            line = json.dumps(shown(row, run.media), ensure_ascii=False)
            file.write(line.encode("utf-8", "replace") + b"\n")
        num_judged = 0 if overwrite else _num_lines(run.outcomes) - 1
        if num_judged > len(seen):
            raise OutputError(
                f"{run.path}: holds {num_judged} judged rows, more than the {len(seen)} asked for; raise --limit, give "
                "another --out, or --overwrite"
            )
    return len(seen)


def fields_of(selection: Selection) -> dict[str, Any]:
    """What tells this run from another: the benchmark, and the data that its rows come from."""
    return {
        "benchmark": selection.benchmark.name,
        "title": selection.benchmark.title,
        "subset": selection.subset,
        "limit": selection.limit,
        "data": selection.folder.identity(),
    }


def refuse_other(run: RunFolder, fields: Mapping[str, Any], *, overwrite: bool) -> None:
    """Refuse a folder that holds a run of another benchmark, or of other data.

    Raises:
        OutputError: One line that says which.
    """
    was = run.read_summary()
    if overwrite or not was or not run.outcomes.is_file():
        return
    if was.get("benchmark") != fields["benchmark"]:
        raise OutputError(
            f"{run.path}: holds a run of {was.get('benchmark')}, not of {fields['benchmark']}; give another --out, or "
            "--overwrite"
        )
    subset = was.get("subset")
    if subset != fields["subset"]:
        raise OutputError(
            f"{run.path}: holds {f'the subset {subset}' if subset else 'all groups'}, not "
            f"{fields['subset'] or 'all groups'}; give another --out, or --overwrite"
        )
    refuse_changed(run.path, was.get("data") or {}, fields["data"])


def begin(run: RunFolder, fields: Mapping[str, Any], *, overwrite: bool) -> dict[str, Any]:
    """Write down what is about to be done: until it is done, the summary says half-run.

    Returns:
        The summary that stood there, for ``restore``.
    """
    was = run.read_summary()
    kept = {"work": was["work"]} if "work" in was and not overwrite else {}
    _write(run, {**fields, **kept, "rows": 0, "complete": False, "published": {}, "strict": {}})
    return was


def restore(run: RunFolder, summary: Mapping[str, Any]) -> None:
    """Put back what ``begin`` found."""
    if summary:
        _write(run, summary)


def add_work(run: RunFolder, *, judged: int, seconds: float) -> None:
    """Count judgments that were bought, and the time that they took together, over all runs into this folder."""
    was = run.read_summary().get("work") or {"judged": 0, "seconds": 0.0}
    if judged:
        update_summary(run.summary, {"work": {"judged": was["judged"] + judged, "seconds": was["seconds"] + seconds}})


def outcome_file_of(judge: RepliesJudge, run: RunFolder, *, overwrite: bool) -> OutcomeFile:
    """The outcome file for replies that exist: begun anew if the same were read before, refused if it is another's."""
    header = judge.header
    same = False
    if run.outcomes.is_file() and run.outcomes.stat().st_size:
        found = read_header(run.outcomes)
        same = all(found.get(part) == header[part] for part in ("judge", "template"))
    return OutcomeFile(run.outcomes, header, overwrite=overwrite or same)


def write_replies(judge: RepliesJudge, selection: Selection, file: OutcomeFile) -> int:
    """Read the replies of a file; rows that lack some are left out.

    Returns:
        How many rows were written.
    """
    num_rows = 0
    for row in selection.rows():
        judgment = judge.judge(row)
        if judgment is not None:
            file.add(judgment, item_of(row))
            num_rows += 1
    return num_rows


def conclude(run: RunFolder, benchmark: Benchmark, *, seed: int) -> tuple[dict[str, Any], Calibration | None]:
    """Work out the summary, and write it.

    Returns:
        The whole summary, and the calibration, unless it is a half-run.
    """
    from flexreward.evals.summary import summarize

    fields, calibration = summarize(run, benchmark, seed=seed)
    update_summary(run.summary, fields)
    return run.read_summary(), calibration


def finite(value: Any) -> Any:
    """JSON without NaN and infinity, which become ``None``."""
    if isinstance(value, Mapping):
        return {str(key): finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    if hasattr(value, "item"):  # a number of NumPy's
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _num_lines(path: Path) -> int:
    if not path.is_file():
        return 0
    with path.open("rb") as file:
        return sum(1 for _ in file)


def _write(run: RunFolder, summary: Mapping[str, Any]) -> None:
    with replaced(run.summary) as file:
        file.write(json.dumps(summary, indent=2, ensure_ascii=False).encode() + b"\n")
