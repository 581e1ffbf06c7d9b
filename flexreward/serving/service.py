"""The service behind every route: requests are admitted, judged by the template that fits, and counted as rewards."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from time import perf_counter
from typing import Any, cast

from flexreward.engines.base import Engine, Prompt, Sampling
from flexreward.engines.ray import SHARED
from flexreward.errors import (
    BusyError,
    DeadlineError,
    EngineError,
    OutputError,
    RecipeError,
    RefusedError,
    SampleError,
)
from flexreward.files.outcomes import header_of
from flexreward.judge import Judge
from flexreward.ledger import Ledger
from flexreward.reward import reward
from flexreward.serving.board import Tally
from flexreward.serving.contract import Caller, Judged, Rewarded, RewardItem
from flexreward.serving.gate import Gate
from flexreward.serving.judges import Judges, OpenJudge
from flexreward.templates import template_ids
from flexreward.types import JudgeRequest, Judgment, OrderOutcome, Reason, Reply, Unscored, Verdict

GRACE_S = 5.0
"""After a judgment's own deadline, for what watches over no deadline itself."""
log = logging.getLogger(__name__)

GroupRewards = Callable[["JudgeService", Sequence[RewardItem], Caller, str, float], Awaitable[list[Rewarded]]]
"""Rewards from comparing the members of groups: service, items, caller, name of the judge, seconds."""


