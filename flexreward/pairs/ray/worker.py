"""A worker: it holds policy and judge, and makes parts on the road of one machine, two at a time."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import platform
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TYPE_CHECKING, Any, cast

from flexreward.errors import FlexRewardError, JudgeError, OutputError
from flexreward.files.outcome_file import timings_path
from flexreward.files.outcomes import Item, header_of
from flexreward.files.samples import Sample
from flexreward.jobs.run import judge_to_file
from flexreward.ledger import Ledger
from flexreward.pairs.build import OUTCOMES, pair_items
from flexreward.pairs.ray.parts import Lines, part_file
from flexreward.policy.sampled import SAMPLED, sample_to_file
from flexreward.served import ServedJudge
from flexreward.types import Judgment, Reason, Unscored

if TYPE_CHECKING:
    from flexreward.judge import Judge
    from flexreward.policy.policy import Policy

AT_ONCE = 2
"""Parts of one worker, so that its engine has work while the last replies of a part come."""
TRIES = 3
"""Times that a part is made whose engine failed, each with the engine opened anew; what fails then stands as it is."""
NOTHING = pickle.dumps(None)
PAUSE_S = 1.0
"""Before the next try; it grows with each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """What a worker holds."""

    judge: Judge
    policy: Policy | None
    shared: bool = False
    """Whether the policy's engine is the judge's."""

    async def close(self) -> None:
        await self.judge.engine.close()
        if self.policy is not None and not self.shared:
            await self.policy.engine.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What every worker of a run is told."""

    models: Callable[[Ledger], Models]
    """Opens them, with replies found again in a ledger."""
    per_prompt: int | None
    seed: int
    max_in_flight: int
    """Judgments of a part at once."""
    folder: str
    """Where relative paths begin, if it is there."""

    def who(self, models: Models) -> dict[str, Any]:
        """What all parts of a run have in common."""
        header = header_of(models.judge)
        policy = {} if models.policy is None else {"policy": models.policy.header["policy"]}
        found = {**header, **policy, "pairs": {"per_prompt": self.per_prompt, "seed": self.seed}}
        return cast(dict[str, Any], json.loads(json.dumps(found)))  # as it will be read back

    def opened(self, ledger: Ledger) -> Models:
        with suppress(OSError):
            os.chdir(self.folder)
        return self.models(ledger)


def about(work: Work) -> dict[str, Any] | FlexRewardError:
    """What the parts of a run will say of who made them, or what is wrong: one line, before any row is read."""
    try:
        models = work.opened(Ledger(None))
        asyncio.run(models.close())
        return work.who(models)
    except FlexRewardError as error:
        return error


class Worker:
    """What Ray Data calls with a block at a time.

    Args:
        owner: Handle of the ledger's owner, which all workers ask.
        who: What all parts say of who made them; a worker that is another makes none.
    """

    def __init__(self, work: Work, owner: Any, who: Mapping[str, Any]) -> None:
        from flexreward.serving.remote_ledger import RemoteLedger

        self._work = work
        self._ledger = RemoteLedger(owner)
        self._models = work.opened(self._ledger)
        self._who = who
        self._beat: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()

    async def __call__(self, block: Any) -> Any:
        """What comes of a part, as a table of one line: its ``number``, its ``file``, or what is ``wrong`` in place of
        it. The last block goes as it came."""
        if self._beat is None:
            self._beat = asyncio.create_task(self._ledger.beat())
        (row,) = block.to_pylist()
        if not row["digest"]:
            return _told(row["number"], wrong=row["rows"], is_last=True)
        try:
            samples = pickle.loads(row["rows"])  # noqa: S301  # of our own reader
            lines, num_cached = await self.made(samples)
        except FlexRewardError as error:  # as a value: Ray would try it again
            if isinstance(error, OutputError):  # a path here says nothing elsewhere
                error = OutputError(f"{platform.node()}: {error}")
            return _told(row["number"], wrong=pickle.dumps(error))
        file = part_file(self._who, row["number"], row["digest"], lines)
        return _told(row["number"], file=file, num_judged=lines.outcomes.count(b"\n"), num_cached=num_cached)

    async def made(self, samples: Sequence[Sample]) -> tuple[Lines, int]:
        """What becomes of the rows of a part, and how many judgments of it came from the store.

        Raises:
            SampleError: A row is no prompt, or has not two completions.
            JudgeError: The policy's engine failed.
        """
        for tries in range(1, TRIES + 1):
            models = self._models
            if self._work.who(models) != self._who:
                raise JudgeError(
                    "judge or policy are not on every worker what they are here, or were changed meanwhile"
                )
            seen = _Seen()
            try:
                lines = await self._lines(models, samples, seen)
            except JudgeError as error:
                if tries == TRIES:
                    why = error.__cause__ or error
                    raise JudgeError(f"policy or judge failed: {why}; run the same again to go on") from error
            else:
                if not seen.failed or tries == TRIES:
                    return lines, seen.num_cached
            await asyncio.sleep(PAUSE_S * tries)
            await self._open_anew(models)
        raise AssertionError("the last try returns or raises")

    async def _open_anew(self, old: Models) -> None:
        """In place of ``old``, unless the other part has done so."""
        async with self._opening:
            if self._models is old:
                with suppress(Exception):  # it may be dead
                    await old.close()
                self._models = await asyncio.to_thread(self._work.opened, self._ledger)

    async def _lines(self, models: Models, samples: Sequence[Sample], seen: _Seen) -> Lines:
        judge = models.judge.apart() if isinstance(models.judge, ServedJudge) else models.judge
        with _scratch() as folder:
            outcomes = folder / OUTCOMES
            items: Iterator[Item] | AsyncIterator[Item] = self._items(models, samples)
            if models.policy is not None:
                items = self._drawn(models, models.policy, samples, folder / SAMPLED)
            await judge_to_file(judge, items, outcomes, max_in_flight=self._work.max_in_flight, on_row=seen.add)
            sampled = b"" if models.policy is None else _body(folder / SAMPLED)
            return Lines(sampled, _body(outcomes), timings_path(outcomes).read_bytes())

    def _items(self, models: Models, samples: Sequence[Sample]) -> Iterator[Item]:
        work = self._work
        return pair_items(samples, per_prompt=work.per_prompt, seed=work.seed, template=models.judge.template)

    async def _drawn(
        self, models: Models, policy: Policy, samples: Sequence[Sample], path: Path
    ) -> AsyncIterator[Item]:
        async with aclosing(cast(Any, sample_to_file(policy, samples, path))) as drawn:
            async for one in drawn:
                if one.failure is None:
                    for item in self._items(models, [one.sample]):
                        yield item


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder for the files of a part. Raises OutputError where it cannot be made."""
    try:
        made = TemporaryDirectory(prefix="flexreward-part-")
    except OSError as error:
        raise OutputError(
            f"{gettempdir()}: cannot be written: {error.strerror}; make room and run the same again"
        ) from error
    with made as name:
        yield Path(name)


