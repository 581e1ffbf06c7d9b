"""A judge that sleeps, as its callers and its engine's copies see it: over the owner itself, without Ray."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from flexreward.errors import AsleepError, EngineError
from flexreward.serving.contract import Caller, RewardItem
from flexreward.serving.gate import Gate
from flexreward.serving.ledger_owner import LedgerOwner
from flexreward.serving.phase_routes import phase_routes
from flexreward.serving.phases import At, Phase, Rest, Stand
from flexreward.serving.resting import Resting
from flexreward.types import JudgeRequest, Reason, Unscored
from tests.flexreward.serving.served import ADMIN, KEY, client_of, service_over

ASLEEP = {"main": Rest(Phase.ASLEEP, "t", 40.0)}
ITEM = RewardItem(prompt="p", completion="ends in 3")
CALL = {"prompts": ["p"], "completions": ["ends in 3"]}

# Ray 2.60 asks of pydantic what pydantic 2 warns of.
imports_ray = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def gated(**options):
    service = service_over()
    service.gate = Gate(**options)
    return service


async def test_who_asks_a_judge_that_sleeps_is_told_when_to_come_back():
    service = gated()
    service.gate.tell(ASLEEP)
    async with client_of(service) as client:
        for route, body in (
            ("/v1/rewards", CALL),
            ("/v1/judge", {"requests": [{"prompt": "p", "completions": ["a"]}]}),
            ("/v1/rerank", {"prompt": "p", "completions": ["a 1", "b 2"]}),
        ):
            answer = await client.post(route, json=body)
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "40"), route
            assert answer.json() == {"error": "the judge main is asleep"}
        service.gate.tell({"main": Rest(Phase.AWAKE, "t")})
        assert (await client.post("/v1/rewards", json=CALL)).json()["scores"] == [3.0]


async def test_where_the_recipe_waits_a_caller_is_answered_when_the_judge_wakes():
    service = gated(waits=True)
    service.gate.tell(ASLEEP)
    waiting = asyncio.create_task(service.rewards([ITEM], caller=Caller(), deadline_s=30.0))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    assert service.gate.at().inside.get("main", 0) == 0  # else the judge would wait for it to end, and it for the judge
    service.gate.tell({"main": Rest(Phase.AWAKE, "t")})
    assert (await waiting)[0].score == 3.0


async def test_a_judge_that_does_not_wake_in_time_leaves_its_callers_unscored():
    service = gated(waits=True)
    service.gate.tell(ASLEEP)
    (rewarded,) = await service.rewards([ITEM], caller=Caller(), deadline_s=0.05)
    assert (rewarded.reward, rewarded.reason) == (None, Reason.DEADLINE)
    found = service.judge([JudgeRequest(prompt="p", completions=("a",))] * 3, caller=Caller(), deadline_s=0.05)
    outcomes = [one.judgment.outcome async for one in found]
    assert [isinstance(one, Unscored) and one.reason for one in outcomes] == [Reason.DEADLINE] * 3
    assert service.waiting() == {"main": 0}


async def test_rewards_that_compare_are_held_at_the_same_gate():
    asked = []

    async def compared(service, items, caller, judge, limit_s):
        asked.append(service.gate.at().inside["main"])
        return []

    service = gated()
    service._group_rewards = compared
    await service.rewards([ITEM], caller=Caller())
    assert asked == [1]
    service.gate.tell(ASLEEP)
    with pytest.raises(AsleepError):
        await service.rewards([ITEM], caller=Caller())
    assert asked == [1]


async def test_a_judge_is_put_to_sleep_and_woken_by_an_admin_alone():
    owner = LedgerOwner("none")
    await owner.alive("d", {}, 0)
    routers = [phase_routes(owner, ("main", "other"))]
    keys = {"reward_keys": [KEY], "admin_keys": [ADMIN]}
    async with client_of(routers=routers, key=KEY, **keys) as client:
        assert (await client.post("/v1/sleep", json={})).status_code == 403
        assert (await client.post("/v1/wake", json={})).status_code == 403
    async with client_of(routers=routers, key=ADMIN, **keys) as client:
        slept = (await client.post("/v1/sleep", json={"lease_s": 50, "wait_s": 0})).json()
        assert (slept["judge"], slept["phase"]) == ("main", "drowsy")
        assert 49 < slept["lease_s"] <= 50
        unknown = await client.post("/v1/sleep", json={"judge": "mian"})
        assert unknown.status_code == 400
        assert unknown.json() == {"error": "judge: no judge 'mian', expected one of main, other"}
        woken = (await client.post("/v1/wake", json={"wait_s": 0})).json()
        assert (woken["judge"], woken["phase"]) == ("main", "awake")


class Copy:
    """A copy of an engine over an owner in this process, with a door that lets nobody in."""

    def __init__(self, owner):
        self.owner, self.has_memory, self.says, self.known = owner, False, "4", {}
        self.resting = Resting(Handle(owner), "main", free=self.free, restore=self.restore, say=self.say)

    async def free(self):
        self.has_memory = False

    async def restore(self):
        self.has_memory = True

    async def say(self):
        assert self.has_memory
        return self.says

    async def start(self):
        await self.resting.allowed()
        await self.restore()
        self.resting.begin()
        return self

    async def until(self, phase):
        for _ in range(200):
            self.known = (await self.owner.alive("d", {}, 0, At({}, self.known))).rests
            if self.known["main"].phase is phase:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(self.known)


class Handle:
    def __init__(self, owner):
        self._owner = owner

    def __getattr__(self, method):
        return SimpleNamespace(remote=getattr(self._owner, method))


@imports_ray
async def test_a_copy_frees_its_memory_when_nothing_is_at_work_and_what_comes_then_waits_for_its_waking():
    owner = LedgerOwner("none")
    copy = await Copy(owner).start()
    await owner.sleep("main", 100.0)
    async with copy.resting.at_work():
        await copy.until(Phase.FREEING)
        await asyncio.sleep(0.05)
        assert copy.has_memory
    await copy.until(Phase.ASLEEP)
    assert not copy.has_memory

    async def ask():
        async with copy.resting.at_work():
            return copy.has_memory

    asking = asyncio.create_task(ask())
    await asyncio.sleep(0.05)
    assert not asking.done()
    await owner.wake("main")
    assert await asking
    await copy.until(Phase.AWAKE)


@imports_ray
async def test_a_copy_that_starts_while_its_judge_sleeps_takes_no_memory_before_it_wakes():
    owner = LedgerOwner("none")
    first = await Copy(owner).start()
    await owner.sleep("main", 100.0)
    await first.until(Phase.ASLEEP)
    second = Copy(owner)
    starting = asyncio.create_task(second.start())
    await asyncio.sleep(0.05)
    assert not second.has_memory
    assert (await owner.where("main")).rest.phase is Phase.ASLEEP
    await owner.wake("main")
    await starting
    assert second.has_memory
    await first.until(Phase.AWAKE)


@imports_ray
async def test_a_copy_that_says_something_else_after_its_sleep_is_not_called_awake():
    owner = LedgerOwner("none")
    copy = await Copy(owner).start()
    await owner.sleep("main", 100.0)
    await copy.until(Phase.ASLEEP)
    copy.says = "5"
    await owner.wake("main")
    await copy.until(Phase.WAKING)
    await asyncio.sleep(0.1)
    assert (await owner.where("main")).rest.phase is Phase.WAKING
    assert "says '5' after its sleep, and said '4' before" in copy.resting.broken


@imports_ray
async def test_a_copy_that_does_not_answer_lies_down_all_the_same():
    owner = LedgerOwner("none")
    copy = await Copy(owner).start()

    async def dumb():
        raise EngineError("no answer")

    copy.resting._say = dumb
    await owner.sleep("main", 100.0)
    await copy.until(Phase.ASLEEP)
    assert not copy.has_memory
    copy.resting._say = copy.say
    await owner.wake("main")
    await copy.until(Phase.AWAKE)


async def test_no_question_of_a_copy_holds_up_the_end():
    owner = LedgerOwner("none")
    asked = asyncio.create_task(owner.copy("main", "c", Rest(), Stand.UP, 60.0))
    await asyncio.sleep(0.01)
    await owner.close_door()
    async with asyncio.timeout(5):
        assert await asked == Rest()


class Gone:
    """A handle to an owner that is gone for good."""

    def __getattr__(self, method):
        async def remote(*arguments):
            raise EngineError("the ledger cannot be reached")

        return SimpleNamespace(remote=remote)


@imports_ray
async def test_a_copy_whose_owner_is_gone_wakes_by_itself_when_its_lease_is_over():
    owner = LedgerOwner("none")
    copy = await Copy(owner).start()
    await owner.sleep("main", 0.5)
    await copy.until(Phase.ASLEEP)
    copy.resting._ledger._handle = Gone()
    assert not copy.has_memory
    async with asyncio.timeout(5):
        async with copy.resting.at_work():
            assert copy.has_memory


async def test_the_board_tells_who_sleeps():
    owner = LedgerOwner("none")
    assert (await owner.board()).phases == {}
    await owner.sleep("main", 100.0)
    assert (await owner.board()).phases == {"main": "drowsy"}


async def test_news_reach_a_copy_that_waits_for_them_at_once():
    owner = LedgerOwner("none")
    await owner.alive("d", {}, 0)
    asked = asyncio.create_task(owner.copy("main", "c", Rest(), Stand.UP, 5.0))
    await asyncio.sleep(0.01)
    assert not asked.done()
    await owner.sleep("main", 100.0)
    async with asyncio.timeout(0.5):
        assert (await asked).phase is Phase.DROWSY
