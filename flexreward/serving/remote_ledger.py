"""What every other process holds in place of the one ledger: its methods over a handle to the owner
(``flexreward.serving.ledger_owner``), and those of the cohorts and phases that live there too."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from flexreward.errors import BusyError, EngineError, OutputError, UserError
from flexreward.ledger import Claim, Ledger, State
from flexreward.serving.board import Board, Crowd, Delta
from flexreward.serving.cohort import WAITING, Answer, Joining
from flexreward.serving.contract import Rewarded
from flexreward.serving.gate import Gate
from flexreward.serving.ledger_owner import BEAT_S, LAPSE_S, NOWHERE, Call, Door, Holder, Refused, Whereabouts

POLL_S = 15.0
"""Longest that one question waits for an answer; who wants to wait longer asks again."""
REACH_S = 30.0
"""How long an owner that cannot be reached is tried for: it is started anew within seconds."""
log = logging.getLogger(__name__)


class RemoteLedger(Ledger):
    """``Ledger`` over a handle to its owner: ``await handle.METHOD.remote(...)``.

    An owner that cannot be reached hangs nobody: claims end in EngineError, what was bought is handed on unkept.

    Args:
        num_open: HTTP requests that this process has open.
        on_door: Called when the door is to be closed.
        on_crowd: Called now and then where there is something ``counted``.
        gate: What acts on the phases of judges.
        counted: What this process has done since it was last asked.
    """

    def __init__(
        self,
        handle: Any,
        *,
        num_open: Callable[[], int] = lambda: 0,
        on_door: Callable[[], None] = lambda: None,
        on_crowd: Callable[[Crowd], None] = lambda crowd: None,
        gate: Gate | None = None,
        counted: Callable[[], Delta] | None = None,
    ) -> None:
        super().__init__(None)
        self.name = uuid.uuid4().hex
        self._handle = handle
        self._claims: dict[str, str] = {}
        self._num_open = num_open
        self._on_door = on_door
        self._on_crowd = on_crowd
        self._gate = gate
        self._counted = counted
        self._calls: list[tuple[Call, asyncio.Future[Any]]] = []
        self._asking: set[asyncio.Task[None]] = set()

    async def find(self, key: str) -> bytes | None:
        found: bytes | None = await self._ask_with_others("find", key)
        return found

    async def claim(self, key: str) -> Claim:
        holder = Holder(self.name, uuid.uuid4().hex)
        found: Claim = await self._ask_with_others("claim", key, holder)
        if found.state is State.MINE:
            self._claims[key] = holder.claim
        return found

    async def settle(self, key: str, value: bytes) -> bytes:
        self._claims.pop(key, None)
        try:
            stands: bytes = await self._ask_with_others("settle", key, value)
        except (EngineError, OutputError) as error:  # a full disk costs no verdict: who asked cannot mend it
            log.error("%s; what was bought is not kept", error)
            return value
        return value if stands == value else stands

    async def release(self, key: str, failed: bytes | None = None) -> None:
        self._claims.pop(key, None)
        try:
            await self._ask_with_others("release", key, failed, self.name)
        except EngineError as error:
            log.error("%s; it forgets the claim by itself", error)

    async def wait(self, key: str, timeout_s: float | None = None) -> Claim:
        loop = asyncio.get_running_loop()
        until = None if timeout_s is None else loop.time() + timeout_s
        while True:
            left = POLL_S if until is None else min(POLL_S, until - loop.time())
            if left <= 0:
                return Claim(State.PENDING)
            found: Claim = await self.ask("wait", key, left, within_s=left + REACH_S if until is None else left + 1)
            if found.state is not State.PENDING:
                return found

    async def board(self) -> Board:
        """What all copies have done.

        Raises:
            EngineError: The owner cannot be reached.
        """
        found: Board = await self.ask("board", within_s=LAPSE_S)
        return found

    async def beat(self) -> None:
        """Signs of life, for as long as this process lives."""
        while True:
            try:
                await self.sign()
                if self._counted is not None:
                    self._on_crowd(await self.ask("count", self.name, self._counted(), within_s=LAPSE_S))
            except EngineError as error:
                log.error("%s", error)
            await asyncio.sleep(BEAT_S)

    async def sign(self) -> None:
        """One sign of life, and what is told in return.

        Raises:
            EngineError: The owner cannot be reached.
        """
        at = self._gate.at() if self._gate is not None else NOWHERE
        door: Door = await self.ask("alive", self.name, self._claims, self._num_open(), at, within_s=LAPSE_S)
        if door.closing:
            self._on_door()
        if self._gate is not None:
            self._gate.tell(door.rests)

    async def _ask_with_others(self, method: str, *arguments: Any) -> Any:
        """``ask``, in one call with all that is asked in the same turn of the event loop: a call for many rewards
        claims them all at once."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        if not self._calls:
            loop.call_soon(self._send)
        self._calls.append((Call(method, arguments), answer))
        return await answer

    def _send(self) -> None:
        asked, self._calls = self._calls, []
        task = asyncio.get_running_loop().create_task(self._answered(asked))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _answered(self, asked: Sequence[tuple[Call, asyncio.Future[Any]]]) -> None:
        found: Sequence[Any]
        try:
            found = await self.ask("several", [call for call, _ in asked], within_s=REACH_S)
        except Exception as error:
            found = [error] * len(asked)
        for (_, answer), one in zip(asked, found, strict=True):
            if answer.done():  # whoever asked waits no more
                continue
            if isinstance(one, BaseException):
                answer.set_exception(one)
            else:
                answer.set_result(one)

    async def ask(self, method: str, *arguments: Any, within_s: float) -> Any:
        """What the owner answers; one that cannot be reached is asked again.

        Raises:
            EngineError: It could not be reached in time.
        """
        from ray.exceptions import RayError
        from ray.serve.exceptions import RayServeException

        loop = asyncio.get_running_loop()
        until = loop.time() + within_s
        why = "no answer"
        for tries in range(1, 1000):
            left = until - loop.time()
            if left <= 0:
                break
            try:
                async with asyncio.timeout(left):
                    return await getattr(self._handle, method).remote(*arguments)
            except TimeoutError:
                break
            except (RayError, RayServeException) as error:
                if isinstance(error, OSError | ValueError):  # what the ledger itself raised, such as a full disk
                    raise
                why = type(error).__name__
                await asyncio.sleep(min(0.1 * tries, 1.0))
        raise EngineError(f"the ledger cannot be reached ({why})")


