import json
import sys
import tracemalloc
from types import SimpleNamespace

import pytest

from flexreward.bench import BENCHES, Bar, Interval, interval, json_line, met, run_bench, text_lines
from flexreward.bench.overhead import GOAL_MB, GOAL_US, bars, requests
from flexreward.engines.scripted import ScriptedEngine
from flexreward.errors import RecipeError
from flexreward.judge import Judge
from flexreward.templates import load_template
from flexreward.types import Verdict

RATIO = Bar(value=4.5, goal=4.0, baseline=1.0, n=32, interval=Interval(4.0, 5.0))


def test_both_bars_are_measured_and_stand_beside_their_goals():
    found = bars(200)
    assert {name: bar.goal for name, bar in found.items()} == {"added_us": GOAL_US, "memory_above_start_mb": GOAL_MB}
    assert all(bar.n == 200 for bar in found.values())
    added = found["added_us"]
    assert added.interval.low <= added.value <= added.interval.high
    assert added.value > 0
    assert found["memory_above_start_mb"].value >= 0


async def test_every_request_of_the_bench_is_really_judged():
    judge = Judge(ScriptedEngine(lambda _: "<think>fine</think><answer>4</answer>"), load_template("score"))
    judgments = [judgment async for judgment in judge.judge_all(requests(50))]
    assert [judgment.request_id for judgment in judgments] == [str(i) for i in range(50)]
    assert all(isinstance(judgment.outcome, Verdict) for judgment in judgments)


async def test_memory_does_not_grow_with_the_number_of_requests():
    judge = Judge(ScriptedEngine(lambda _: "<think>fine</think><answer>4</answer>"), load_template("score"))

    async def peak_of(num_requests: int) -> int:
        tracemalloc.start()
        try:
            async for _ in judge.judge_all(requests(num_requests), max_in_flight=8):
                pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    await peak_of(100)  # caches fill once
    assert await peak_of(800) < await peak_of(200) + 200_000  # bytes; held on to, the judgments would be 1 MB


def test_the_line_of_json_holds_every_bar_and_the_machine():
    line = json.loads(json_line({"speed": RATIO}))
    assert line["bars"] == {"speed": {"value": 4.5, "goal": 4.0, "baseline": 1.0, "n": 32, "interval": [4.0, 5.0]}}
    assert {"cpu", "cores", "gpus", "python", "versions"} <= line["machine"].keys()


@pytest.mark.parametrize(
    ("value", "ratio_met", "unit_met"), [(3.0, False, True), (4.0, True, True), (5.0, True, False)]
)
def test_a_ratio_must_reach_its_goal_and_a_quantity_must_stay_below(value, ratio_met, unit_met):
    bar = Bar(value=value, goal=4.0, baseline=1.0, n=1, interval=Interval(value, value))
    assert met("ratio", bar) is ratio_met
    assert met("cost_us", bar) is unit_met


def test_a_missed_goal_is_said_in_the_line():
    missed = Bar(value=3.0, goal=4.0, baseline=1.0, n=1, interval=Interval(2.0, 3.5))
    assert text_lines({"speed": missed, "other": RATIO}) == [
        "speed 3 (2 to 3.5; baseline 1, n 1), goal at least 4: MISSED",
        "other 4.5 (4 to 5; baseline 1, n 32), goal at least 4: met",
    ]


def test_an_interval_holds_the_mean_and_is_the_same_each_time():
    values = [1.0, 2.0, 3.0, 4.0]
    assert interval(values) == interval(values)
    assert 1.0 <= interval(values).low < 2.5 < interval(values).high <= 4.0
    assert interval([2.0]) == (2.0, 2.0)


def test_a_bench_prints_its_bars_and_ends_in_one_line_of_json(monkeypatch, capsys):
    monkeypatch.setitem(BENCHES, "one", "one_bench:bars")
    monkeypatch.setitem(sys.modules, "one_bench", SimpleNamespace(bars=lambda: {"speed": RATIO}))
    run_bench("one", as_json=True)
    output = capsys.readouterr()
    assert json.loads(output.out)["bars"]["speed"]["value"] == 4.5
    assert output.out.count("\n") == 1
    assert output.err.startswith("speed 4.5")
    run_bench("one")
    assert capsys.readouterr().out.startswith("speed 4.5")


def test_an_unknown_bench_is_refused_by_name():
    with pytest.raises(RecipeError, match=r"'speed'.*engine"):
        run_bench("speed")
