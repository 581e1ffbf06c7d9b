"""Replies that already exist, joined to a benchmark's rows and read: no model is called.

{"id": "17", "reply": "<answer>7</answer><answer>4</answer>"} + Row -> Judgment
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from flexreward import __version__
from flexreward.errors import RecipeError, SampleError
from flexreward.evals.base import Benchmark, Row
from flexreward.evals.reply_file import Order, ReplyLine, read_replies
from flexreward.files.columns import shown
from flexreward.fingerprint import digest
from flexreward.order import combine, restore
from flexreward.templates import Template, load_template
from flexreward.types import Judgment, OrderOutcome, Outcome, Reason, Reply, Scale, Unscored, Verdict, Vote
from flexreward.votes import AGGREGATES, aggregate

ReaderName: TypeAlias = Literal["published", "template"]
"""The publisher's reader of replies, or the one of a template."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """How much of a benchmark a file of replies covers."""

    num_rows: int
    num_missing: int
    """Rows without a reply, or with fewer orders or samples than others have: a half-run."""
    first_missing: str = ""

    @property
    def line(self) -> str | None:
        """What is missing, for a person; ``None`` where all is there."""
        if not self.num_missing:
            return None
        return (
            f"{self.num_missing} of {self.num_rows} rows lack replies, the first is {self.first_missing!r}: a half-run"
        )


