"""Groups on the real server: members that come in different calls, to whichever ingress copy, are judged together."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.timeout(280)]


@pytest.fixture(scope="module")
def comparing(start):
    """A server whose rewards come from comparing."""
    return start(
        "judge: {judge: 'scripted:longer', replicas: 2, cpus: 0.5}\ningress_replicas: 2\nstore: none\n"
        "group_reward: win_rate"
    )


def member(server, i: int, *, group: str, prompt: str = "the prompt") -> object:
    body = {"prompts": [prompt], "completions": ["x" * (20 * i + 1)], "group_ids": [group], "group_size": 8}
    return server.post("/v1/rewards", body | {"ids": [f"m{i}"], "run": "r", "step": 1, "deadline_s": 30.0})


def test_eight_members_in_eight_calls_get_what_one_call_gets_and_so_do_retries(comparing):
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda i: member(comparing, i % 8, group="g").json(), range(16)))
    rewards = [answer["rewards"][0] for answer in answers]
    assert rewards[:8] == rewards[8:] == [i / 7 for i in range(8)]
    late = member(comparing, 3, group="g").json()
    assert late["rewards"] == [rewards[3]]
    completions = ["x" * (20 * i + 1) for i in range(8)]
    whole = comparing.post("/v1/rewards", {"prompts": ["the prompt"] * 8, "completions": completions}).json()
    assert whole["rewards"] == rewards[:8]


def test_a_group_of_two_prompts_is_refused_in_one_line(comparing):
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: member(comparing, i, group="mixed", prompt=f"p{i % 2}"), range(2)))
    (refused,) = [answer for answer in answers if answer.status_code != 200]
    assert refused.status_code == 400
    assert "different prompts" in refused.json()["error"]
    assert "Traceback" not in refused.text
