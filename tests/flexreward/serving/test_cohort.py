import asyncio
import pickle
from dataclasses import replace

import pytest

from flexreward.errors import BusyError, UserError
from flexreward.serving import gathering as module
from flexreward.serving.cohort import Answer, Cohorts, Joining, State
from flexreward.serving.contract import Rewarded, RewardItem


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(module, "SILENT_S", 0.1)
    monkeypatch.setattr(module, "STEP_S", 0.02)
    monkeypatch.setattr(module, "LEASE_S", 0.2)


def joining(
    seat: str, *completions: str, size: int = 4, gather_s: float = 5.0, id: str = "", **fields: object
) -> Joining:
    items = tuple(RewardItem(prompt="p", completion=text, id=id) for text in completions)
    names = tuple(f"{item.completion}:{item.id}" for item in items)
    values = {"key": "k", "shared": "p", "title": "group 'g'", "left_s": 10.0} | fields
    return Joining(seat=seat, items=items, names=names, size=size, gather_s=gather_s, **values)  # type: ignore[arg-type]


async def attend(cohorts: Cohorts, asked: Joining, *, judged: list[Answer] | None = None) -> list[float | None]:
    """Wait for the results the way a call does; whoever is to judge gives each member its length as a reward."""
    while True:
        answer = await cohorts.join(asked, 0.2)
        if answer.state is State.RELEASED:
            return [one.reward for one in answer.rewards]
        if answer.state is State.YOURS:
            if judged is not None:
                judged.append(answer)
            rewards = [Rewarded(reward=len(str(item.completion)) / 10) for item in answer.items]
            await cohorts.release(asked.key, answer.lease, rewards)


async def test_members_of_different_calls_are_judged_once_and_each_is_told_its_own():
    cohorts, judged = Cohorts(), []
    calls = [joining("s1", "a", "bbb"), joining("s2", "cc"), joining("s3", "dddd")]
    told = await asyncio.gather(*(attend(cohorts, call, judged=judged) for call in calls))
    assert told == [[0.1, 0.3], [0.2], [0.4]]
    assert len(judged) == 1
    assert [item.completion for item in judged[0].items] == ["a", "bbb", "cc", "dddd"]
    assert judged[0].num_missing == 0


async def test_the_order_of_members_does_not_turn_on_who_came_first():
    orders = []
    for seats in (("s1", "s2"), ("s2", "s1")):
        cohorts, judged = Cohorts(), []
        texts = {"s1": ("d", "a"), "s2": ("c", "b")}
        tasks = []
        for seat in seats:
            tasks.append(asyncio.create_task(attend(cohorts, joining(seat, *texts[seat]), judged=judged)))
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        orders.append([item.completion for item in judged[0].items])
    assert orders[0] == orders[1] == ["a", "b", "c", "d"]


async def test_what_is_missing_does_not_hold_back_the_rest():
    cohorts, judged = Cohorts(), []
    calls = [joining("s1", "a", gather_s=0.1), joining("s2", "bb", gather_s=5.0)]
    told = await asyncio.gather(*(attend(cohorts, call, judged=judged) for call in calls))
    assert told == [[0.1], [0.2]]
    assert judged[0].num_missing == 2


async def test_a_late_retry_gets_the_released_result():
    cohorts, judged = Cohorts(), []
    await asyncio.gather(*(attend(cohorts, joining(f"s{i}", text), judged=judged) for i, text in enumerate("abcd")))
    assert await attend(cohorts, joining("again", "c"), judged=judged) == [0.1]
    assert len(judged) == 1


async def test_one_that_never_was_in_the_group_begins_the_next():
    cohorts, judged = Cohorts(), []
    await asyncio.gather(*(attend(cohorts, joining(f"s{i}", text), judged=judged) for i, text in enumerate("abcd")))
    assert await attend(cohorts, joining("late", "e", gather_s=0.05), judged=judged) == [0.1]
    assert judged[1].num_missing == 3


async def test_equal_completions_of_one_call_and_of_several_are_members_of_their_own():
    cohorts, judged = Cohorts(), []
    calls = [joining("s1", "a", "a"), joining("s2", "a"), joining("s3", "a")]
    told = await asyncio.gather(*(attend(cohorts, call, judged=judged) for call in calls))
    assert told == [[0.1, 0.1], [0.1], [0.1]]
    assert len(judged[0].items) == 4