class RepliesJudge:
    """Stands where a judge would: rows in, judgments out, read from a file. The whole file is held in memory.

    Args:
        reader: ``published`` reads as the benchmark's publisher did, ``template`` as ``template`` says; without one the
            publisher's, where the benchmark has one.
        template: Id or path, instead of the benchmark's; only for the template's reader.
        how: How several samples become one outcome (see ``flexreward.votes``).

    Raises:
        SampleError: A line is no reply, or stands twice.
        RecipeError: There is no such reader, or it takes no template.
    """

    def __init__(
        self,
        path: Path,
        benchmark: Benchmark,
        *,
        reader: ReaderName | None = None,
        template: str | None = None,
        how: str = "mean",
    ) -> None:
        if reader == "published" and benchmark.read is None:
            raise RecipeError(f"--reader published: {benchmark.name} has none of its own; take --reader template")
        if reader not in (None, "published", "template"):
            raise RecipeError(f"--reader {reader}: expected published or template")
        if how not in AGGREGATES:
            raise RecipeError(f"aggregate: {how!r} is unknown, expected one of {', '.join(AGGREGATES)}")
        self.reader: ReaderName = reader or ("template" if template or benchmark.read is None else "published")
        if self.reader == "published" and template:
            raise RecipeError("--reader published takes no --template: leave one of them out")
        self.path = path
        self.benchmark = benchmark
        self.template: Template = load_template(template or benchmark.template)
        self.how = how
        self._lines = read_replies(path)
        self._num_orders = max(len({line.order for line in lines}) for lines in self._lines.values())
        self._num_votes = max(_most_samples(lines) for lines in self._lines.values())
        with path.open("rb") as file:
            self._digest = hashlib.file_digest(file, "sha256").hexdigest()

    @property
    def header(self) -> dict[str, Any]:
        """The first line of an outcome file; the engine is called ``replies``, the model has the file's name."""
        reads = self._template_header
        return {
            "flexreward": __version__,
            "judge": {
                "fingerprint": self.fingerprint,
                "engine": "replies",
                "model": self.path.name,
                "digest": self._digest,
                "reader": self.reader,
                "aggregate": self.how,
                "both_orders": self._num_orders > 1,
                "votes": self._num_votes,
            },
            "template": reads,
        }

    @property
    def fingerprint(self) -> str:
        """The replies, how they are read and how they are counted; the file's name is no part of it."""
        return digest({"replies": self._digest, "reads": self._template_header, "aggregate": self.how})

    def check(self, rows: Iterable[Row]) -> Coverage:
        """Compare the file with all rows of the benchmark, ``--limit`` and ``--subset`` put aside.

        Raises:
            SampleError: A reply belongs to no row, or its order does not fit the row's completions.
        """
        known: list[str] = []
        missing: list[str] = []
        for row in rows:
            known.append(row.request.id)
            if not self._complete(row):
                missing.append(row.request.id)
        unknown = self._lines.keys() - set(known)
        if unknown:
            name = next(name for name in self._lines if name in unknown)
            looks = f"an id is {self.benchmark.key}, such as {known[0]!r}" if known else "it has no rows"
            raise SampleError(
                f"{self._lines[name][0].where}: {self.benchmark.name} has no row {shown(name)}; {looks}"
                + (f" ({len(unknown)} such ids)" if len(unknown) > 1 else "")
            )
        return Coverage(num_rows=len(known), num_missing=len(missing), first_missing=missing[0] if missing else "")

    def judge(self, row: Row) -> Judgment | None:
        """What became of a row; ``None`` where its replies are not all there."""
        if not self._complete(row):
            return None
        votes: dict[Order, list[Vote]] = {}
        for line, order in self._in_order(row):
            votes.setdefault(order, []).append(self._vote(line, order))
        orders = tuple(
            OrderOutcome(order=order, outcome=aggregate(cast, self.how), votes=tuple(cast))
            for order, cast in votes.items()
        )
        return Judgment(
            request_id=row.request.id,
            template=str(self._template_header["id"]),
            outcome=combine(orders, scale=self._scale),
            orders=orders,
            judge=self.fingerprint,
        )

    def _complete(self, row: Row) -> bool:
        votes: dict[Order, int] = {}
        for _, order in self._in_order(row):
            votes[order] = votes.get(order, 0) + 1
        return len(votes) == self._num_orders and min(votes.values()) == self._num_votes

    def _in_order(self, row: Row) -> list[tuple[ReplyLine, Order]]:
        """The row's lines, the given order first, then by sample."""
        given = tuple(range(len(row.request.completions)))
        named = {"given": given, "reversed": given[::-1]}
        lines = []
        for line in self._lines.get(row.request.id, ()):
            order = named[line.order] if isinstance(line.order, str) else line.order
            if tuple(sorted(order)) != given:
                raise SampleError(
                    f"{line.where}: order is {list(order)}, but {row.request.id!r} has {len(given)} completions; "
                    f"expected {list(given)} in some order, 'given' or 'reversed'"
                )
            lines.append((line, order))
        return sorted(lines, key=lambda one: (one[1], one[0].sample))

    def _vote(self, line: ReplyLine, order: Order) -> Vote:
        if line.reply is None:
            absent = Unscored(reason=Reason.NO_ANSWER, detail="the file has null in place of a reply")
            return Vote(outcome=absent, reply=Reply(text="", finish_reason="error"))
        return Vote(outcome=restore(self._read(line.reply, len(order)), order), reply=line.reply)

    def _read(self, reply: Reply, count: int) -> Outcome:
        if self.reader == "template":
            return self.template.parse(reply, count=count)
        assert self.benchmark.read is not None
        scores = self.benchmark.read(reply.text, count)
        if scores is None:
            detail = f"the reader of {self.benchmark.name}'s publisher finds no answer"
            return Unscored(reason=Reason.NO_ANSWER, reply=reply.text, detail=detail)
        assert len(scores) == count, "a reader gives a score a completion"
        return Verdict(scores=scores, scale=self._scale, reply=reply.text)

    @property
    def _scale(self) -> Scale:
        if self.reader == "template":
            return self.template.scale
        low, high = self.benchmark.read_scale
        return Scale(low=low, high=high)

    @property
    def _template_header(self) -> dict[str, Any]:
        scale = [self._scale.low, self._scale.high]
        if self.reader == "template":
            return {"id": self.template.id, "digest": self.template.digest, "scale": scale}
        read = self.benchmark.read
        name = {"reader": f"{read.__module__}:{read.__qualname__}", "scale": scale} if read else {}
        return {"id": f"{self.benchmark.name} as published", "digest": digest(name), "scale": scale}


def _most_samples(lines: list[ReplyLine]) -> int:
    counts: dict[Order | str, int] = {}
    for line in lines:
        counts[line.order] = counts.get(line.order, 0) + 1
    return max(counts.values())
