"""A judge that a flexreward server runs, held like one that runs here: same requests in, same judgments out.

The server renders, votes, parses and keeps; here its rows become judgments again. What names the judge is what the
server says of it, so that files of outcomes are alike whoever asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from copy import copy
from dataclasses import replace
from time import perf_counter
from typing import Any, cast

from flexreward.client import RewardClient
from flexreward.engines.base import Capabilities
from flexreward.errors import JudgeError
from flexreward.inflight import map_in_order
from flexreward.templates import Template, load_template
from flexreward.types import (
    JudgeRequest,
    Judgment,
    OrderOutcome,
    Outcome,
    Reason,
    Reply,
    Scale,
    Unscored,
    Verdict,
    Vote,
)

MEET_S = 10.0
"""For the first answer: somebody waits who may have mistyped the port."""
DEADLINE_S = 600.0
"""Of one request of a long job; a server that is told of more than its own takes its own."""


class NoEngine:
    """What stands where a judge has its engine: the server's own is not reached."""

    can = Capabilities(modalities=frozenset({"text", "image", "video", "audio"}))

    async def close(self) -> None:
        """Nothing is held here."""


class ServedJudge:
    """One judge of a server, with one template.

    Args:
        client: Asks the server.
        name: The judge's; the server's first where empty.
        template: Id of a bundled one.
        header: What names the judge and the template, as the server tells it (GET /v1/judges).

    Raises:
        JudgeError: The server runs another version of the template.
    """

    def __init__(self, client: RewardClient, *, name: str, template: str, header: Mapping[str, Any]) -> None:
        self.template: Template = load_template(template)
        told = header["template"]
        if told["digest"] != self.template.digest:
            raise JudgeError(
                f"{client.url}: its template {template!r} is another version's; run the same flexreward on both sides"
            )
        self.header = dict(header)
        self.fingerprint: str = header["judge"]["fingerprint"]
        self.engine = NoEngine()
        self.both_orders: bool = header["judge"]["both_orders"]
        self._client = client
        self._name = name

    def apart(self) -> ServedJudge:
        """The same judge over connections of its own, for requests beside those that this one asks."""
        other = copy(self)
        other._client = copy(self._client)
        return other

    async def judge(self, request: JudgeRequest) -> Judgment:
        """What became of one request. What the server does not answer is unscored.

        Raises:
            JudgeError: The server's judge is another by now.
        """
        start = perf_counter()
        (row,) = await self._client.judge([request], judge=self._name, template=self.template.id, deadline_s=DEADLINE_S)
        judgment = judgment_of(row, scale=self.template.scale, template=self.template.id, judge=self.fingerprint)
        if judgment.judge != self.fingerprint:
            raise JudgeError(
                f"{self._client.url}: its judge was changed while it judged; what was judged before is kept: run again "
                "with another --out"
            )
        return replace(judgment, seconds=perf_counter() - start)

    async def judge_all(
        self, requests: Iterable[JudgeRequest] | AsyncIterable[JudgeRequest], *, max_in_flight: int = 64
    ) -> AsyncIterator[Judgment]:
        """Judgments in the order of ``requests``, which are taken only as there is room."""
        async with (
            self._client,
            aclosing(cast(Any, map_in_order(self.judge, requests, max_in_flight=max_in_flight))) as found,
        ):
            async for judgment in found:
                yield judgment


def open_served(url: str, *, template: str) -> ServedJudge:
    """The judge behind ``http://host:8000``, or ``http://host:8000#NAME`` of several.

    Raises:
        JudgeError: The server does not answer, does not take the key, or has no such judge; one line.
    """
    address, _, name = url.partition("#")
    client = RewardClient(address)

    async def ask() -> Mapping[str, Any]:
        return await client.header(judge=name, template=template, deadline_s=MEET_S)

    return ServedJudge(client, name=name, template=template, header=asyncio.run(ask()))


def judgment_of(row: Mapping[str, Any], *, scale: Scale, template: str, judge: str) -> Judgment:
    """A line of an outcome file as the judgment that it tells of. Texts are whole, log-probabilities are not kept.

    Args:
        template: Of a row that names none, as of a request that was never answered;
        judge: and its fingerprint.
    """
    orders = tuple(
        OrderOutcome(
            order=tuple(one["order"]),
            outcome=_outcome(one, scale),
            votes=tuple(_vote(i, vote, scale) for i, vote in enumerate(one["votes"])),
        )
        for one in row["orders"]
    )
    tokens = row.get("tokens") or {"prompt": 0, "completion": 0}
    return Judgment(
        request_id=row["id"],
        template=row.get("template", template),
        outcome=_outcome(row, scale),
        orders=_counted(orders, tokens["prompt"], tokens["completion"]),
        judge=row.get("judge", judge),
        prompt_cut=row.get("prompt_cut", 0),
    )


def _outcome(row: Mapping[str, Any], scale: Scale) -> Outcome:
    if row["scores"] is not None:
        return Verdict(scores=tuple(row["scores"]), scale=scale)
    known = row["reason"] in tuple(Reason)
    return Unscored(reason=Reason(row["reason"]) if known else Reason.ENGINE, detail=row.get("detail", ""))


def _vote(index: int, vote: Mapping[str, Any], scale: Scale) -> Vote:
    cut = bool(vote.get("thought_cut"))
    reply = Reply(text=vote["reply"], index=index, finish_reason=vote["finish_reason"], thought_cut=cut)
    return Vote(outcome=_outcome(vote, scale), reply=reply)


def _counted(orders: tuple[OrderOutcome, ...], prompt: int, completion: int) -> tuple[OrderOutcome, ...]:
    """With all tokens on the first reply: a row tells their sums alone."""
    for i, order in enumerate(orders):
        if order.votes:
            first = order.votes[0]
            reply = replace(first.reply, prompt_tokens=prompt, completion_tokens=completion)
            votes = (replace(first, reply=reply), *order.votes[1:])
            return (*orders[:i], replace(order, votes=votes), *orders[i + 1 :])
    return orders
