"""Ten times what the real server can carry."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.flexreward.serving.slow import LANES, TAKES_S

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

CAPACITY = LANES / TAKES_S
"""Judgments a second of the judge ``busy``."""
TIMES = 10
PER_CALL = 10
FOR_S = 10.0
DEADLINE_S = 8.0


def asked(server, name: str, count: int):
    """The answer to a call for rewards, and when it came."""
    texts = [f"{name} {i}" for i in range(count)]
    body = {"prompts": texts, "completions": texts, "judge": "busy", "deadline_s": DEADLINE_S}
    began = time.monotonic()
    answer = server.post("/v1/rewards", body)
    return answer, time.monotonic() - began


def test_ten_times_the_load_is_refused_but_for_what_can_be_answered_in_time(server):
    num_calls = round(TIMES * CAPACITY * FOR_S / PER_CALL)
    before = server.memory()
    began = time.monotonic()
    with ThreadPoolExecutor(num_calls) as pool:
        calls = []
        for i in range(num_calls):
            time.sleep(max(began + i * FOR_S / num_calls - time.monotonic(), 0))
            calls.append(pool.submit(asked, server, f"load {i}", PER_CALL))
        offered_s = time.monotonic() - began
        most = server.memory()
        ended = [call.result() for call in calls]
    took_s = time.monotonic() - began
    accepted = [(answer.json(), seconds) for answer, seconds in ended if answer.status_code == 200]
    refused = [answer for answer, _ in ended if answer.status_code != 200]
    reasons = [reason for answer, _ in accepted for reason in answer["reasons"]]
    scored = reasons.count(None) / len(reasons)
    goodput = reasons.count(None) / took_s / CAPACITY

    recovering = time.monotonic()
    while (found := asked(server, f"after {time.monotonic()}", LANES))[0].status_code != 200 or found[1] > 1.5:
        assert time.monotonic() - recovering < 10
        time.sleep(0.2)
    print(
        f"\noffered {num_calls * PER_CALL / offered_s / CAPACITY:.1f} of capacity, accepted {len(accepted)} of "
        f"{num_calls} calls, scored in time {scored:.3f} of them, goodput {goodput:.2f}, slowest "
        f"{max(seconds for _, seconds in accepted):.1f} s, memory {before / 2**20:.0f} to {most / 2**20:.0f} MiB, "
        f"recovered {time.monotonic() - recovering:.1f} s after"
    )
    assert {answer.status_code for answer in refused} == {429}
    assert all(1 <= int(answer.headers["Retry-After"]) <= 60 for answer in refused)
    assert len(refused) > num_calls / 2
    assert scored >= 0.99
    assert goodput >= 0.8
    assert most - before < 200 * 2**20
