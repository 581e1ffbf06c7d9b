"""Groups on the real server: members that come in different calls, to whichever ingress copy, are judged together."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


JUDGE = {"judge": "comparing"}


def member(server, i: int, *, group: str, prompt: str = "the prompt", deadline_s: float = 30.0) -> object:
    body = {"prompts": [prompt], "completions": ["x" * (20 * i + 1)], "group_ids": [group], "group_size": 8}
    return server.post(
        "/v1/rewards", body | JUDGE | {"ids": [f"m{i}"], "run": "r", "step": 1, "deadline_s": deadline_s}
    )


def test_eight_members_in_eight_calls_get_what_one_call_gets_and_so_do_retries(server):
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda i: member(server, i % 8, group="g").json(), range(16)))
    rewards = [answer["rewards"][0] for answer in answers]
    assert rewards[:8] == rewards[8:] == [i / 7 for i in range(8)]
    late = member(server, 3, group="g").json()
    assert late["rewards"] == [rewards[3]]
    completions = ["x" * (20 * i + 1) for i in range(8)]
    whole = server.post("/v1/rewards", {"prompts": ["the prompt"] * 8, "completions": completions} | JUDGE)
    assert whole.json()["rewards"] == rewards[:8]


def test_a_group_of_two_prompts_is_refused_in_one_line(server):
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: member(server, i, group="m", prompt=f"p{i % 2}", deadline_s=8.0), range(2)))
    (refused,) = [answer for answer in answers if answer.status_code != 200]
    assert refused.status_code == 400
    assert "different prompts" in refused.json()["error"]
    assert "Traceback" not in refused.text
