"""A long job: requests in, lines of the outcome file out, in order, each as soon as it and all before it are there."""

from __future__ import annotations

from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from flexreward.errors import SampleError
from flexreward.files.outcome_file import OutcomeFile
from flexreward.files.outcomes import Item, header_of
from flexreward.files.samples import Sample
from flexreward.inflight import read_ahead
from flexreward.templates.fitting import fitting_id
from flexreward.types import JudgeRequest, Judgment, Media

if TYPE_CHECKING:
    from flexreward.judge import Judge
    from flexreward.templates import Template

T = TypeVar("T")
OnRow = Callable[[Judgment], None]
Columns = Callable[[Judgment], Mapping[str, Any]]
Rounds = Callable[[Sequence[int]], Iterable[Item]]
"""The items of the next round, by how many there were in each before it: they may follow from what is written."""

ROWS_AHEAD = 16
"""Rows read and decoded before they are asked for."""


def items_of(samples: Iterable[Sample], template: Template) -> Iterator[Item]:
    """One request a sample, all of its completions together.

    Raises:
        SampleError: The template does not judge so many completions, or does not show such media.
    """
    for sample in samples:
        count = len(sample.completions)
        if template.num_completions not in (None, count) or (template.num_completions is None and count < 2):
            wanted = template.num_completions or "two or more"
            raise SampleError(
                f"{sample.where}: has {count} completion(s), and the template {template.id} judges {wanted}; "
                f"{_remedy(sample)}"
            )
        slots = [slot for slot in template.media if "_" not in slot]
        if (kinds := [medium.kind for medium in sample.media]) != slots:
            raise SampleError(
                f"{sample.where}: brings {_listed(kinds)} with its prompt, and the template {template.id} shows "
                f"{_listed(slots)} there; {_remedy(sample)}"
            )
        request = sample.request()
        if sample.inside or sample.molecules or template.media or template.molecules == "placed":
            try:
                template.render(request)
            except SampleError as error:
                raise SampleError(f"{sample.where}: {error}; {_remedy(sample)}") from error
        yield Item(request, sample.extra)


def fitting(sample: Sample) -> str:
    """The bundled template for rows like this one, by what its completions are and whether there is an image.

    Raises:
        SampleError: None shows such a row.
    """
    if (found := fitting_id(sample.completions, sample.media)) is None:
        raise SampleError(f"{sample.where}: no bundled template shows {_brought(sample)}; {_remedy(sample)}")
    return found


def _remedy(sample: Sample) -> str:
    found = fitting_id(sample.completions, sample.media)
    if found is not None:
        return f"--template {found} takes such rows"
    return (
        "--template takes a file whose user turn has a slot for each, as <image> or <video_1>; or let those of the "
        "prompt stand in its messages as parts"
    )


def _brought(sample: Sample) -> str:
    kinds = [one.kind if isinstance(one, Media) else "text" for one in sample.completions]
    return f"{_listed(kinds)} as completions with {_listed([medium.kind for medium in sample.media])} of the prompt"


def _listed(kinds: Sequence[str]) -> str:
    return ", ".join(kinds) or "no media"


async def judge_to_file(
    judge: Judge,
    items: Iterable[Item] | AsyncIterable[Item],
    path: Path,
    *,
    overwrite: bool = False,
    max_in_flight: int = 64,
    on_row: OnRow = lambda judgment: None,
    on_resume: Callable[[int], None] = lambda num_done: None,
    columns: Columns = lambda judgment: {},
) -> None:
    """Judge what ``path`` does not hold yet, and append it.

    A bad row of the input is raised after the rows before it were judged and written.

    Args:
        items: Rows of a file; or what comes one by one, such as from a policy that samples beside the judging.
        on_row: Called with each judgment once it is written.
        on_resume: Called once with the number of rows that were there already.
        columns: What is written at the end of a line, from its judgment.
    """
    with OutcomeFile(path, header_of(judge), overwrite=overwrite) as file:
        if isinstance(items, AsyncIterable):
            remaining = file.remaining_of(items, on_resume)
        else:
            remaining = read_ahead(file.remaining(items, on_resume), size=ROWS_AHEAD)
        await _append(judge, remaining, file, max_in_flight, on_row, columns)


async def judge_rounds_to_file(
    judge: Judge,
    rounds: Rounds,
    path: Path,
    *,
    overwrite: bool = False,
    max_in_flight: int = 64,
    on_row: OnRow = lambda judgment: None,
    on_resume: Callable[[int], None] = lambda num_done: None,
    columns: Columns = lambda judgment: {},
) -> None:
    """``judge_to_file`` in rounds until one is empty: all of a round stands in the file before the next begins.

    Killed at any point and run again it ends in the same bytes, for a round follows from those before it alone.

    Args:
        on_resume: Called with the number of rows that were there already, again where a later round has some.
    """
    counts: list[int] = []
    num_there = num_items = 0

    def counted(items: Iterable[Item]) -> Iterator[Item]:
        nonlocal num_items
        for item in items:
            num_items += 1
            yield item

    def resumed(num_done: int) -> None:
        nonlocal num_there
        num_there += num_done
        if num_done or not counts:
            on_resume(num_there)

    with OutcomeFile(path, header_of(judge), overwrite=overwrite) as file:
        while True:
            num_items = 0
            left = file.remaining(counted(rounds(tuple(counts))), resumed, after=sum(counts), more=True)
            await _append(judge, read_ahead(left, size=ROWS_AHEAD), file, max_in_flight, on_row, columns)
            if not num_items:
                break
            counts.append(num_items)
        for _ in file.remaining((), lambda num_done: None, after=sum(counts)):  # nothing may stand after the last
            pass


async def _append(
    judge: Judge,
    remaining: AsyncIterator[Item],
    file: OutcomeFile,
    max_in_flight: int,
    on_row: OnRow,
    columns: Columns,
) -> None:
    in_flight: deque[Item] = deque()

    async def requests(left: AsyncIterable[Item]) -> AsyncIterator[JudgeRequest]:
        async for item in left:
            in_flight.append(item)
            yield item.request

    # All closed at once when this is interrupted, so that nothing goes on being bought.
    async with (
        aclosing(_generator(remaining)) as left,
        aclosing(_generator(requests(left))) as rows,
        aclosing(_generator(judge.judge_all(rows, max_in_flight=max_in_flight))) as judgments,
    ):
        async for judgment in judgments:
            item = in_flight.popleft()
            more = columns(judgment)
            file.add(judgment, item._replace(extra={**item.extra, **more}) if more else item)
            on_row(judgment)


async def judge_items(judge: Judge, items: Iterable[Item], *, max_in_flight: int = 64) -> list[Judgment]:
    """Judgments of a few items, nothing written: what an estimate measures."""
    requests = (item.request for item in items)
    async with aclosing(_generator(judge.judge_all(requests, max_in_flight=max_in_flight))) as judgments:
        return [judgment async for judgment in judgments]


def _generator(items: AsyncIterator[T]) -> AsyncGenerator[T, None]:
    return cast("AsyncGenerator[T, None]", items)
