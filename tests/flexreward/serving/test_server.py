"""The real server: ``flexreward serve`` on a Ray cluster of its own, asked over HTTP, and its parts killed."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from flexreward.client import RewardClient
from flexreward.engines.weights import digest
from flexreward.errors import UserError

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


def until_back(server, name: str, count: int) -> None:
    """Wait until a deployment has so many copies again."""
    until = time.monotonic() + 60
    while len(server.replicas(name)) < count:
        assert time.monotonic() < until, server.replicas(name)
        time.sleep(0.2)


def num_kept(server) -> int:
    """Replies in the server's store."""
    with sqlite3.connect(server.log.parent / "store.sqlite") as store:
        return int(store.execute("SELECT count(*) FROM kept").fetchone()[0])


def calls(server, name: str, *, per_call: int = 5) -> Callable[[int], dict]:
    def call(i: int) -> dict:
        body = {
            "prompts": [f"{name} {i}"] * per_call,
            "completions": ["x" * (10 * j + 1) for j in range(per_call)],
            "deadline_s": 60.0,
        }
        for _ in range(20):  # as every client of ours does
            try:
                answer = server.post("/v1/rewards", body)
            except httpx.TransportError:
                time.sleep(0.3)
                continue
            if answer.status_code in (500, 502, 503, 429):
                time.sleep(0.3)
                continue
            assert answer.status_code == 200, answer.text
            return answer.json()
        raise AssertionError("no answer in 20 tries")

    return call


def test_a_judgment_comes_back_with_its_scores(server):
    request = {"id": "a", "prompt": "Which?", "completions": ["short", "a good deal longer"]}
    answer = server.post("/v1/judge", {"requests": [request]})
    (outcome,) = answer.json()["outcomes"]
    assert (outcome["id"], outcome["template"], outcome["preferred"]) == ("a", "pair", 1)
    assert len(outcome["orders"]) == 2


def test_a_hundred_rewards_of_one_call_come_back_in_order(server):
    completions = ["x" * i for i in range(1, 101)]
    answer = server.post("/v1/rewards", {"prompts": ["q"] * 100, "completions": completions}).json()
    assert answer["metrics"]["num_unscored"] == 0
    assert answer["rewards"] == sorted(answer["rewards"])


def test_lines_come_as_each_judgment_ends(server):
    requests = [{"prompt": f"line {i}", "completions": ["a"]} for i in range(20)]
    headers = {"Authorization": f"Bearer {server.key}", "Accept": "application/x-ndjson"}
    with httpx.stream(
        "POST", f"{server.url}/v1/judge", json={"requests": requests}, headers=headers, trust_env=False, timeout=60
    ) as answer:
        rows = [json.loads(line) for line in answer.iter_lines()]
    assert sorted(row["index"] for row in rows) == list(range(20))


def test_it_asks_for_a_key_and_writes_none_down(server):
    assert httpx.post(f"{server.url}/v1/judge", json={"requests": []}, trust_env=False).status_code == 401
    in_path = httpx.post(f"{server.url}/k/{server.key}/v1/judge", json={"requests": []}, trust_env=False)
    assert in_path.status_code == 200
    assert len(server.written()) > 10
    assert not [path for path in server.written() if server.key.encode() in path.read_bytes()]


def test_other_frameworks_are_answered_in_their_own_words(server):
    query = "Why is the sky blue?Because of how light is scattered."
    answer = server.post("/get_reward", {"query": [query], "prompts": ["Why is the sky blue?"], "labels": [None]})
    (reward,) = answer.json()["rewards"]
    assert 0 < reward < 1


def test_the_models_themselves_answer_openais_clients(server):
    headers = {"Authorization": f"Bearer {server.key}"}
    models = httpx.get(f"{server.url}/v1/models", headers=headers, trust_env=False).json()
    assert "busy" in [model["id"] for model in models["data"]]
    call = {"model": "busy", "messages": [{"role": "user", "content": "x"}]}
    whole = server.post("/v1/chat/completions", call).json()
    assert whole["choices"][0]["message"]["content"] == "<think></think><answer>4</answer>"
    parts = server.post("/v1/chat/completions", call | {"stream": True}).text
    assert parts.endswith("data: [DONE]\n\n")