async def test_a_member_that_comes_again_while_it_waits_under_its_id_joins_itself():
    cohorts, judged = Cohorts(), []
    first = [joining("s1", "a", id="0"), joining("again", "a", id="0")]
    rest = [joining("s2", "bb", id="1"), joining("s3", "cc", id="2"), joining("s4", "dd", id="3")]
    told = await asyncio.gather(*(attend(cohorts, call, judged=judged) for call in (*first, *rest)))
    assert told == [[0.1], [0.1], [0.2], [0.2], [0.2]]
    assert len(judged[0].items) == 4


async def test_a_member_whose_call_has_gone_comes_back_as_itself():
    cohorts, judged = Cohorts(), []
    gone = asyncio.create_task(attend(cohorts, joining("s1", "a"), judged=judged))
    await asyncio.sleep(0.01)
    gone.cancel()
    await cohorts.leave("k", "s1")
    calls = [joining("again", "a"), joining("s2", "bb"), joining("s3", "cc"), joining("s4", "dd")]
    assert await asyncio.gather(*(attend(cohorts, call, judged=judged) for call in calls)) == [[0.1], *[[0.2]] * 3]
    assert judged[0].num_missing == 0
    assert len(judged[0].items) == 4


async def test_a_member_whose_call_fell_silent_without_a_word_comes_back_as_itself():
    cohorts, judged = Cohorts(), []
    silent = asyncio.create_task(cohorts.join(joining("s1", "a"), 5.0))  # its answer reaches nobody
    await asyncio.sleep(0.01)
    calls = [joining("again", "a"), joining("s2", "bb"), joining("s3", "cc"), joining("s4", "dd")]
    told = await asyncio.gather(*(attend(cohorts, call, judged=judged) for call in calls))
    assert told == [[0.1], [0.2], [0.2], [0.2]]
    assert len(judged[0].items) == 4
    assert (await silent).state is State.WAITING


async def test_members_of_a_call_that_has_gone_are_judged_with_the_rest():
    cohorts, judged = Cohorts(), []
    await cohorts.join(joining("s1", "a"), 0.0)
    await cohorts.leave("k", "s1")
    calls = [joining("s2", "b", "c"), joining("s3", "d")]
    await asyncio.gather(*(attend(cohorts, call, judged=judged) for call in calls))
    assert len(judged[0].items) == 4


async def test_another_judges_where_the_first_goes_away():
    cohorts = Cohorts()
    first, second = joining("s1", "a", "b", left_s=20.0), joining("s2", "c", "d")
    await cohorts.join(first, 0.0)
    waiting = asyncio.create_task(attend(cohorts, second))
    assert (await cohorts.join(first, 0.1)).state is State.YOURS
    await cohorts.leave("k", "s1")
    assert await waiting == [0.1, 0.1]
    assert (await cohorts.join(replace(first, seat="again"), 0.1)).state is State.RELEASED


async def test_another_judges_where_the_first_falls_silent_and_the_first_is_too_late_then():
    cohorts = Cohorts()
    first = joining("s1", "a", "b", left_s=20.0)
    await cohorts.join(first, 0.0)
    waiting = asyncio.create_task(attend(cohorts, joining("s2", "c", "d")))
    answer = await cohorts.join(first, 0.1)
    assert answer.state is State.YOURS
    assert await waiting == [0.1, 0.1]
    assert not await cohorts.release("k", answer.lease, [Rewarded(reward=0.0)] * 4)
    assert not await cohorts.renew("k", answer.lease)


async def test_who_renews_goes_on_judging(monkeypatch):
    monkeypatch.setattr(module, "LEASE_S", 0.5)
    cohorts = Cohorts()
    first = joining("s1", "a", "b", left_s=20.0)
    await cohorts.join(first, 0.0)
    other = joining("s2", "c", "d")
    assert (await cohorts.join(other, 0.0)).state is State.WAITING
    answer = await cohorts.join(first, 0.1)
    for _ in range(12):
        assert await cohorts.renew("k", answer.lease)
        assert (await cohorts.join(other, 0.06)).state is State.WAITING
    assert await cohorts.release("k", answer.lease, [Rewarded(reward=0.5)] * 4)


async def test_who_has_longest_to_wait_judges():
    cohorts = Cohorts()
    short, long = joining("s1", "a", "b", left_s=1.0), joining("s2", "c", "d", left_s=9.0)
    states = await asyncio.gather(cohorts.join(short, 0.1), cohorts.join(long, 0.1))
    assert [answer.state for answer in states] == [State.WAITING, State.YOURS]


