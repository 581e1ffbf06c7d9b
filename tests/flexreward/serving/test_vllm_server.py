"""The real server over the real vLLM, run by ``ray.serve.llm``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flexreward.config import open_judge, resolve_judge
from flexreward.types import JudgeRequest

pytestmark = [pytest.mark.ray, pytest.mark.vllm, pytest.mark.timeout(600)]

EXAMPLE = json.loads((Path(__file__).parents[3] / "recipes/tiny/example.json").read_text())


@pytest.fixture(autouse=True)
def _served():
    pytest.importorskip("vllm")


def test_a_copy_of_vllm_writes_what_the_embedded_engine_writes(server):
    completions = (EXAMPLE["right"], EXAMPLE["wrong"])
    request = {"prompt": EXAMPLE["prompt"], "completions": list(completions)}
    (outcome,) = server.post("/v1/judge", {"requests": [request], "judge": "vllm"}).json()["outcomes"]
    embedded = open_judge(resolve_judge("tiny").model_copy(update={"dtype": "float32"}), template="pair")
    (judgment,) = embedded.judge_now([JudgeRequest(prompt=EXAMPLE["prompt"], completions=completions)])
    replies = [order["votes"][0]["reply"] for order in outcome["orders"]]
    assert replies == [order.votes[0].reply.text for order in judgment.orders]
    assert outcome["preferred"] == 0


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