def test_equal_requests_at_two_ingress_copies_are_bought_once(server):
    body = {"prompts": ["the same"], "completions": ["asked for by many at once"]}
    with ThreadPoolExecutor(16) as pool:
        answers = [
            future.result().json() for future in [pool.submit(server.post, "/v1/rewards", body) for _ in range(16)]
        ]
    assert {tuple(answer["rewards"]) for answer in answers} == {tuple(answers[0]["rewards"])}
    with sqlite3.connect(server.log.parent / "store.sqlite") as store:
        kept = store.execute("SELECT key FROM kept").fetchall()
    again = server.post("/v1/rewards", body).json()
    with sqlite3.connect(server.log.parent / "store.sqlite") as store:
        assert store.execute("SELECT key FROM kept").fetchall() == kept
    assert again["rewards"] == answers[0]["rewards"]


def until_closed(closed: Path, count: int) -> None:
    until = time.monotonic() + 10
    while not closed.exists() or len(closed.read_text().splitlines()) < count:
        assert time.monotonic() < until
        time.sleep(0.05)


def test_what_a_caller_that_has_gone_asked_for_is_written_no_further(server, closed):
    before = len(closed.read_text().splitlines()) if closed.exists() else 0
    body = {"prompts": ["gone"], "completions": ["a"], "judge": "endless"}
    headers = {"Authorization": f"Bearer {server.key}"}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/v1/rewards", json=body, headers=headers, timeout=1.0, trust_env=False)
    until_closed(closed, before + 1)


def test_an_engine_that_hangs_is_ended_by_the_deadline(server, closed):
    before = len(closed.read_text().splitlines()) if closed.exists() else 0
    body = {"prompts": ["hangs"], "completions": ["a"], "judge": "endless", "deadline_s": 1.0}
    answer = server.post("/v1/rewards", body).json()
    assert (answer["rewards"], answer["reasons"]) == ([None], ["deadline"])
    until_closed(closed, before + 1)


def test_an_engine_that_hangs_is_started_anew(server):
    before = server.replicas("Engine-endless")
    body = {"prompts": ["hangs on"], "completions": ["a"], "judge": "endless", "deadline_s": 5.0}
    assert server.post("/v1/rewards", body).json()["reasons"] == ["deadline"]
    until = time.monotonic() + 60
    while len(after := server.replicas("Engine-endless")) != 1 or after == before:
        assert time.monotonic() < until, after
        time.sleep(0.2)
    answered = {"prompts": ["2 + 2"], "completions": ["after it hung"], "judge": "endless"}
    assert server.post("/v1/rewards", answered).json()["reasons"] == [None]


def test_an_engine_copy_killed_under_load_loses_no_request_and_settles_none_twice(server):
    before = num_kept(server)
    with ThreadPoolExecutor(40) as pool:
        futures = [pool.submit(calls(server, "engine"), i) for i in range(40)]
        time.sleep(1.0)
        os.kill(server.replicas("Engine-judge")[0], signal.SIGKILL)
        answers = [future.result() for future in futures]
    assert [reason for answer in answers for reason in answer["reasons"]] == [None] * 200
    repeated = [path for path in server.written() if b"died under a request" in path.read_bytes()]
    assert repeated  # else nothing was in flight there
    until_back(server, "Engine-judge", 2)
    assert num_kept(server) == before + 200


@pytest.mark.parametrize("killed", ["owner", "keeper"])
def test_the_ledger_killed_comes_back_with_what_was_settled(server, killed):
    body = {"prompts": ["kept"], "completions": [f"over the end of its {killed}"]}
    before = server.post("/v1/rewards", body).json()
    os.kill(server.owner() if killed == "owner" else server.replicas("Ledger")[0], signal.SIGKILL)
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(calls(server, f"ledger-{killed}"), range(10)))
    assert [reason for answer in answers for reason in answer["reasons"]] == [None] * 50
    assert server.post("/v1/rewards", body).json()["rewards"] == before["rewards"]


