"""Cohorts in another process: what crosses is pickled here too, and an owner may be gone."""

import asyncio
import pickle

import pytest

from flexreward.errors import BusyError, EngineError, UserError
from flexreward.serving.contract import Caller, RewardItem
from flexreward.serving.ledger_owner import LedgerOwner
from flexreward.serving.remote_ledger import RemoteCohorts
from tests.flexreward.serving.test_cohort import attend, joining
from tests.flexreward.serving.test_grouping import EIGHT, ME, items, served, values


def crossed(value):
    return pickle.loads(pickle.dumps(value))  # noqa: S301  # our own


class Process:
    """The owner's, as a handle reaches it."""

    def __init__(self):
        self.owner = LedgerOwner("none")
        self.is_gone = False

    async def ask(self, method, *arguments, within_s):
        if self.is_gone:
            await asyncio.sleep(0.05)
            raise EngineError("the ledger cannot be reached")
        return crossed(await getattr(self.owner, method)(*crossed(arguments)))


async def test_a_group_over_two_copies_is_judged_once_and_each_is_told_its_own():
    process = Process()
    copies = [served(cohorts=RemoteCohorts(process)) for _ in range(2)]
    alone = values(await served().rewards(items(*EIGHT), caller=ME))
    calls = [items(*EIGHT[i : i + 2], group_size=8) for i in (0, 2, 4, 6)]
    told = await asyncio.gather(*(copies[i % 2].rewards(call, caller=ME) for i, call in enumerate(calls)))
    assert [value for one in told for value in values(one)] == alone


async def test_a_retry_at_another_copy_gets_the_released_result():
    process = Process()
    copies = [served(cohorts=RemoteCohorts(process)) for _ in range(2)]
    calls = [items("worth 7", group_size=2), items("worth 2", group_size=2)]
    told = await asyncio.gather(*(copies[0].rewards(call, caller=ME) for call in calls))
    assert await copies[1].rewards(calls[0], caller=ME) == told[0]


async def test_a_refusal_reaches_the_caller_as_the_line_that_it_is():
    remote = RemoteCohorts(Process())
    await remote.join(joining("s1", "a", "b"), 0.0)
    with pytest.raises(UserError, match=r"^group 'g': its members have different prompts"):
        await remote.join(joining("s2", "c", shared="other"), 0.0)


async def test_too_many_groups_are_refused_as_busy():
    process = Process()
    process.owner._cohorts.max_open = 0
    with pytest.raises(BusyError):
        await served(cohorts=RemoteCohorts(process)).rewards(items("worth 7", group_size=2), caller=ME)


async def test_an_owner_that_comes_back_without_its_memory_gathers_those_who_still_ask():
    process = Process()
    remote = RemoteCohorts(process)
    first = asyncio.create_task(attend(remote, joining("s1", "a", "b")))
    await asyncio.sleep(0.05)
    process.is_gone = True
    await asyncio.sleep(0.1)
    process.owner, process.is_gone = LedgerOwner("none"), False
    assert await attend(remote, joining("s2", "c", "d")) == [0.1, 0.1]
    assert await first == [0.1, 0.1]


async def test_an_owner_that_stays_away_leaves_a_group_unscored_at_its_deadline():
    process = Process()
    process.is_gone = True
    service = served(cohorts=RemoteCohorts(process))
    item = RewardItem(prompt="p", completion="worth 7", group_size=2)
    told = await service.rewards([item], caller=Caller(), deadline_s=0.4)
    assert told[0].reward is None
    assert told[0].detail.startswith("its group was still being gathered")