async def test_an_owner_that_lost_its_memory_gathers_anew_from_those_who_still_ask():
    old, new = Cohorts(), Cohorts()
    calls = [joining("s1", "a", "b"), joining("s2", "c", "d")]
    await old.join(calls[0], 0.0)
    assert await asyncio.gather(*(attend(new, call) for call in calls)) == [[0.1, 0.1], [0.1, 0.1]]


async def test_a_call_asks_again_without_its_items_and_sends_them_where_it_is_not_known():
    cohorts = Cohorts()
    whole = joining("s1", "a", "b")
    bare = replace(whole, items=())
    assert (await cohorts.join(bare, 0.0)).state is State.UNKNOWN
    assert (await cohorts.join(whole, 0.0)).state is State.WAITING
    assert (await cohorts.join(bare, 0.0)).state is State.WAITING
    assert await attend(cohorts, joining("s2", "c", "d")) == [0.1, 0.1]
    assert (await cohorts.join(bare, 0.0)).state is State.RELEASED


async def test_a_call_that_leaves_while_its_question_stands_open_is_told_that_it_has_no_seat():
    cohorts = Cohorts()
    asking = asyncio.create_task(cohorts.join(joining("s1", "a", size=2), 5.0))
    await asyncio.sleep(0.01)
    await cohorts.leave("k", "s1")
    assert (await asking).state is State.UNKNOWN
    assert await attend(cohorts, joining("s2", "bb", size=2)) == [0.2]


async def test_mixed_prompts_under_one_name_are_refused_and_break_nothing():
    cohorts = Cohorts()
    await cohorts.join(joining("s1", "a", "b"), 0.0)
    with pytest.raises(UserError, match="group 'g': its members have different prompts"):
        await cohorts.join(joining("s2", "c", shared="other"), 0.0)
    with pytest.raises(UserError, match="group_size 4 in one call and 3 in another"):
        await cohorts.join(joining("s2", "c", size=3), 0.0)
    assert await asyncio.gather(*(attend(cohorts, joining(s, t, t)) for s, t in (("s1", "a"), ("s3", "c"))))


async def test_a_name_may_come_again_with_another_prompt_once_its_group_is_done():
    cohorts = Cohorts()
    await attend(cohorts, joining("s1", "a", "b", size=2))
    assert await attend(cohorts, joining("s2", "cc", "dd", size=2, shared="other")) == [0.2, 0.2]


async def test_groups_of_different_keys_never_meet():
    cohorts, judged = Cohorts(), []
    calls = [joining("s1", "a", key="k1", gather_s=0.05), joining("s2", "b", key="k2", gather_s=0.05)]
    await asyncio.gather(*(attend(cohorts, call, judged=judged) for call in calls))
    assert [len(answer.items) for answer in judged] == [1, 1]


async def test_results_are_kept_for_a_time_and_so_many():
    cohorts, judged = Cohorts(keep_s=300.0, max_kept=2), []
    for text in "abc":
        await attend(cohorts, joining(text, text, size=1), judged=judged)
    await attend(cohorts, joining("c again", "c", size=1), judged=judged)
    assert len(judged) == 3
    await attend(cohorts, joining("a again", "a", size=1), judged=judged)
    assert len(judged) == 4
    now = 0.0
    cohorts, judged = Cohorts(keep_s=10.0, now=lambda: now), []
    await attend(cohorts, joining("s1", "a", size=1), judged=judged)
    now = 11.0
    await attend(cohorts, joining("s2", "a", size=1), judged=judged)
    assert len(judged) == 2


async def test_too_many_open_groups_are_refused_and_deserted_ones_forgotten():
    now = 0.0
    cohorts = Cohorts(max_open=1, keep_s=10.0, now=lambda: now)
    await cohorts.join(joining("s1", "a"), 0.0)
    with pytest.raises(BusyError):
        await cohorts.join(joining("s2", "b", key="other"), 0.0)
    now = 100.0
    assert (await cohorts.join(joining("s2", "b", key="other"), 0.0)).state is State.WAITING
    assert cohorts.num_open == 1


async def test_no_wait_is_longer_than_it_says():
    cohorts = Cohorts()
    async with asyncio.timeout(1.0):
        assert (await cohorts.join(joining("s1", "a"), 0.05)).state is State.WAITING


async def test_all_that_crosses_pickles():
    cohorts = Cohorts()
    asked = joining("s1", "a", size=1)
    answer = await cohorts.join(asked, 0.1)
    assert pickle.loads(pickle.dumps(asked)) == asked  # noqa: S301  # our own
    assert pickle.loads(pickle.dumps(answer)) == answer  # noqa: S301  # our own
