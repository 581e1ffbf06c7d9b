"""What a page shows, as values that its template only has to lay out.

``report_html`` builds these from a run folder; any other maker of pages may build them too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from flexreward.report.charts import Curve, Histogram
from flexreward.types import Scale


class Segment(NamedTuple):
    text: str
    score: bool
    """Whether this part is a score that was read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyView:
    """One text that the judge wrote, split the way it was read."""

    reasoning: str | None
    final: tuple[Segment, ...]
    problem: str = ""
    """Why no score was read from it, in words; empty where one was."""
    note: str = ""
    """What was done to it, in words; mostly nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionView:
    """One completion with its score."""

    label: str
    text: str | None
    """``None`` where the run folder does not hold the samples."""
    right: bool | None = None
    """Whether it agrees with the known answer; ``None`` where none is known."""
    score: float | None = None
    reason: str = ""
    """Why there is no score, in words."""
    note: str = ""
    """What was done to the prompt before the judge saw it, in words; mostly nothing."""
    replies: tuple[ReplyView, ...] = ()
    picked: bool = False
    """Whether it has the best score. Of several such, one is drawn at random."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderView:
    """What the judge said when it saw the completions in one order."""

    shown: tuple[str, ...]
    """Labels of the completions by slot."""
    scores: tuple[float, ...] | None
    """By completion, in the order of the card; ``None`` where they could not be read."""
    prefers: str | None
    """Label of the best completion, ``None`` for a tie or no scores."""
    replies: tuple[ReplyView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A prompt whose completions were judged one at a time, and the one that was picked."""

    id: str
    kind: str
    prompt: str | None
    truth: str | None
    completions: tuple[CompletionView, ...]
    why: str
    """One sentence: which completion was picked, and why."""

    @property
    def num_right(self) -> int:
        return sum(c.right is True for c in self.completions)

    @property
    def instructive(self) -> bool:
        """Whether the judge had something to choose, and chose well: the card to read first."""
        return self.pick == "right" and self.num_right < len(self.completions)

    @property
    def pick(self) -> str:
        """``right``, ``wrong``, or ``mixed`` where both share the best score; empty where no truth is known."""
        found = {c.right for c in self.completions if c.picked} - {None}
        return "mixed" if len(found) > 1 else {True: "right", False: "wrong", None: ""}[next(iter(found), None)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Completions judged against each other, in one order or several."""

    id: str
    kind: str
    prompt: str | None
    truth: str | None
    completions: tuple[CompletionView, ...]
    orders: tuple[OrderView, ...]
    status: str
    """``kept``, ``tied`` or ``dropped``; ``scored`` or ``unscored`` where no pairs were built."""
    reason: str
    """Short name of why it was not kept, else empty."""
    why: str
    """One sentence for a newcomer."""
    disagreement: str = ""
    """``flipped`` where the orders name different winners, ``half_tied`` where one sees a tie, else empty."""
    note: str = ""
    """What was done to the prompt before the judge saw it, in words; mostly nothing."""


class Count(NamedTuple):
    name: str
    num: int
    words: str
    tone: str
    """``good``, ``plain`` or ``bad``: the colour of its bar."""


class Gauge(NamedTuple):
    """A number of the run with the sentence that explains it."""

    name: str
    value: str
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cards:
    """The cards shown, and how they were chosen from all there are."""

    problems: tuple[Problem, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    total: int = 0
    chosen: str = ""
    """One sentence on the choice; empty where everything is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Everything on the page of one run."""

    title: str
    headline: str
    lead: tuple[str, ...]
    """Sentences under the headline."""
    scale: Scale
    """Of the completions judged one at a time."""
    pair_scale: Scale
    """Of the completions judged against each other."""
    counts: tuple[Count, ...] = ()
    counted: str = ""
    """What ``counts`` are of, as a caption."""
    gauges: tuple[Gauge, ...] = ()
    curve: Curve | None = None
    scores: Histogram | None = None
    problems: Cards = field(default_factory=Cards)
    comparisons: Cards = field(default_factory=Cards)
    facts: tuple[tuple[str, str], ...] = ()
    """Judge, template, files: name and value, at the foot of the page."""
    has_samples: bool = True
    """Whether prompts and completions can be shown."""