class JudgeService:
    """``contract.Service`` over engines in this process or behind handles.

    Args:
        judges: By name; the first answers where none is named.
        deadline_s: Longest time for a call.
        share_verdicts: Whether callers find each other's replies.
        group_rewards: Where rewards come from comparing; without it each completion is scored by itself.
        tally: Where judgments and refusals are counted.
        gate: Where callers wait, or are refused, while a judge sleeps.
    """

    def __init__(
        self,
        judges: Mapping[str, OpenJudge],
        *,
        ledger: Ledger,
        deadline_s: float,
        share_verdicts: bool = False,
        group_rewards: GroupRewards | None = None,
        tally: Tally | None = None,
        gate: Gate | None = None,
    ) -> None:
        self.judges = Judges(judges, ledger=ledger, share_verdicts=share_verdicts)
        self.deadline_s = deadline_s
        self._group_rewards = group_rewards
        self.tally = tally or Tally()
        self.gate = gate or Gate()

    async def rewards(
        self, items: Sequence[RewardItem], *, caller: Caller, judge: str = "", deadline_s: float | None = None
    ) -> list[Rewarded]:
        if self._group_rewards is not None:
            judge = self.judges.name_of(judge)
            self.judges.named(judge)
            until = self._until(deadline_s)
            async with self.gate.entered(judge, until=until) as is_inside:
                left_s = until - asyncio.get_running_loop().time()
                if not is_inside or left_s <= 0:
                    asleep = "the judge was asleep until time was up"
                    return [Rewarded(reward=None, reason=Reason.DEADLINE, detail=asleep)] * len(items)
                return await self._group_rewards(self, items, caller, judge, left_s)
        requests = [request_of(item) for item in items]
        for i, request in enumerate(requests):
            self.judges.check(request, caller=caller, judge=judge, where=f"completions[{i}]")
        found: list[Rewarded | None] = [None] * len(items)
        async for one in self.judge(requests, caller=caller, judge=judge, deadline_s=deadline_s):
            found[one.index] = rewarded(one.judgment)
        return [one for one in found if one is not None]

    def header(self, *, caller: Caller, judge: str = "", template: str) -> dict[str, Any]:
        self.judges.named(judge)
        _check_template(template)
        return header_of(self.judges.open(self.judges.name_of(judge), template, caller))

    async def judge(
        self,
        requests: Sequence[JudgeRequest],
        *,
        caller: Caller,
        judge: str = "",
        template: str = "",
        deadline_s: float | None = None,
    ) -> AsyncIterator[Judged]:
        """As in the contract, and what cannot be shown is unscored (``Reason.REFUSED``): the others are judged."""
        opened = self.judges.named(judge)
        if template:
            _check_template(template)
        until = self._until(deadline_s)
        async with self.gate.entered(self.judges.name_of(judge), until=until) as is_inside:
            if not is_inside:
                for i, request in enumerate(requests):
                    yield await self._judged(i, request, template, caller, judge, until)
                return
            async with aclosing(self._inside(opened, requests, caller, judge, template, until)) as found:
                async for one in found:
                    yield one

    async def _inside(
        self,
        opened: OpenJudge,
        requests: Sequence[JudgeRequest],
        caller: Caller,
        judge: str,
        template: str,
        until: float,
    ) -> AsyncGenerator[Judged, None]:
        """Judgments of requests that were let in."""
        self._admit(judge, len(requests), until - asyncio.get_running_loop().time())
        left = len(requests)
        tasks = [
            asyncio.create_task(self._judged(i, request, template, caller, judge, until))
            for i, request in enumerate(requests)
        ]
        try:
            for task in asyncio.as_completed(tasks):
                judged = await task
                left -= 1
                opened.admission.done()
                yield judged
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            opened.admission.done(left)

    async def write(
        self, prompt: Prompt, sampling: Sampling, *, judge: str = "", deadline_s: float | None = None
    ) -> AsyncGenerator[Reply, None]:
        """What a judge's model itself writes, each reply as it ends. Nothing of it is kept or found again.

        Raises:
            EngineError: The engine cannot, or did not in time.
            BusyError, AsleepError: As ``rewards`` does.
        """
        until = self._until(deadline_s)
        async with self.gate.entered(self.judges.name_of(judge), until=until) as is_inside:
            if not is_inside:
                raise DeadlineError("the judge was asleep until time was up")
            with self.admitted(judge, 1, deadline_s=until - asyncio.get_running_loop().time()):
                # In a task of its own: whoever reads may be another task each time, and a limit of time holds for one.
                written: asyncio.Queue[Reply | Exception | None] = asyncio.Queue()
                work = asyncio.create_task(self._write(prompt, sampling, judge, until, written.put_nowait))
                try:
                    while (found := await written.get()) is not None:
                        if isinstance(found, Exception):
                            raise found
                        yield found
                finally:
                    work.cancel()
                    await asyncio.gather(work, return_exceptions=True)

    async def _write(
        self,
        prompt: Prompt,
        sampling: Sampling,
        judge: str,
        until: float,
        put: Callable[[Reply | Exception | None], None],
    ) -> None:
        """Hand on each reply, then what ended them."""
        try:
            async with asyncio.timeout_at(until), self.judges.named(judge).admission.lane() as count:
                async with aclosing(self._written(prompt, sampling, judge)) as replies:
                    async for reply in replies:
                        put(reply)
                count()
            put(None)
        except TimeoutError:
            put(DeadlineError("the reply did not come in time"))
        except Exception as error:
            put(error)

    async def _written(self, prompt: Prompt, sampling: Sampling, judge: str) -> AsyncGenerator[Reply, None]:
        """All replies are of one model: what stands there now is asked where none had come yet."""
        num_written = 0
        while True:
            engine = self.judges.named(judge).engine
            engine.can.check(prompt)
            _check(sampling, engine, prompt)
            try:
                async with aclosing(cast(Any, engine.generate(prompt, sampling))) as replies:
                    async for reply in replies:
                        num_written += 1
                        yield reply
                if not num_written:
                    raise EngineError("the engine ended without a reply")
                return
            except EngineError:
                if not self.judges.followed(judge, engine) or num_written:
                    raise

    @contextmanager
    def admitted(self, judge: str, count: int, *, deadline_s: float) -> Iterator[Callable[[], None]]:
        """Accept so many judgments, to be asked for one by one. To be called as each has ended, so that others get its
        place: what is yielded.

        Raises:
            BusyError: They could not be answered in time.
        """
        self._admit(judge, count, deadline_s)
        admission, left = self.judges.named(judge).admission, count

        def ended() -> None:
            nonlocal left
            if left:  # a group may turn out to take more than was expected
                left -= 1
                admission.done()

        try:
            yield ended
        finally:
            admission.done(left)

    async def ask(self, request: JudgeRequest, *, caller: Caller, judge: str, until: float) -> Judgment:
        """A judgment that is admitted already, by then."""
        return (await self._judged(0, request, "", caller, judge, until)).judgment

    def waiting(self) -> dict[str, int]:
        """Judgments accepted and not yet answered, by judge."""
        return {name: one.admission.accepted for name, one in self.judges.items()}

    def _admit(self, judge: str, count: int, deadline_s: float) -> None:
        try:
            self.judges.named(judge).admission.admit(count, deadline_s=deadline_s)
        except BusyError:
            self.tally.refused(self.judges.name_of(judge))
            raise

    def _until(self, deadline_s: float | None) -> float:
        """When a call's time is up, by the event loop's clock."""
        return asyncio.get_running_loop().time() + min(deadline_s or self.deadline_s, self.deadline_s)

    async def _judged(
        self, index: int, request: JudgeRequest, template: str, caller: Caller, name: str, until: float
    ) -> Judged:
        while True:
            engine = self.judges.named(name).engine
            judgment = await self._judgment(request, template, caller, name, until)
            # Half of it may be from before: all of it is asked anew of what stands there now.
            if not (_failed(judgment) and self.judges.followed(name, engine)):
                break
        self.tally.judged(self.judges.name_of(name), request, judgment)
        return Judged(index=index, judgment=judgment)

    async def _judgment(
        self, request: JudgeRequest, template: str, caller: Caller, name: str, until: float
    ) -> Judgment:
        began = perf_counter()
        SHARED.set(_shared(request))  # of this task alone
        judge = self.judges.open(name, template or self.judges.usual(name), caller)
        try:
            judge = self.judges.open(name, template or self.judges.fitting(request, name), caller)
            async with asyncio.timeout_at(until + GRACE_S):
                async with self.judges.named(name).admission.lane() as count:
                    if asyncio.get_running_loop().time() >= until:
                        return _late(judge, request, began)
                    judgment = await judge.judge(request, until=until)
                    if not judgment.cached:
                        count()
                    return judgment
        except TimeoutError:
            return _late(judge, request, began)
        except SampleError as error:
            failure = Unscored(reason=Reason.REFUSED, detail=str(error))
        except EngineError as error:
            failure = Unscored(reason=error.reason, detail=str(error))
        except OutputError as error:  # the caller cannot mend the server's disk
            log.error("%s", error)
            failure = Unscored(reason=Reason.ENGINE, detail="the server cannot keep what it buys")
        return _unscored(judge, request, failure, began)


