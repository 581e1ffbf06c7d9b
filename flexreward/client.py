"""What a trainer holds: rewards of a flexreward server over HTTP, a full list of them in time, whatever happens."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import httpx

from flexreward import client_wire as wire
from flexreward.asking import AGAIN, CONNECT_S, after_s, message_of, one_line, pause_s, trusted
from flexreward.errors import MediaError, RecipeError, UserError
from flexreward.serving.contract import Rewarded, RewardItem
from flexreward.types import Reason

KEY_ENV = "FLEXREWARD_KEY"
DEADLINE_S = 120.0
AT_ONCE = 8
"""Calls of one ``rewards`` that are under way together."""
FIRST_S, LONGEST_S = 0.2, 8.0
"""Of the pauses between tries (see ``flexreward.asking.pause_s``)."""
MARGIN, MOST_MARGIN_S = 0.1, 2.0
"""The share of the time that is left, and the most of it, that the server is not told of: for the way back."""
SHORTEST_S = 0.02
"""With less time than this a server is not asked."""
SPLIT = frozenset({400, 413, 422})
"""Statuses that may be one item's fault."""


class RewardClient:
    """A flexreward server.

    ``rewards`` never raises and never outlasts its deadline: what could not be had is ``None`` with a reason. It asks
    again whatever may pass; the server joins such repetitions to the work that is under way. Without ``async with``
    each call opens a connection of its own. One client may be used from several event loops, and pickles.

    Args:
        url: Where the server listens, such as ``http://localhost:8000``.
        key: What opens it; by default what the environment variable FLEXREWARD_KEY holds when a call is made.
        deadline_s: Longest time for one call.

    Raises:
        RecipeError: The URL or the deadline is none.
    """

    def __init__(self, url: str, *, key: str | None = None, deadline_s: float = DEADLINE_S) -> None:
        self.url = _checked(url)
        self.deadline_s = deadline_s
        if not 0 < deadline_s < float("inf"):
            raise RecipeError(f"deadline_s: {deadline_s!r} is no time, expected seconds above 0")
        self._given = key
        self._open: dict[asyncio.AbstractEventLoop, httpx.AsyncClient] = {}

    def __repr__(self) -> str:
        return f"RewardClient({self.url!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

    async def __aenter__(self) -> Self:
        self._open[asyncio.get_running_loop()] = self._connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.pop(asyncio.get_running_loop()).aclose()

    async def rewards(
        self, items: Sequence[RewardItem], *, judge: str = "", deadline_s: float | None = None
    ) -> list[Rewarded]:
        """One result an item, in order, in time.

        Args:
            judge: One of the server's, by name; its first where empty.
            deadline_s: In place of the client's.
        """
        until = asyncio.get_running_loop().time() + (self.deadline_s if deadline_s is None else deadline_s)
        found: list[Rewarded] = [_unscored(Reason.DEADLINE, "there was no time to send it")] * len(items)
        parcels = await asyncio.to_thread(_parcels, items, found)
        http = self._open.get(asyncio.get_running_loop())
        opened = http is None
        http = self._connect() if http is None else http
        try:
            slots = asyncio.Semaphore(AT_ONCE)
            calls = [self._batch(http, batch, judge, until, slots) for batch in wire.batches(parcels)]
            for batch in await asyncio.gather(*calls):
                for place, rewarded in batch.items():
                    found[place] = rewarded
        finally:
            if opened:
                await http.aclose()
        return found

    async def probe(self, *, judge: str = "", deadline_s: float = 30.0) -> None:
        """See that the server answers, takes the key and knows the judge; a call without items tells.

        Args:
            deadline_s: How long a server may take to come up.

        Raises:
            UserError: It does not; one line that says what to do.
        """
        until = asyncio.get_running_loop().time() + deadline_s
        async with self._connect() as http:
            asked = await self._ask(http, _Call([], judge), until)
        if isinstance(asked, _Failure):
            raise UserError(f"{asked.said}; {_remedy(asked.status)}")

    async def _batch(
        self, http: httpx.AsyncClient, batch: list[wire.Parcel], judge: str, until: float, slots: asyncio.Semaphore
    ) -> dict[int, Rewarded]:
        """What became of the items of one call, by their places."""
        async with slots:
            asked = await self._ask(http, _Call(batch, judge), until)
        if not isinstance(asked, _Failure):
            return dict(zip((parcel.place for parcel in batch), asked, strict=True))
        groups = wire.groups_of(batch)
        if asked.status in SPLIT and len(groups) > 1:  # what one group has done is not held against the others
            halves = [groups[: len(groups) // 2], groups[len(groups) // 2 :]]
            calls = [
                self._batch(http, [parcel for group in half for parcel in group], judge, until, slots)
                for half in halves
            ]
            first, second = await asyncio.gather(*calls)
            return first | second
        return {parcel.place: _unscored(asked.reason, asked.said) for parcel in batch}

    async def _ask(self, http: httpx.AsyncClient, call: _Call, until: float) -> list[Rewarded] | _Failure:
        """The answer, asked for until there is one or no time is left."""
        loop = asyncio.get_running_loop()
        failure = _Failure("no answer in time", Reason.DEADLINE)
        for tries in itertools.count(1):
            left = until - loop.time()
            if left <= SHORTEST_S:
                return failure
            asked = await self._once(http, call, left)
            if not isinstance(asked, _Failure) or not asked.again:
                return asked
            failure = asked
            left = until - loop.time()
            if asked.after_s >= left:
                return asked._replace(reason=Reason.DEADLINE, said=f"{asked.said}; no time is left to ask again")
            pause = pause_s(tries, asked.after_s, first_s=FIRST_S, longest_s=LONGEST_S)
            await asyncio.sleep(min(pause, max(asked.after_s, left / 2)))  # while time is left, so are tries
        raise AssertionError("there is always another try")

    async def _once(self, http: httpx.AsyncClient, call: _Call, left: float) -> list[Rewarded] | _Failure:
        key = self._given or os.environ.get(KEY_ENV, "").strip() or None

        def failed(what: str, reason: Reason = Reason.ENGINE, **more: Any) -> _Failure:
            return _Failure(one_line(f"{self.url}: {what}", secret=key), reason, **more)

        told_s = left - min(MOST_MARGIN_S, left * MARGIN)
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        limit = asyncio.timeout(left)
        try:
            async with limit:
                content = await asyncio.to_thread(wire.body_of, call.batch, judge=call.judge, deadline_s=told_s)
                response = await http.post(f"{self.url}/v1/rewards", content=content, headers=headers)
                if response.status_code == 200:
                    return await asyncio.to_thread(wire.read_answer, response.content, len(call.batch))
        except TimeoutError:
            if not limit.expired():
                raise
            return failed("no answer in time", Reason.DEADLINE)
        except httpx.TransportError as error:
            return failed(f"cannot be reached ({type(error).__name__}: {error})", again=True)
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            return failed(f"cannot be asked ({type(error).__name__})")
        except (ValueError, RecursionError) as error:
            return failed(f"its answer cannot be read ({error})", again=True)
        status = response.status_code
        what = f"{status} {response.reason_phrase}".strip() + message_of(response)
        if status in AGAIN:
            return failed(what, again=True, after_s=after_s(response.headers.get("Retry-After", "")), status=status)
        return failed(what, Reason.REFUSED, status=status)

    def _connect(self) -> httpx.AsyncClient:
        timeout = httpx.Timeout(None, connect=CONNECT_S)  # the deadline is the limit of all else
        return httpx.AsyncClient(verify=trusted(), timeout=timeout, limits=httpx.Limits(max_connections=None))


class _Call(NamedTuple):
    batch: Sequence[wire.Parcel]
    judge: str


class _Failure(NamedTuple):
    said: str
    """One line."""
    reason: Reason
    again: bool = False
    """Whether it may pass."""
    after_s: float = 0.0
    status: int = 0


def _parcels(items: Sequence[RewardItem], found: list[Rewarded]) -> list[wire.Parcel]:
    """What can be sent; what cannot is noted in ``found``."""
    parcels = []
    for place, item in enumerate(items):
        try:
            parcels.append(wire.parcel_of(place, item))
        except MediaError as error:
            found[place] = _unscored(Reason.REFUSED, str(error))
    return parcels


def _unscored(reason: Reason, detail: str) -> Rewarded:
    return Rewarded(reward=None, reason=reason, detail=detail)


def _remedy(status: int) -> str:
    if status in (401, 403):
        return f"give its reward key as key, or in the environment variable {KEY_ENV}"
    if status in (404, 405):
        return "is it the address of a flexreward server, and the judge one that its recipe names?"
    if status in SPLIT:
        return "name a judge that its recipe has"
    return "start it with `flexreward serve RECIPE`, or mend the url"


def _checked(url: str) -> str:
    try:
        found = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as error:
        raise RecipeError(f"url: {str(url)[:100]!r} is no URL, expected one such as http://localhost:8000") from error
    if found.userinfo:
        raise RecipeError(f"url: a URL here holds no user and no password; give the key as key, or in {KEY_ENV}")
    if found.scheme not in ("http", "https") or not found.host or found.query or found.fragment:
        raise RecipeError(f"url: {str(url)[:100]!r} is no address, expected one such as http://localhost:8000")
    return url.rstrip("/")
