"""Whether a store can be trusted: its structure, every checksum, and a sample of its replies drawn once more."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

from flexreward.engines.base import Engine
from flexreward.errors import EngineError
from flexreward.inflight import map_in_order
from flexreward.ledger.purchase import Purchase, decode
from flexreward.ledger.store import Store
from flexreward.types import Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What was found; ``sound`` is the answer."""

    num_rows: int
    num_damaged: int
    """Rows whose checksum does not hold: they count as absent, and will be judged anew."""
    faults: tuple[str, ...] = ()
    """What SQLite finds wrong in the file's structure."""
    num_others: int = 0
    """Rows of other models or versions, or with media, which this engine cannot replay."""
    num_same: int = 0
    num_failed: int = 0
    """Replays that the engine did not finish."""
    different: tuple[str, ...] = ()
    """Keys whose replay wrote something else than what is kept."""

    @property
    def sound(self) -> bool:
        return not (self.num_damaged or self.faults or self.different or self.num_failed)

    def as_json(self) -> dict[str, Any]:
        return {
            "sound": self.sound,
            "rows": self.num_rows,
            "damaged": self.num_damaged,
            "faults": list(self.faults),
            "replayed": {"same": self.num_same, "different": list(self.different), "failed": self.num_failed},
            "of_other_engines": self.num_others,
        }


async def audit(store: Store, *, engine: Engine | None = None, sample: int = 20, max_in_flight: int = 32) -> Audit:
    """Read every row; with an engine, draw the replies of ``sample`` of its rows again and compare them, text by text.

    The rows are chosen by chance, the same in each run over the same store.
    """
    faults = tuple(store.faults())
    rng = random.Random(0)
    num_rows = num_damaged = num_own = 0
    chosen: list[tuple[str, Purchase]] = []
    for row in store.rows():
        num_rows += 1
        if row.value is None:
            num_damaged += 1
        elif engine is not None and (purchase := decode(row.value)).engine == engine.identity and purchase.whole:
            num_own += 1
            if len(chosen) < sample:
                chosen.append((row.key, purchase))
            elif (place := rng.randrange(num_own)) < sample:
                chosen[place] = (row.key, purchase)
    if engine is None:
        return Audit(num_rows=num_rows, num_damaged=num_damaged, faults=faults)

    async def is_same(purchase: Purchase) -> bool | None:
        return await _replay(engine, purchase)

    purchases = (purchase for _, purchase in chosen)
    found = [one async for one in map_in_order(is_same, purchases, max_in_flight=max_in_flight)]
    return Audit(
        num_rows=num_rows,
        num_damaged=num_damaged,
        faults=faults,
        num_others=num_rows - num_damaged - num_own,
        num_same=found.count(True),
        num_failed=found.count(None),
        different=tuple(key for (key, _), same in zip(chosen, found, strict=True) if same is False),
    )


async def _replay(engine: Engine, purchase: Purchase) -> bool | None:
    """Whether the same replies come again; ``None`` where the engine fails. Of a stopped vote those that were read."""
    replies: list[Reply] = []
    try:
        stream = cast(AsyncGenerator[Reply, None], engine.generate(purchase.prompt, purchase.sampling))
        async with aclosing(stream):
            async for reply in stream:
                replies.append(reply)
    except EngineError:
        return None
    if purchase.stopped:
        kept = {reply.index for reply in purchase.replies}
        replies = [reply for reply in replies if reply.index in kept]
    replies.sort(key=lambda reply: reply.index)
    return [_written(reply) for reply in replies] == [_written(reply) for reply in purchase.replies]


def _written(reply: Reply) -> tuple[str, str]:
    return reply.text, reply.finish_reason
