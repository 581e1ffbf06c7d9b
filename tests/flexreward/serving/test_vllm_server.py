"""The real server over the real vLLM, run by ``ray.serve.llm``: a judge that is an adapter over the bundled one."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flexreward.client import RewardClient
from flexreward.config import open_judge, resolve_judge
from flexreward.engines.weights import digest
from flexreward.types import JudgeRequest
from tests.flexreward.serving.conftest import KEYS
from tests.flexreward.serving.test_server import num_kept

pytestmark = [pytest.mark.ray, pytest.mark.vllm, pytest.mark.timeout(600)]

EXAMPLE = json.loads((Path(__file__).parents[3] / "recipes/tiny/example.json").read_text())
PAIR = {"prompt": EXAMPLE["prompt"], "completions": [EXAMPLE["right"], EXAMPLE["wrong"]]}
VOTES = 5
TOLD_S = 5.0
"""After which Ray's metrics, told every second here, show what has happened."""


@pytest.fixture(autouse=True)
def _served():
    pytest.importorskip("vllm")


def outcome(server, *, key: str = "") -> dict:
    answer = server.post("/v1/judge", {"requests": [PAIR], "judge": "vllm"}, key=key)
    assert answer.status_code == 200, answer.text
    (found,) = answer.json()["outcomes"]
    return found


def replies(found: dict) -> tuple[str, ...]:
    """The first reply to each order."""
    return tuple(order["votes"][0]["reply"] for order in found["orders"])


def embedded(model: Path | None = None) -> tuple[str, ...]:
    """What the embedded engine writes of the same pair; with the bundled judge, or another model."""
    changes = {"dtype": "float32"} | ({} if model is None else {"model": str(model)})
    judge = open_judge(resolve_judge("tiny").model_copy(update=changes), template="pair")
    request = JudgeRequest(prompt=PAIR["prompt"], completions=tuple(PAIR["completions"]))
    (judgment,) = judge.judge_now([request])
    return tuple(order.votes[0].reply.text for order in judgment.orders)


def test_a_copy_of_vllm_writes_under_an_adapter_what_the_embedded_engine_writes_with_the_merged_weights(
    server, adapted
):
    found = replies(outcome(server))
    assert found == embedded(adapted.parent / "merged")
    assert found != embedded()


def test_a_prompt_that_does_not_fit_is_unscored_with_its_reason_and_the_next_one_is_judged(server):
    requests = [{"prompt": "word " * 20_000, "completions": ["a"]}, {"prompt": "2 + 2?", "completions": ["4"]}]
    long, short = server.post("/v1/judge", {"requests": requests, "judge": "vllm"}).json()["outcomes"]
    assert long["reason"] == "context"
    assert short["reason"] not in ("engine", "context")


def test_a_judge_on_vllm_says_after_its_sleep_what_it_said_before(server):
    def asked(route):
        return server.post(route, {"judge": "vllm"}, key=server.admin_key).json()

    assert asked("/v1/sleep")["phase"] == "asleep"
    call = {"requests": [{"prompt": "3 + 3?", "completions": ["6", "7"]}], "judge": "vllm"}
    assert server.post("/v1/judge", call).status_code == 503
    assert asked("/v1/wake")["phase"] == "awake"
    (outcome,) = server.post("/v1/judge", call).json()["outcomes"]
    assert [len(order["votes"]) for order in outcome["orders"]] == [1, 1]
    assert all(order["votes"][0]["reply"] for order in outcome["orders"])


def test_weights_of_vllm_are_exchanged_under_load_and_no_outcome_is_half_of_two(ending, closed):
    before, arrived = outcome(ending), threading.Event()
    keys = itertools.cycle(KEYS[1:])  # nothing is found again under another key: each is judged anew

    def ask() -> list[dict]:
        found = []
        while not arrived.is_set():
            found.append(outcome(ending, key=next(keys)))
            time.sleep(0.3)
        return found

    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(ask) for _ in range(3)]
        client = RewardClient(ending.url, key=ending.admin_key)
        try:
            weights = asyncio.run(client.reload("plain", judge="vllm", digest=digest(closed.parent / "plain")))
        finally:
            arrived.set()
        seen = [one for each in asking for one in each.result()]
    after = outcome(ending)
    assert weights == digest(closed.parent / "plain")
    assert (before["judge"] != after["judge"], replies(after)) == (True, embedded())
    assert not set(replies(before)) & set(replies(after))
    assert {(one["judge"], replies(one)) for one in seen} <= {(one["judge"], replies(one)) for one in (before, after)}
    assert sum(one["judge"] == before["judge"] for one in seen) > 3


@pytest.fixture
def voting(ending, closed):
    """The same server with two copies of vLLM, whose votes end once their winner is sure."""
    plain = closed.parent / "plain"
    voted = {"votes": VOTES, "temperature": 0.05, "aggregate": "majority", "stop": "lossless"}
    judge = {"model": str(plain.resolve()), "lora": None} | voted
    ending.change(judges={"vllm": {"judge": judge, "weights": digest(plain), "replicas": 2}})
    return ending


def test_replies_that_a_vote_does_not_need_are_not_begun(voting):
    def num_read() -> int:
        """Tokens of prompts that vLLM has read, once Ray has told of all."""
        found, since = voting.counted("prompt_tokens", "vllm"), time.monotonic()
        while time.monotonic() < since + TOLD_S:
            time.sleep(0.5)
            if (newer := voting.counted("prompt_tokens", "vllm")) != found:
                found, since = newer, time.monotonic()
        return found

    before = num_read()
    found = outcome(voting)
    read = num_read() - before
    needed = VOTES // 2 + 1
    assert [len(order["votes"]) for order in found["orders"]] == [needed] * 2
    assert read == needed * found["tokens"]["prompt"]


def test_a_copy_of_vllm_killed_under_load_loses_no_request_and_settles_none_twice(voting):
    def num_repeated() -> int:
        return sum(path.read_bytes().count(b"died under a request") for path in voting.written())

    def asked(thread: int) -> list[dict]:
        numbers = [(10 + thread, 11 + i) for i in range(5)]
        requests = [
            {
                "prompt": f"Eva has {a} shells and gets {b} more. How many are there now?",
                "completions": [f"The answer is {a + b}.", f"The answer is {a + b + 10}."],
            }
            for a, b in numbers
        ]
        answer = voting.post("/v1/judge", {"requests": requests, "judge": "vllm"})
        assert answer.status_code == 200, answer.text
        return answer.json()["outcomes"]

    kept, repeated, copies = num_kept(voting), num_repeated(), voting.replicas("Engine-vllm")
    assert len(copies) == 2
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(asked, thread) for thread in range(8)]
        time.sleep(1.5)
        os.kill(copies[0], signal.SIGKILL)
        outcomes = [outcome for future in futures for outcome in future.result()]
    assert len(outcomes) == 40
    assert not {outcome["reason"] for outcome in outcomes} & {"engine", "deadline", "refused"}
    assert all(len(order["votes"]) >= VOTES // 2 + 1 for outcome in outcomes for order in outcome["orders"])
    assert num_repeated() > repeated  # else nothing was in flight there
    assert num_kept(voting) == kept + 80
