"""What the readings of a run over many rows come to."""

from __future__ import annotations

from flexreward.bench.spread import Reading, figures


def run(pid: int, parts: range, *, mb: float, grows: float = 0.0, from_s: float = 0.0) -> list[Reading]:
    """A reading every two seconds, a part in each."""
    return [
        Reading(pid, from_s + 2.0 * i, number, True, mb + grows * i, 10 * mb + grows * i)
        for i, number in enumerate(parts)
    ]


def test_the_rate_is_of_the_time_in_which_rows_streamed_over_all_runs():
    begins = Reading(2, 900.0, 10, True, 10, 20)
    readings = [*run(1, range(1, 11), mb=100), begins, *run(2, range(10, 31), mb=100, from_s=1000.0)]
    found = figures([*readings, Reading(2, 2000.0, 0, False, 500, 600)], 3000, 100)
    assert found["rows_per_s"] == 50.0
    assert (found["num_runs"], found["rows_at_a_stretch"]) == (2, 1900)
    assert found["mb_early"] == {"command": 100, "with_cluster": 1000}


def test_memory_that_grows_with_the_rows_shows_between_early_and_late():
    flat, growing = (figures(run(1, range(101), mb=100, grows=mb), 100, 1) for mb in (0.0, 1.0))
    assert flat["mb_early"] == flat["mb_late"] == {"command": 100, "with_cluster": 1000}
    assert growing["mb_early"] == {"command": 110.5, "with_cluster": 1010.5}
    assert growing["mb_late"] == {"command": 195.5, "with_cluster": 1095.5}


def test_what_comes_after_the_stream_has_a_peak_of_its_own():
    found = figures([*run(1, range(9), mb=100), Reading(1, 99.0, 0, False, 230, 240)], 9, 1)
    assert found["mb_peak"] == {"command": 100, "with_cluster": 1000}
    assert found["mb_peak_after"] == {"command": 230, "with_cluster": 240}


def test_before_the_second_part_there_is_no_rate():
    assert figures(run(1, range(1, 2), mb=100), 10, 1)["rows_per_s"] == 0.0
