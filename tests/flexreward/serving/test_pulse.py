"""When a copy of an engine counts as one that hangs."""

from __future__ import annotations

import pytest

from flexreward.errors import EngineError
from flexreward.serving.pulse import Pulse


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_copy_that_has_nothing_to_do_does_not_hang(clock):
    pulse = Pulse(10.0, clock=clock)
    clock.now += 1000
    pulse.check()


def test_a_copy_that_answers_now_and_then_does_not_hang(clock):
    pulse = Pulse(10.0, clock=clock)
    with pulse.at_work():
        for _ in range(5):
            clock.now += 9
            pulse.check()
            pulse.beat()


def test_a_copy_that_answers_nobody_for_too_long_hangs(clock):
    pulse = Pulse(10.0, clock=clock)
    with pulse.at_work():
        clock.now += 11
        with pytest.raises(EngineError, match="no reply in 11 s with prompts at work, the limit hang_s"):
            pulse.check()


def test_prompts_whose_callers_have_gone_count_and_the_time_between_them_does_not(clock):
    pulse = Pulse(10.0, clock=clock)
    for _ in range(2):
        with pulse.at_work():
            clock.now += 4
        clock.now += 1000
        pulse.check()
    with pulse.at_work():
        clock.now += 4
    with pytest.raises(EngineError, match="no reply in 12 s"):
        pulse.check()