@dataclass(slots=True)
class _Seen:
    """Of the judgments of a part."""

    failed: bool = False
    """Whether the engine failed in one of them."""
    num_cached: int = 0

    def add(self, judgment: Judgment) -> None:
        self.num_cached += judgment.cached
        votes = [vote.outcome for order in judgment.orders for vote in order.votes]
        outcomes = [judgment.outcome, *(order.outcome for order in judgment.orders), *votes]
        self.failed |= any(isinstance(one, Unscored) and one.reason is Reason.ENGINE for one in outcomes)


def _told(
    number: int,
    *,
    file: bytes = b"",
    wrong: bytes = NOTHING,
    is_last: bool = False,
    num_judged: int = 0,
    num_cached: int = 0,
) -> Any:
    import pyarrow as pa

    return pa.table(
        {
            "number": pa.array([number], pa.int64()),
            "is_last": pa.array([is_last], pa.bool_()),
            "file": pa.array([file], pa.large_binary()),
            "wrong": pa.array([wrong], pa.large_binary()),
            "num_judged": pa.array([num_judged], pa.int64()),
            "num_cached": pa.array([num_cached], pa.int64()),
        }
    )


def _body(path: Path) -> bytes:
    """A file's lines without its header."""
    return path.read_bytes().partition(b"\n")[2]