def test_a_full_disk_costs_what_would_have_been_kept_and_no_verdict(server):
    def rewarded(completion: str) -> list[str | None]:
        return server.post("/v1/rewards", {"prompts": ["disk"], "completions": [completion]}).json()["reasons"]

    before, room = num_kept(server), resource.prlimit(owner := server.owner(), resource.RLIMIT_FSIZE)
    resource.prlimit(owner, resource.RLIMIT_FSIZE, (0, room[1]))
    try:
        assert rewarded("while it is full") == [None]
    finally:
        resource.prlimit(owner, resource.RLIMIT_FSIZE, room)
    assert num_kept(server) == before
    assert [path for path in server.written() if b"what was bought is not kept" in path.read_bytes()]
    assert rewarded("when there is room again") == [None]
    assert num_kept(server) == before + 1


def asked(server, route: str, body: dict) -> dict:
    answer = server.post(route, body, key=server.admin_key)
    assert answer.status_code == 200, answer.text
    return answer.json()


def mib_of(server, name: str) -> int:
    (pid,) = server.replicas(name)
    fields = Path(f"/proc/{pid}/status").read_text().split()
    return int(fields[fields.index("VmRSS:") + 1]) // 1024


def test_a_judge_that_sleeps_gives_its_memory_back_and_stays_asleep_when_the_ledger_is_killed(server):
    before = mib_of(server, "Engine-endless")
    slept = asked(server, "/v1/sleep", {"judge": "endless"})
    assert slept["phase"] == "asleep"
    assert mib_of(server, "Engine-endless") < before - 150
    os.kill(server.replicas("Ledger")[0], signal.SIGKILL)
    call = {"prompts": ["p"], "completions": ["a"], "judge": "endless"}
    refused = server.post("/v1/rewards", call)
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "60")
    assert asked(server, "/v1/sleep", {"judge": "endless"})["phase"] == "asleep"
    assert mib_of(server, "Engine-endless") < before - 150
    assert asked(server, "/v1/wake", {"judge": "endless"})["phase"] == "awake"
    assert mib_of(server, "Engine-endless") > before - 50


def test_what_was_accepted_is_answered_before_a_judge_sleeps_and_its_lease_wakes_it(server):
    assert server.post("/v1/sleep", {}).status_code == 403
    # Long enough for a server that has just been waiting for a killed ledger, and expects as much again.
    body = {"completions": ["x" * i for i in range(1, 21)], "deadline_s": 280.0}
    with ThreadPoolExecutor(10) as pool:
        futures = [pool.submit(server.post, "/v1/rewards", body | {"prompts": [f"tired {i}"] * 20}) for i in range(10)]
        time.sleep(0.3)
        slept = asked(server, "/v1/sleep", {"lease_s": 6.0})
        refused = server.post("/v1/rewards", body | {"prompts": ["late"] * 20})
        answers = [future.result() for future in futures]
    assert slept["phase"] == "asleep"
    assert {answer.status_code for answer in answers} == {200}
    assert [reason for answer in answers for reason in answer.json()["reasons"]] == [None] * 200
    assert refused.status_code == 503
    assert 1 <= int(refused.headers["Retry-After"]) <= 6
    assert "asleep" in refused.json()["error"]
    time.sleep(slept["lease_s"])
    assert [reason for answer in (calls(server, "woken")(0),) for reason in answer["reasons"]] == [None] * 5


