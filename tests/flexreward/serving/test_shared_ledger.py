"""The one ledger of all ingress copies: whose a claim is, when it lapses, and what a new owner knows."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from flexreward.errors import OutputError
from flexreward.ledger import State
from flexreward.serving.ledger_owner import LAPSE_S, Holder, LedgerOwner
from flexreward.serving.remote_ledger import RemoteLedger

ONE, TWO = Holder("copy-1", "claim-1"), Holder("copy-2", "claim-2")


# Ray 2.60 asks of pydantic what pydantic 2 warns of.
imports_ray = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_a_key_that_one_copy_buys_is_waited_for_by_the_others():
    owner = LedgerOwner("none")
    assert (await owner.claim("k", ONE)).state is State.MINE
    assert (await owner.claim("k", TWO)).state is State.PENDING
    waiting = asyncio.create_task(owner.wait("k", 5.0))
    await asyncio.sleep(0)
    assert await owner.settle("k", b"bought") == b"bought"
    assert await waiting == (State.SETTLED, b"bought")


async def test_a_claim_that_is_asked_for_twice_because_its_answer_was_lost_is_one_claim():
    owner = LedgerOwner("none")
    assert (await owner.claim("k", ONE)).state is State.MINE
    assert (await owner.claim("k", ONE)).state is State.MINE
    assert (await owner.claim("k", Holder("copy-1", "another"))).state is State.PENDING


async def test_claims_of_a_copy_that_is_heard_of_no_more_are_others():
    clock = Clock()
    owner = LedgerOwner("none", clock=clock)
    await owner.claim("k", ONE)
    waiting = asyncio.create_task(owner.wait("k", 5.0))
    await asyncio.sleep(0)
    clock.now = LAPSE_S - 1
    await owner.alive("copy-2", {}, 0)
    await owner.sweep()
    assert await owner.num_claims() == 1
    clock.now = LAPSE_S
    await owner.sweep()
    assert (await waiting).state is State.FREE
    assert (await owner.claim("k", TWO)).state is State.MINE


async def test_a_claim_that_a_living_copy_has_given_up_without_a_word_lapses_too():
    clock = Clock()
    owner = LedgerOwner("none", clock=clock)
    await owner.claim("k", ONE)
    clock.now = LAPSE_S - 1
    await owner.alive("copy-1", {}, 0)
    assert await owner.num_claims() == 1  # its answer may be on its way
    clock.now = LAPSE_S
    await owner.alive("copy-1", {"k": "claim-1"}, 0)
    assert await owner.num_claims() == 1
    await owner.alive("copy-1", {}, 0)
    assert await owner.num_claims() == 0


async def test_a_new_owner_learns_what_is_in_flight_from_those_who_hold_it():
    owner = LedgerOwner("none")
    await owner.alive("copy-1", {"k": "claim-1"}, 0)
    assert (await owner.claim("k", TWO)).state is State.PENDING
    assert (await owner.claim("k", ONE)).state is State.MINE


async def test_what_was_settled_is_there_after_the_owner_was_killed(tmp_path):
    store = str(tmp_path / "store.sqlite")
    owner = LedgerOwner(store)
    await owner.claim("k", ONE)
    await owner.settle("k", b"bought")
    assert await LedgerOwner(store).claim("k", TWO) == (State.SETTLED, b"bought")


async def test_of_two_that_buy_the_same_the_first_to_settle_stands(tmp_path):
    owner = LedgerOwner(str(tmp_path / "store.sqlite"))
    assert await owner.settle("k", b"first") == b"first"
    assert await owner.settle("k", b"second") == b"first"


async def test_only_its_holder_gives_a_claim_up():
    owner = LedgerOwner("none")
    await owner.claim("k", ONE)
    await owner.release("k", None, "copy-2")
    assert (await owner.claim("k", TWO)).state is State.PENDING
    await owner.release("k", None, "copy-1")
    assert (await owner.claim("k", TWO)).state is State.MINE


async def test_the_door_is_closed_once_every_copy_knows_and_none_has_requests_open():
    owner = LedgerOwner("none")
    assert not (await owner.alive("copy-1", {}, 1)).closing
    await owner.alive("copy-2", {}, 0)
    assert await owner.close_door() > 0
    assert (await owner.alive("copy-2", {}, 0)).closing
    assert await owner.close_door() > 0
    await owner.alive("copy-1", {}, 1)
    assert await owner.close_door() == 1
    await owner.alive("copy-1", {}, 0)
    assert await owner.close_door() == 0


class Asked:
    """A handle to an owner in this process, which counts what it is asked."""

    def __init__(self, owner):
        self._owner = owner
        self.calls = []

    def __getattr__(self, method):
        async def remote(*arguments):
            self.calls.append(method)
            return await getattr(self._owner, method)(*arguments)

        return SimpleNamespace(remote=remote)


@imports_ray
async def test_claims_that_are_made_together_are_asked_for_in_one_call_and_answered_each():
    handle = Asked(LedgerOwner("none"))
    one, other = RemoteLedger(handle), RemoteLedger(handle)
    assert (await one.claim("k7")).state is State.MINE
    handle.calls.clear()
    claims = await asyncio.gather(*(other.claim(f"k{i}") for i in range(50)))
    assert handle.calls == ["several"]
    assert [claim.state for claim in claims] == [State.PENDING if i == 7 else State.MINE for i in range(50)]


@imports_ray
async def test_what_one_of_them_meets_is_raised_to_that_one_alone(monkeypatch):
    owner = LedgerOwner("none")
    claim = owner.ledger.claim

    async def torn(key):
        if key == "b":
            raise OutputError("the store cannot be read")
        return await claim(key)

    monkeypatch.setattr(owner.ledger, "claim", torn)
    ledger = RemoteLedger(Asked(owner))
    found = await asyncio.gather(*(ledger.claim(key) for key in "abc"), return_exceptions=True)
    assert [found[0].state, found[2].state] == [State.MINE, State.MINE]
    assert isinstance(found[1], OutputError)


@imports_ray
async def test_one_that_waits_no_more_takes_nothing_from_those_beside_it():
    ledger = RemoteLedger(Asked(LedgerOwner("none")))
    gone, stays = asyncio.create_task(ledger.claim("a")), asyncio.create_task(ledger.claim("b"))
    await asyncio.sleep(0)
    gone.cancel()
    assert (await stays).state is State.MINE