class RemoteCohorts:
    """``Cohorts`` behind the same handle as the ledger. An owner that cannot be reached hangs nobody: whoever waits
    asks again, until its own time is up."""

    def __init__(self, ledger: RemoteLedger) -> None:
        self._ledger = ledger

    async def join(self, joining: Joining, timeout_s: float) -> Answer:
        """Raises as ``Cohorts.join`` does."""
        try:
            found = await self._ledger.ask("cohort", "join", joining, timeout_s, within_s=timeout_s + 1)
        except EngineError:
            return WAITING
        if isinstance(found, Refused):
            raise BusyError(found.message) if found.is_busy else UserError(found.message)
        answer: Answer = found
        return answer

    async def leave(self, key: str, seat: str) -> None:
        await self._told("leave", key, seat)

    async def renew(self, key: str, lease: str) -> bool:
        return await self._told("renew", key, lease)

    async def release(self, key: str, lease: str, rewards: Sequence[Rewarded]) -> bool:
        return await self._told("release", key, lease, tuple(rewards))

    async def _told(self, method: str, *arguments: Any) -> bool:
        """What it says; no, where it cannot be reached: a member that asks again is told."""
        try:
            return await self._ledger.ask("cohort", method, *arguments, within_s=LAPSE_S) is True
        except EngineError:
            return False


class RemotePhases:
    """The phases of judges behind the same handle.

    Each method raises EngineError where the owner cannot be reached.
    """

    def __init__(self, ledger: RemoteLedger) -> None:
        self._ledger = ledger

    async def sleep(self, judge: str, lease_s: float) -> Whereabouts:
        return await self._asked("sleep", judge, lease_s)

    async def wake(self, judge: str) -> Whereabouts:
        return await self._asked("wake", judge)

    async def where(self, judge: str) -> Whereabouts:
        return await self._asked("where", judge)

    async def _asked(self, method: str, *arguments: Any) -> Whereabouts:
        found: Whereabouts = await self._ledger.ask(method, *arguments, within_s=LAPSE_S)
        return found
