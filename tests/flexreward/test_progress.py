import io

import pytest

from flexreward.files.outcomes import Item
from flexreward.jobs.estimate import draw, forecast
from flexreward.jobs.progress import Pace, clock, meter
from flexreward.types import JudgeRequest, Judgment, OrderOutcome, Reason, Reply, Unscored, Vote

UNSCORED = Unscored(reason=Reason.NO_END)


def judgment(*, cached=False, tokens=10) -> Judgment:
    vote = Vote(outcome=UNSCORED, reply=Reply(text="", prompt_tokens=tokens, completion_tokens=2 * tokens))
    order = OrderOutcome(order=(0,), outcome=UNSCORED, votes=(vote,))
    return Judgment(request_id="q", template="score", outcome=UNSCORED, orders=(order,), judge="j", cached=cached)


def test_a_line_says_how_far_how_fast_and_how_long_still():
    pace = Pace(total=999, began=100.0, num_before=200, num_done=200, num_unscored=3)
    assert pace.line(110.0) == "400 of 999 (40 %), 20.0/s, 0:30 left, 3 unscored"
    pace = Pace(total=None, began=100.0, num_done=500, num_cached=2)
    assert pace.line(101.0) == "500, 500/s, 0 unscored, 2 from the store"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3723, "1:02:03"), (90061, "1 days 1:01:01")]
)
def test_times_read_like_a_clock(seconds, text):
    assert clock(seconds) == text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["lines", "bar"])
def test_progress_is_shown_on_a_terminal_and_elsewhere(stream):
    with meter(10, "out.jsonl", stream) as progress:
        progress.resumed(4)
        for _ in range(6):
            progress.add(judgment())
    assert "out.jsonl" in stream.getvalue()
    assert "10 of 10 (100 %)" in stream.getvalue()
    assert "6 unscored" in stream.getvalue()


def test_an_estimate_multiplies_what_was_measured_and_does_not_time_what_was_kept():
    found = forecast([judgment(), judgment(cached=True)], total=100, seconds=2.0)
    assert (found.prompt_tokens, found.completion_tokens, found.seconds) == (1000, 2000, 200.0)
    assert found.unscored_share == 1.0
    assert forecast([judgment(cached=True)], total=100, seconds=1.0).seconds is None


def test_rows_for_an_estimate_are_drawn_evenly_and_in_their_order():
    items = [Item(JudgeRequest(id=str(i), prompt="p", completions=("c",)), {}) for i in range(1000)]
    drawn = draw(iter(items))
    places = [int(item.request.id) for item in drawn.items]
    assert (len(places), drawn.total) == (32, 1000)
    assert places == sorted(places)
    assert 300 < sum(places) / 32 < 700
    assert draw(iter(items[:5])).items == items[:5]
