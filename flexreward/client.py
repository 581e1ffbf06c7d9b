"""What a trainer holds: rewards of a flexreward server over HTTP, a full list of them in time, whatever happens."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Generic, NamedTuple, Self, TypeVar
from urllib.parse import urlencode

import httpx

from flexreward import client_wire as wire
from flexreward.asking import AGAIN, CONNECT_S, after_s, message_of, one_line, pause_s, trusted
from flexreward.errors import JudgeError, MediaError, RecipeError, UserError
from flexreward.serving.contract import Rewarded, RewardItem
from flexreward.types import JudgeRequest, Reason

T = TypeVar("T")

KEY_ENV = "FLEXREWARD_KEY"
DEADLINE_S = 120.0
AT_ONCE = 8
"""Calls of one ``rewards`` that are under way together."""
FIRST_S, LONGEST_S = 0.2, 8.0
"""Of the pauses between tries (see ``flexreward.asking.pause_s``)."""
MARGIN, MOST_MARGIN_S = 0.1, 2.0
"""The share of the time that is left, and the most of it, that the server is not told of: for the way back."""
RELOAD_S, RELOAD_POLL_S = 900.0, 0.5
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
        slots = asyncio.Semaphore(AT_ONCE)
        async with self._http() as http:
            calls = [self._batch(http, batch, judge, until, slots) for batch in wire.batches(parcels)]
            for batch in await asyncio.gather(*calls):
                for place, rewarded in batch.items():
                    found[place] = rewarded
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
            asked = await self._ask(http, _rewards_call([], judge), until)
        if isinstance(asked, _Failure):
            raise UserError(f"{asked.said}; {_remedy(asked.status)}")

    async def header(self, *, judge: str = "", template: str, deadline_s: float = 30.0) -> Mapping[str, Any]:
        """What names a judge of the server with a template, as the first line of an outcome file has it.

        Raises:
            UserError: The server does not tell it; one line that says what to do.
        """
        until = asyncio.get_running_loop().time() + deadline_s
        path = f"/v1/judge?{urlencode({'judge': judge, 'template': template})}"
        async with self._connect() as http:
            asked = await self._ask(http, _Call(path, _nothing, wire.read_header, method="GET"), until)
        if isinstance(asked, _Failure):
            raise JudgeError(f"{asked.said}; {_remedy(asked.status)}")
        return asked

    async def judge(
        self, requests: Sequence[JudgeRequest], *, judge: str = "", template: str = "", deadline_s: float | None = None
    ) -> list[wire.Row]:
        """A row for each request, in order and in time, as a line of an outcome file has it.

        Args:
            template: Id of a bundled one; by default the one that fits each request.
        """
        until = asyncio.get_running_loop().time() + (self.deadline_s if deadline_s is None else deadline_s)
        found = [wire.unscored_row(one.id, Reason.DEADLINE, "there was no time to send it") for one in requests]
        asked = await asyncio.to_thread(_requests, requests, found)
        slots = asyncio.Semaphore(AT_ONCE)

        async def one(http: httpx.AsyncClient, batch: Sequence[wire.Asked]) -> None:
            def body(told_s: float) -> bytes:
                return wire.judge_body(batch, judge=judge, template=template, deadline_s=told_s)

            async with slots:
                rows = await self._ask(http, _Call("/v1/judge", body, partial(wire.read_rows, count=len(batch))), until)
            for i, request in enumerate(batch):
                row = wire.unscored_row(request.id, rows.reason, rows.said) if isinstance(rows, _Failure) else rows[i]
                found[request.place] = row

        async with self._http() as http:
            await asyncio.gather(*(one(http, batch) for batch in wire.cut(asked)))
        return found

    async def rerank(
        self,
        request: JudgeRequest,
        *,
        method: str = "",
        list_size: int | None = None,
        seed: int = 0,
        judge: str = "",
        template: str = "",
        deadline_s: float | None = None,
    ) -> wire.Ranking:
        """The completions of a request, the best first; without an order where that could not be had in time.

        Args:
            method: How the best is found (``flexreward.pairs.contest``); by default all are judged in one request.
            list_size, seed: As in ``flexreward.pairs.rank.best_of_n``.
        """
        until = asyncio.get_running_loop().time() + (self.deadline_s if deadline_s is None else deadline_s)

        def body(told_s: float) -> bytes:
            return wire.rerank_body(
                request,
                judge=judge,
                template=template,
                method=method,
                list_size=list_size,
                seed=seed,
                deadline_s=told_s,
            )

        read = partial(wire.read_ranking, count=len(request.completions))
        async with self._http() as http:
            try:
                found = await self._ask(http, _Call("/v1/rerank", body, read), until)
            except MediaError as error:
                return wire.Ranking(order=None, scores=None, reason=Reason.REFUSED, detail=str(error))
        if isinstance(found, _Failure):
            return wire.Ranking(order=None, scores=None, reason=found.reason, detail=found.said)
        return found

    async def reload(
        self, model: str, *, judge: str = "", digest: str | None = None, deadline_s: float = RELOAD_S
    ) -> str:
        """Have a judge run other weights, and wait until what is asked is judged by them and by nothing else.

        Needs an admin's key. Calls that are under way are answered meanwhile, by the old weights or the new.

        Args:
            model: A folder in the ``reload_from`` of the server's recipe, as a path from there.
            digest: That the weights must have (``flexreward.engines.weights.digest``), where they may be written still.

        Returns:
            The digest of the weights.

        Raises:
            UserError: The weights cannot be taken or do not run, or are not there in time; one line.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + deadline_s

        def body(told_s: float) -> bytes:
            return wire.reload_body(model, judge=judge, digest=digest)

        async with self._connect() as http:
            begun = await self._ask(http, _Call("/v1/reload", body, wire.read_reload), until)
            if isinstance(begun, _Failure):
                raise UserError(f"reload: {begun.said}")
            while loop.time() < until:
                runs = await self._ask(http, _Call("/v1/reload", _nothing, wire.read_runs, method="GET"), until)
                if isinstance(runs, _Failure):
                    raise UserError(f"reload: {runs.said}")
                if runs.recipe == begun.recipe and runs.state == "failed":
                    raise UserError(f"reload: {model} does not run: {runs.detail}")
                weights = runs.weights.get(begun.judge)
                if runs.recipe == begun.recipe and runs.state == "settled" and weights == begun.weights:
                    return begun.weights
                await asyncio.sleep(RELOAD_POLL_S)
        raise UserError(f"reload: {self.url}: {model} is still being rolled out after {deadline_s:g} s")

    async def _batch(
        self, http: httpx.AsyncClient, batch: list[wire.Parcel], judge: str, until: float, slots: asyncio.Semaphore
    ) -> dict[int, Rewarded]:
        """What became of the items of one call, by their places."""
        async with slots:
            asked = await self._ask(http, _rewards_call(batch, judge), until)
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

    async def _ask(self, http: httpx.AsyncClient, call: _Call[T], until: float) -> T | _Failure:
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

    async def _once(self, http: httpx.AsyncClient, call: _Call[T], left: float) -> T | _Failure:
        key = self._given or os.environ.get(KEY_ENV, "").strip() or None

        def failed(what: str, reason: Reason = Reason.ENGINE, **more: Any) -> _Failure:
            return _Failure(one_line(f"{self.url}: {what}", secret=key), reason, **more)

        told_s = left - min(MOST_MARGIN_S, left * MARGIN)
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        limit = asyncio.timeout(left)
        try:
            async with limit:
                content = await asyncio.to_thread(call.body, told_s)
                response = await http.request(call.method, f"{self.url}{call.path}", content=content, headers=headers)
                if response.status_code in (200, 202):
                    return await asyncio.to_thread(call.read, response.content)
        except TimeoutError:
            if not limit.expired():
                raise
            return failed("no answer in time", Reason.DEADLINE)
        except httpx.TransportError as error:
            return failed(f"cannot be reached ({type(error).__name__}: {error})", again=True)
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            return failed(f"cannot be asked ({type(error).__name__})")
        except MediaError:  # a ValueError too, and none of the server's
            raise
        except (ValueError, RecursionError) as error:
            return failed(f"its answer cannot be read ({error})", again=True)
        status = response.status_code
        what = f"{status} {response.reason_phrase}".strip() + message_of(response)
        if status in AGAIN:
            return failed(what, again=True, after_s=after_s(response.headers.get("Retry-After", "")), status=status)
        return failed(what, Reason.REFUSED, status=status)

    @asynccontextmanager
    async def _http(self) -> AsyncIterator[httpx.AsyncClient]:
        """The connections that ``async with`` keeps for this loop, or some for one call."""
        if kept := self._open.get(asyncio.get_running_loop()):
            yield kept
            return
        async with self._connect() as http:
            yield http

    def _connect(self) -> httpx.AsyncClient:
        timeout = httpx.Timeout(None, connect=CONNECT_S)  # the deadline is the limit of all else
        return httpx.AsyncClient(verify=trusted(), timeout=timeout, limits=httpx.Limits(max_connections=None))


@dataclass(frozen=True, slots=True)
class _Call(Generic[T]):
    path: str
    body: Callable[[float], bytes]
    """From the seconds that the server is told."""
    read: Callable[[bytes], T]
    """Raises ValueError where the answer is none."""
    method: str = "POST"


def _nothing(told_s: float) -> bytes:
    return b""


def _rewards_call(batch: Sequence[wire.Parcel], judge: str) -> _Call[list[Rewarded]]:
    def body(told_s: float) -> bytes:
        return wire.body_of(batch, judge=judge, deadline_s=told_s)

    return _Call("/v1/rewards", body, partial(wire.read_answer, count=len(batch)))


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


def _requests(requests: Sequence[JudgeRequest], found: list[wire.Row]) -> list[wire.Asked]:
    """What can be sent; what cannot is noted in ``found``."""
    asked = []
    for place, request in enumerate(requests):
        try:
            asked.append(wire.asked_of(place, request))
        except MediaError as error:
            found[place] = wire.unscored_row(request.id, Reason.REFUSED, str(error))
    return asked


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
