"""What is let in, and when whoever is not should come back."""

from __future__ import annotations

import pytest

from flexreward.errors import BusyError
from flexreward.serving.admission import Admission


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def measured(*, lanes: int, seconds: float, max_waiting: int = 1000) -> Admission:
    clock = Clock()
    admission = Admission(lanes=lanes, max_waiting=max_waiting, clock=clock)
    async with admission.lane() as count:
        clock.now += seconds
        count()
    return admission


async def test_what_waits_and_what_comes_share_the_lanes():
    admission = await measured(lanes=4, seconds=2.0)
    admission.admit(10, deadline_s=60.0)
    assert admission.wait_s(2) == pytest.approx(12 * 2.0 / 4 + 2.0 / 2)


async def test_what_finds_a_lane_free_takes_as_long_as_one_does():
    admission = await measured(lanes=64, seconds=2.0)
    assert admission.wait_s(1) == admission.wait_s(64) == 2.0


async def test_a_judgment_is_let_in_with_time_to_spare():
    admission = await measured(lanes=1, seconds=1.0)
    admission.admit(1, deadline_s=60.0)
    with pytest.raises(BusyError):
        admission.admit(1, deadline_s=3.0)
    admission.admit(1, deadline_s=3.2)


async def test_the_first_judgments_weigh_as_much_as_those_after_them():
    clock = Clock()
    admission = Admission(lanes=1, max_waiting=10, clock=clock)
    for took in (8.0, 1.0, 1.0, 2.0):
        async with admission.lane() as count:
            clock.now += took
            count()
    assert admission.seconds == pytest.approx(3.0)


async def test_what_would_end_after_its_deadline_is_refused_and_told_when_there_is_room():
    admission = await measured(lanes=1, seconds=1.0)
    admission.admit(10, deadline_s=60.0)
    with pytest.raises(BusyError) as refused:
        admission.admit(1, deadline_s=5.0)
    assert refused.value.retry_after_s == 8.0
    assert admission.accepted == 10
    admission.done(8)
    admission.admit(1, deadline_s=5.0)
    assert admission.accepted == 3


async def test_nobody_is_refused_before_anything_was_measured():
    admission = Admission(lanes=1, max_waiting=1000)
    admission.admit(900, deadline_s=0.1)
    admission.admit(50, deadline_s=0.1)
    assert admission.accepted == 950


async def test_a_call_that_is_too_long_for_itself_is_let_in_where_nothing_waits():
    admission = await measured(lanes=1, seconds=10.0)
    admission.admit(100, deadline_s=1.0)
    assert admission.accepted == 100


async def test_more_than_may_wait_is_refused_however_fast_the_judge_is():
    admission = await measured(lanes=1, seconds=0.001, max_waiting=10)
    admission.admit(10, deadline_s=60.0)
    with pytest.raises(BusyError, match="max_waiting"):
        admission.admit(1, deadline_s=60.0)


async def test_work_that_is_not_counted_says_nothing_of_the_time_that_one_takes():
    clock = Clock()
    admission = Admission(lanes=1, max_waiting=10, clock=clock)
    async with admission.lane():
        clock.now += 5.0
    assert admission.seconds is None


async def test_others_in_front_of_the_engine_are_counted_with_one_more_that_may_come_and_never_twice():
    admission = await measured(lanes=4, seconds=2.0)
    admission.admit(8, deadline_s=60.0)
    alone = admission.wait_s(4)
    admission.num = 4
    assert admission.wait_s(4) == 2.0 * (2 * 12 / 4 + 0.5)
    admission.num_busy = 4
    assert admission.wait_s(4) == 2.0 * (4 * 12 / 4 + 0.5)
    for _ in range(100):
        admission.count(8.0)  # as long as it takes while four share it
    assert admission.seconds == pytest.approx(2.0)
    admission.num = admission.num_busy = 1
    assert admission.wait_s(4) == pytest.approx(alone)
