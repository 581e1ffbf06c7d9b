"""What a benchmark is: rows with what people said of them, and how its source turned a judge's scores into figures.

    folder of the publisher -> rows -> Judge -> outcomes.jsonl -> Table -> published figures | strict figures

Human opinion and judge's opinion have one shape, a number a completion in the order of the request, so that one algebra
serves all: a pair's label is ``(1, 0)``, ``(0, 1)``, a tie ``(1, 1)``, two bad completions ``(0, 0)``; a rating is
``(3.7,)``; a ranking ``(3, 1, 2, 0)``, best highest; one right among many ``(1, 0, 0, 0)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from flexreward.types import JudgeRequest

if TYPE_CHECKING:
    from flexreward.evals.source import Folder
    from flexreward.evals.table import Table

Task: TypeAlias = Literal["rating", "pair", "ranking", "best"]
"""A number for one completion; the better of two; the order of several; the right one among several."""

Orders: TypeAlias = Literal["given", "both", "random"]
"""Completions as the file has them; forward and reversed; or one order drawn for each row from the seed."""

Figures: TypeAlias = Mapping[str, float]
"""Figures by name. A part of the whole carries its name after a slash: ``accuracy/reasoning``."""

Scores: TypeAlias = tuple[float, ...]
"""A score a completion, in the order shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One question of a benchmark."""

    request: JudgeRequest
    """Its id is unique in the benchmark, the same in every run."""
    human: tuple[float, ...]
    """What people said, a number a completion."""
    group: str = ""
    """The part of the benchmark that has a figure of its own: a source data set, a category."""
    systems: tuple[str, ...] = ()
    """What made each completion: the unit of a system-level figure."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """What else the figures need. Plain JSON values. Rows of one ``cluster`` are drawn together in a bootstrap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the rows come from."""

    files: tuple[str, ...]
    """Patterns below the folder, in the publisher's layout."""
    hub: str | None = None
    """The data set's id; ``None`` where there is no official one and ``--data`` is needed."""
    revision: str | None = None
    """Commit that the figures belong to, where it is known."""
    num_rows: int | None = None
    """Rows that the figures belong to; another number is a warning in the summary."""
    licence: str = ""
    remedy: str = ""
    """How a person gets it: the address, the licence click that is owed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """How the source drew its judge's replies."""

    samples: int = 1
    """Replies a row, each in the one order, or both."""
    orders: Orders = "given"
    temperature: float = 0.0
    top_p: float = 1.0
    image_size: tuple[int, int] | None = None
    """Width and height that the source brings every image to, whatever its shape; ``None`` shows them as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """One benchmark: everything that is its own, in one small file."""

    name: str
    title: str
    task: Task
    template: str
    source: Source
    rows: Callable[[Folder], Iterator[Row]]
    """The rows in the publisher's order; media stay undecoded.

    Raises:
        SampleError: A file is missing or a row is not what the publisher writes.
    """
    drawn: Drawn
    published: Callable[[Table], Figures]
    """The figures as the source's code computes them, its quirks included. The docstring names each quirk."""
    quirks: tuple[str, ...] = ()
    """Where ``published`` departs from what one would expect, a line each, for the report."""
    headline: str
    """The figure of ``published`` that judges are ranked by. ``strict`` has a figure of the same name or says none."""
    higher_is_better: bool = True
    read: Callable[[str, int], Scores | None] | None = None
    """The publisher's own reader, for replies that it published: text and number of completions to scores in the order
    shown. ``None`` takes the template's."""
    read_scale: tuple[float, float] = (0.0, 1.0)
    """What the scores of ``read`` lie between."""
    key: str = "id"
    """How a row's id is made of the publisher's fields: what a file of replies calls it."""