def test_other_weights_answer_under_another_fingerprint_once_the_reload_has_returned(ending, closed):
    call = {"requests": [{"prompt": "2 + 2", "completions": ["4"]}], "judge": "endless"}
    client = RewardClient(ending.url, key=ending.admin_key)
    (before,) = ending.post("/v1/judge", call).json()["outcomes"]
    assert ending.post("/v1/reload", {"model": "second"}).status_code == 403
    with pytest.raises(UserError, match=r"409.*expected 0+, found"):
        asyncio.run(client.reload("second", judge="endless", digest="0" * 64))
    weights = asyncio.run(client.reload("second", judge="endless", digest=digest(closed.parent / "second")))
    assert weights == digest(closed.parent / "second")
    for _ in range(8):  # whichever ingress copy answers
        (after,) = ending.post("/v1/judge", call).json()["outcomes"]
        assert (before["scores"], after["scores"]) == ([1.0], [2.0])
        assert before["judge"] != after["judge"]


def test_a_changed_recipe_rolls_out_under_load_and_no_outcome_is_half_of_each(ending):
    others, ours = ending.replicas("Engine-busy"), ending.replicas("Engine-judge")
    rolled = threading.Event()

    def ask(thread: int) -> list[dict]:
        found = []
        while not rolled.is_set():
            request = {"prompt": f"rolled {thread} {len(found)}", "completions": ["short", "a good deal longer"]}
            answer = ending.post("/v1/judge", {"requests": [request]})
            assert answer.status_code == 200, answer.text
            found += answer.json()["outcomes"]
        return found

    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(ask, thread) for thread in range(8)]
        time.sleep(1.0)
        # It waits for judges that sleep too, so that the next test need not roll that out by itself.
        ending.change(judges={"judge": {"judge": {"model": "scripted:first"}}}, asleep="wait")
        time.sleep(1.0)
        rolled.set()
        outcomes = [outcome for future in futures for outcome in future.result()]
    assert [outcome["reason"] for outcome in outcomes] == [None] * len(outcomes)
    said = {(outcome["judge"], *(tuple(order["scores"]) for order in outcome["orders"])) for outcome in outcomes}
    assert len(said) == len({judge for judge, *_ in said}) == 2
    assert not set(ours) & set(ending.replicas("Engine-judge"))
    assert others == ending.replicas("Engine-busy")


def test_where_the_recipe_waits_a_call_is_answered_when_the_judge_wakes_or_unscored_when_its_time_is_up(ending):
    def waiting(name: str, **fields: object) -> httpx.Response:
        return ending.post("/v1/rewards", {"prompts": [name], "completions": ["a"], "judge": "busy"} | fields)

    ending.change(asleep="wait")
    assert asked(ending, "/v1/sleep", {"judge": "busy"})["phase"] == "asleep"
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(waiting, f"waits {i}") for i in range(8)]  # at whichever ingress copy
        late = waiting("waits in vain", deadline_s=1.0)
        assert not [future for future in futures if future.done()]
        assert asked(ending, "/v1/wake", {"judge": "busy"})["phase"] == "awake"
        answers = [future.result() for future in futures]
    assert (late.status_code, late.json()["reasons"]) == (200, ["deadline"])
    assert "asleep" in late.json()["details"][0]
    assert [(answer.status_code, answer.json()["reasons"]) for answer in answers] == [(200, [None])] * 8


def test_at_the_end_what_was_accepted_is_answered(last):
    with ThreadPoolExecutor(10) as pool:
        futures = [
            pool.submit(last.post, "/v1/rewards", {"prompts": [f"end {i}"] * 40, "completions": ["x"] * 40})
            for i in range(10)
        ]
        time.sleep(0.3)
        last.process.send_signal(signal.SIGTERM)
        answers = [future.result() for future in futures]
    assert {answer.status_code for answer in answers} == {200}
    assert [reason for answer in answers for reason in answer.json()["reasons"]] == [None] * 400
    assert last.process.wait(90) == 0


def test_a_port_that_is_taken_is_one_line(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        (tmp_path / "r.yaml").write_text(f"judge: 'scripted:longer'\nport: {taken.getsockname()[1]}\n")
        ended = subprocess.run(
            [sys.executable, "-m", "flexreward", "serve", str(tmp_path / "r.yaml")], capture_output=True, text=True
        )
    assert ended.returncode == 2
    assert "cannot be listened on" in ended.stderr
    assert "Traceback" not in ended.stderr