def _check_template(name: str) -> None:
    """A file's path is no name that may come from outside."""
    if name not in template_ids():
        raise RecipeError(f"template: no template {name!r}, expected one of {', '.join(template_ids())}")


def request_of(item: RewardItem) -> JudgeRequest:
    """One completion, to be scored by itself."""
    return JudgeRequest(
        id=item.id,
        prompt=item.prompt,
        completions=(item.completion,),
        media=item.media,
        rubric=item.rubric,
        reference=item.reference,
        molecules=item.molecules,
    )


def rewarded(judgment: Judgment) -> Rewarded:
    """What a judgment of one completion says of it."""
    outcome = judgment.outcome
    votes = [vote for order in judgment.orders for vote in order.votes]
    return Rewarded(
        reward=reward(judgment),
        score=outcome.scores[0] if isinstance(outcome, Verdict) else None,
        reason=outcome.reason if isinstance(outcome, Unscored) else None,
        detail=outcome.detail if isinstance(outcome, Unscored) else "",
        reasoning=next((vote.reply.text for vote in votes if vote.reply.text), ""),
        tokens=judgment.completion_tokens,
        seconds=judgment.seconds,
    )


def _shared(request: JudgeRequest) -> str:
    """What the prompts about this request have in common with those about other completions of the same prompt."""
    return repr((request.prompt if not request.media else [one.digest for one in request.media], request.rubric))


def _check(sampling: Sampling, engine: Engine, prompt: Prompt) -> None:
    """Refuse what the engine would have to leave out.

    Raises:
        RefusedError: It names what.
    """
    lacking = {
        "continue_final_message": bool(prompt.prefix) and not engine.can.prefix,
        "logprobs": bool(sampling.logprobs) and not engine.can.logprobs,
        "structured_outputs": sampling.pattern is not None and not engine.can.constrained,
    }
    for name, is_lacking in lacking.items():
        if is_lacking:
            raise RefusedError(f"{name}: the judge's engine has none; leave it out")


def _failed(judgment: Judgment) -> bool:
    return isinstance(judgment.outcome, Unscored) and judgment.outcome.reason.is_infrastructure


def _late(judge: Judge, request: JudgeRequest, began: float) -> Judgment:
    late = Unscored(reason=Reason.DEADLINE, detail="it was still waiting when time was up")
    return _unscored(judge, request, late, began)


def _unscored(judge: Judge, request: JudgeRequest, failure: Unscored, began: float) -> Judgment:
    order = tuple(range(len(request.completions)))
    return Judgment(
        request_id=request.id,
        template=judge.template.id,
        outcome=failure,
        orders=(OrderOutcome(order=order, outcome=failure, votes=()),),
        judge=judge.fingerprint,
        calibrator=judge.calibrator,
        seconds=perf_counter() - began,
    )
