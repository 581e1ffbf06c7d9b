"""What a policy has drawn, as a file: a header that names the policy, then one line a prompt, in the input's order.

A line holds ``id, request, completions, origins`` and what else the row has; ``prompt`` too, unless it brings media,
which stay where they are: the file is read beside the prompts that it was drawn for. A prompt that could not be
completed has ``failure: {reason, detail}`` in place of completions.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

from flexreward.errors import EngineError, JudgeError, OutputError
from flexreward.files.appended import AppendedFile
from flexreward.files.outcomes import read_outcomes, request_digest
from flexreward.files.samples import Origin, Sample
from flexreward.inflight import read_ahead
from flexreward.policy.asking import conversation_of
from flexreward.policy.policy import Drawn, Policy
from flexreward.types import Message, Reason, Unscored

SAMPLED = "sampled.jsonl"
FIELDS = ("id", "request", "prompt", "completions", "origins", "failure")
ROWS_AHEAD = 16
"""Rows read and decoded before they are asked for."""


async def sample_to_file(
    policy: Policy,
    prompts: Iterable[Sample],
    path: Path,
    *,
    overwrite: bool = False,
    on_drawn: Callable[[Drawn], None] = lambda drawn: None,
) -> AsyncIterator[Drawn]:
    """All prompts with their completions, in order: those that ``path`` holds as they stand there, the rest drawn and
    written as they end.

    Args:
        prompts: Without completions.
        on_drawn: Called with each that is new, once it is written.

    Raises:
        OutputError: ``path`` holds what another policy drew, or for other prompts.
        JudgeError: The policy's engine failed; what was drawn before is kept.
    """
    with AppendedFile(path, policy.header, parts=("policy",), kind="completions", overwrite=overwrite) as file:
        async with aclosing(cast(Any, read_ahead(prompts, size=ROWS_AHEAD))) as stream:
            kept = read_outcomes(path)
            first: Sample | None = None
            async for sample in stream:
                if (row := next(kept, None)) is None:
                    first = sample
                    break
                yield Drawn(
                    sample=(found := _joined(sample, row, path, policy.recipe.system))[0], failure=found[1], cached=True
                )
            if first is None:
                return
            async with aclosing(cast(Any, policy.complete_all(_chained(first, stream)))) as drawn:
                try:
                    async for one in drawn:
                        file.append(_row(one))
                        on_drawn(one)
                        yield one
                except EngineError as error:
                    raise JudgeError(
                        f"the policy {policy.recipe.model} failed: {error}; {path} keeps what was drawn: run the same "
                        "again to go on"
                    ) from error


def read_sampled(prompts: Iterable[Sample], path: Path, *, system: str = "") -> Iterator[Sample]:
    """The prompts with the completions that ``path`` holds for them; those that have none are left out.

    Args:
        system: The policy's.

    Raises:
        OutputError: It holds fewer, or for other prompts.
    """
    rows = read_outcomes(path)
    for sample in prompts:
        if (row := next(rows, None)) is None:
            raise OutputError(f"{path}: holds no completions of {sample.id!r} and what follows; draw them first")
        found, failure = _joined(sample, row, path, system)
        if failure is None:
            yield found


async def _chained(first: Sample, rest: AsyncIterable[Sample]) -> AsyncIterator[Sample]:
    yield first
    async for sample in rest:
        yield sample


def _joined(sample: Sample, row: Mapping[str, Any], path: Path, system: str) -> tuple[Sample, Unscored | None]:
    sample = replace(sample, prompt=conversation_of(sample, system))
    if (row["id"], row["request"]) != (sample.id, request_digest(sample.request())):
        raise OutputError(
            f"{path}: holds completions of {row['id']!r}, where the input now has another {sample.id!r}: the prompts "
            "changed; take the old ones, another --out, or --overwrite"
        )
    if failure := row.get("failure"):
        return sample, Unscored(reason=Reason(failure["reason"]), detail=failure["detail"])
    completions = tuple((Message(**turns[0]),) for turns in row["completions"])
    return replace(sample, completions=completions, origins=tuple(Origin(**one) for one in row["origins"])), None


def _row(drawn: Drawn) -> dict[str, Any]:
    sample = drawn.sample
    asked = replace(sample, completions=())
    row: dict[str, Any] = {"id": sample.id, "request": request_digest(asked.request())}
    if not (sample.media or asked.inside):
        row["prompt"] = [
            {"role": turn.role, "content": turn.content} for turn in cast(tuple[Message, ...], sample.prompt)
        ]
    if drawn.failure:
        row["failure"] = {"reason": drawn.failure.reason.value, "detail": drawn.failure.detail}
    else:
        row["completions"] = [
            [{"role": turn.role, "content": turn.content} for turn in cast(Any, text)] for text in sample.completions
        ]
        row["origins"] = [asdict(one) for one in sample.origins]
    molecules = list(sample.molecules) or None
    more = {"rubric": sample.rubric, "reference": sample.reference, "molecules": molecules}
    return row | {name: value for name, value in more.items() if value is not None} | dict(sample.extra)
