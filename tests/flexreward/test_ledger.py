import asyncio
import pickle

import pytest

from flexreward.errors import OutputError
from flexreward.ledger import Claim, Ledger, State
from flexreward.ledger.store import Store


async def test_the_first_to_claim_buys_and_the_others_wait():
    ledger = Ledger(None)
    assert await ledger.claim("k") == (State.MINE, None)
    assert await ledger.claim("k") == (State.PENDING, None)
    waiting = [asyncio.create_task(ledger.wait("k")) for _ in range(3)]
    await asyncio.sleep(0)
    await ledger.settle("k", b"v")
    assert await asyncio.gather(*waiting) == [(State.SETTLED, b"v")] * 3


async def test_without_a_store_what_is_settled_is_forgotten():
    ledger = Ledger(None)
    await ledger.claim("k")
    await ledger.settle("k", b"v")
    assert (await ledger.claim("k")).state is State.MINE


async def test_with_a_store_a_settled_key_is_never_bought_again(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        ledger = Ledger(store)
        await ledger.claim("k")
        await ledger.settle("k", b"v")
        assert await ledger.claim("k") == (State.SETTLED, b"v")
    with Store(tmp_path / "s.sqlite") as store:
        assert await Ledger(store).claim("k") == (State.SETTLED, b"v")


async def test_a_failure_reaches_all_who_wait_and_is_not_settled(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        ledger = Ledger(store)
        await ledger.claim("k")
        waiting = [asyncio.create_task(ledger.wait("k")) for _ in range(3)]
        await asyncio.sleep(0)
        await ledger.release("k", b"dead")
        assert await asyncio.gather(*waiting) == [(State.FAILED, b"dead")] * 3
        assert (await ledger.claim("k")).state is State.MINE
        assert len(store) == 0


async def test_after_a_release_with_nothing_exactly_one_of_those_who_wait_buys():
    ledger = Ledger(None)
    await ledger.claim("k")
    claims = []

    async def wait_and_claim() -> None:
        assert (await ledger.wait("k")).state is State.FREE
        claims.append((await ledger.claim("k")).state)

    waiting = [asyncio.create_task(wait_and_claim()) for _ in range(3)]
    await asyncio.sleep(0)
    await ledger.release("k")
    await asyncio.gather(*waiting)
    assert sorted(claims) == [State.MINE, State.PENDING, State.PENDING]


async def test_a_wait_ends_with_its_time_and_leaves_the_others_waiting():
    ledger = Ledger(None)
    await ledger.claim("k")
    patient = asyncio.create_task(ledger.wait("k"))
    assert (await ledger.wait("k", timeout_s=0.01)).state is State.PENDING
    await ledger.settle("k", b"v")
    assert await patient == (State.SETTLED, b"v")


async def test_a_cancelled_wait_leaves_the_others_waiting():
    ledger = Ledger(None)
    await ledger.claim("k")
    patient, hasty = (asyncio.create_task(ledger.wait("k")) for _ in range(2))
    await asyncio.sleep(0)
    hasty.cancel()
    await asyncio.gather(hasty, return_exceptions=True)
    await ledger.settle("k", b"v")
    assert await patient == (State.SETTLED, b"v")


async def test_waiting_for_what_nobody_buys_returns_at_once():
    assert (await Ledger(None).wait("k")).state is State.FREE


async def test_what_another_process_settled_first_stands(tmp_path):
    with Store(tmp_path / "s.sqlite") as ours, Store(tmp_path / "s.sqlite") as theirs:
        ledger, other = Ledger(ours), Ledger(theirs)
        assert (await ledger.claim("k")).state is (await other.claim("k")).state is State.MINE
        await other.settle("k", b"first")
        assert await ledger.settle("k", b"second") == b"first"


async def test_a_store_that_fails_leaves_nobody_waiting(tmp_path):
    class Full(Store):
        def put(self, key: str, value: bytes) -> bytes:
            raise OutputError("disk full")

    with Full(tmp_path / "s.sqlite") as store:
        ledger = Ledger(store)
        await ledger.claim("k")
        waiting = asyncio.create_task(ledger.wait("k"))
        await asyncio.sleep(0)
        with pytest.raises(OutputError):
            await ledger.settle("k", b"v")
        assert await waiting == (State.SETTLED, b"v")


def test_claims_cross_process_borders():
    claim = Claim(State.SETTLED, b"v")
    assert pickle.loads(pickle.dumps(claim)) == claim  # noqa: S301
