"""The routes over HTTP: what is asked, what comes back, and what is refused."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from dataclasses import replace
from typing import Annotated

import pytest
from fastapi import APIRouter, Depends
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flexreward.engines.scripted import ScriptedEngine
from flexreward.errors import EngineError
from flexreward.media.limits import LIMITS
from flexreward.pairs.contest import METHODS
from flexreward.serving.app import Bounds, _read_all, _rows
from flexreward.serving.callers import admin_of, caller_of
from flexreward.serving.contract import Caller
from flexreward.serving.wire import JudgeBody
from flexreward.types import Reply
from tests.flexreward.serving.served import ADMIN, KEY, OTHER, client_of, digits, service_over

PAIR = {"id": "p", "prompt": "Which?", "completions": ["ends in 3", "ends in 8"]}
ONE = {"id": "o", "prompt": "How good?", "completions": ["ends in 3"]}
DOT = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8cfc000000301"
        "0100c9fe92ef0000000049454e44ae426082"
    )
).decode()


def dead(prompt):
    raise EngineError("it is dead")


async def judged(client, *requests, **more):
    answer = await client.post("/v1/judge", json={"requests": list(requests), **more})
    assert answer.status_code == 200, answer.text
    return answer.json()["outcomes"]


async def test_outcomes_come_in_the_order_of_the_requests_each_by_the_template_that_fits():
    async with client_of() as client:
        pair, one = await judged(client, PAIR, ONE)
    assert (pair["id"], pair["template"], pair["scores"], pair["preferred"]) == ("p", "pair", [3.0, 8.0], 1)
    assert (one["id"], one["template"], one["scores"]) == ("o", "score", [3.0])
    assert [order["order"] for order in pair["orders"]] == [[0, 1], [1, 0]]


async def test_what_is_wrong_with_one_request_is_told_in_its_outcome_and_the_others_are_judged():
    wrong = {"id": "w", "prompt": "x", "completions": []}
    async with client_of() as client:
        bad, unknown, good = await judged(client, wrong, {**ONE, "imgaes": []}, ONE)
    assert (bad["id"], bad["status"], bad["reason"]) == ("w", "unscored", "refused")
    assert bad["detail"].startswith("requests[0].completions: ")
    assert unknown["detail"] == "requests[1].imgaes: Extra inputs are not permitted"
    assert good["scores"] == [3.0]


async def test_a_request_that_its_template_cannot_show_is_unscored():
    async with client_of() as client:
        outcome, good = await judged(client, {**ONE, "template": "pair"}, ONE)
    assert (outcome["status"], outcome["reason"]) == ("unscored", "refused")
    assert "expected 2 completion(s), found 1" in outcome["detail"]
    assert good["status"] == "scored"


async def test_a_line_comes_as_each_judgment_ends():
    gate = asyncio.Event()

    class Held(ScriptedEngine):
        async def generate(self, prompt, sampling):
            if "slow" in prompt.user:
                await gate.wait()
            async for reply in super().generate(prompt, sampling):
                yield reply

    service = service_over(Held(digits))

    body = JudgeBody(requests=[{**ONE, "prompt": "slow"}, ONE])
    rows = _rows(service, _read_all(body, Bounds()), body, Caller())
    first = await anext(rows)
    gate.set()
    assert first.place == 1
    assert (await anext(rows)).place == 0
    await rows.aclose()


async def test_lines_hold_their_index_where_they_are_asked_for():
    async with client_of() as client:
        answer = await client.post(
            "/v1/judge", json={"requests": [PAIR, ONE]}, headers={"Accept": "application/x-ndjson"}
        )
    rows = [json.loads(line) for line in answer.text.splitlines()]
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    assert {row["index"]: row["scores"] for row in rows} == {0: [3.0, 8.0], 1: [3.0]}


async def test_rewards_are_in_order_and_what_failed_is_null_with_its_reason():
    def some(prompt):
        if "broken" in prompt.user:
            raise EngineError("it is dead")
        return digits(prompt)

    body = {"prompts": ["a", "a", "b"], "completions": ["is 1", "is broken", "is 4"], "columns": {"label": [1, 2, 3]}}
    async with client_of(service_over(ScriptedEngine(some))) as client:
        answer = (await client.post("/v1/rewards", json=body)).json()
    assert answer["rewards"] == [0.0, None, 0.75]
    assert answer["scores"] == [1.0, None, 4.0]
    assert answer["reasons"] == [None, "engine", None]
    assert answer["metrics"]["unscored"] == {"engine": 1}
    assert answer["metrics"]["reward_mean"] == 0.375
    assert answer["reasoning"][0].startswith("<think>")


async def test_a_call_for_no_rewards_says_that_the_way_is_free():
    async with client_of() as client:
        answer = await client.post("/v1/rewards", json={"prompts": [], "completions": []})
        wrong = await client.post("/v1/rewards", json={"prompts": [], "completions": [], "judge": "other"})
    assert answer.json()["rewards"] == []
    assert (wrong.status_code, wrong.json()["error"]) == (400, "judge: no judge 'other', expected one of main")


async def test_reranking_puts_the_best_first():
    async with client_of() as client:
        answer = await client.post("/v1/rerank", json={"prompt": "Which?", "completions": ["is 2", "is 9", "is 5"]})
    assert answer.json() == {
        "status": "scored",
        "order": [1, 2, 0],
        "scores": [2.0, 9.0, 5.0],
        "reason": None,
        "detail": "",
        "counts": None,
    }


@pytest.mark.parametrize("method", METHODS)
async def test_reranking_by_a_method_tells_its_judgments(method):
    service = service_over()
    body = {"prompt": "Which?", "completions": ["is 2", "is 5", "is 3", "is 5"], "method": method}
    async with client_of(service) as client:
        answer = (await client.post("/v1/rerank", json=body)).json()
    assert answer["order"][:2] == [1, 3]
    assert (answer["status"], answer["reason"]) == ("scored", None)
    assert answer["counts"]["judgments"] >= 1
    assert answer["counts"]["unscored"] == 0
    assert service.judges["main"].admission.accepted == 0


async def test_what_could_not_be_read_ranks_last_without_a_score():
    def some(prompt):
        if "broken" in prompt.user:
            raise EngineError("it is dead")
        return digits(prompt)

    async with client_of(service_over(ScriptedEngine(some))) as client:
        body = {"prompt": "Which?", "completions": ["is broken", "is 2", "is 5"]}
        alone = (await client.post("/v1/rerank", json={**body, "method": "pointwise"})).json()
        every = (await client.post("/v1/rerank", json={**body, "method": "round-robin"})).json()
        none = (await client.post("/v1/rerank", json={**body, "method": "listwise"})).json()
    assert (alone["order"], alone["scores"], alone["counts"]["unscored"]) == ([2, 1, 0], [None, 2, 5], 1)
    assert (every["order"], every["scores"], every["counts"]["unscored"]) == ([2, 1, 0], [None, 0, 1], 2)
    assert (none["status"], none["order"], none["scores"], none["reason"]) == ("unscored", None, None, "engine")


async def test_a_method_that_does_not_fit_is_refused():
    shown = {"prompt": "?", "completions": [f"is {n}" for n in range(5)]}
    async with client_of(service_over(both_orders=False), max_requests=6) as client:
        for more, status, message in (
            ({"method": "swiss"}, 422, "method: "),
            ({"method": "listwise", "list_size": 2}, 422, "list_size: "),
            ({"method": "round-robin"}, 413, "completions: 5 by round-robin take 10 judgments in one call, the limit"),
            ({"method": "knockout", "template": "score"}, 400, "template: score does not show 2 completions, as"),
            ({"method": "knockout"}, 400, "method: the judge shows one order, and knockout needs both"),
        ):
            answer = await client.post("/v1/rerank", json={**shown, **more})
            assert answer.status_code == status
            assert answer.json()["error"].startswith(message)


async def test_a_deadline_is_that_of_all_rounds_together():
    class Tiring(ScriptedEngine):
        """Hangs after the first round of eight: four pairs in both orders."""

        async def generate(self, prompt, sampling):
            if self.num_calls >= 8:
                await asyncio.sleep(60)
            async for reply in super().generate(prompt, sampling):
                yield reply

    async with client_of(service_over(Tiring(digits))) as client:
        body = {"prompt": "?", "completions": [f"is {n}" for n in range(8)], "method": "knockout", "deadline_s": 2}
        began = time.monotonic()
        answer = (await client.post("/v1/rerank", json=body)).json()
    assert time.monotonic() - began < 20
    assert (answer["status"], answer["order"], answer["reason"]) == ("unscored", None, "deadline")
    assert answer["counts"]["judgments"] == 6


async def test_what_cannot_be_ranked_has_no_order():
    async with client_of(service_over(ScriptedEngine(dead))) as client:
        answer = (await client.post("/v1/rerank", json={"prompt": "?", "completions": ["a", "b"]})).json()
    assert (answer["status"], answer["order"], answer["reason"]) == ("unscored", None, "engine")


async def test_a_deadline_ends_a_call():
    async with client_of(service_over(ScriptedEngine(digits, delay_s=5.0))) as client:
        (outcome,) = await judged(client, ONE, deadline_s=0.1)
    assert outcome["reason"] in ("deadline", "quorum")
    assert outcome["scores"] is None


async def test_without_the_right_key_nothing_is_answered():
    async with client_of(reward_keys=[KEY, OTHER], admin_keys=[ADMIN]) as client:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {KEY}"}):
            answer = await client.post("/v1/judge", json={"requests": [ONE]}, headers=headers)
            assert answer.status_code == 401
            assert "key" in answer.json()["error"]
        for key in (KEY, OTHER, ADMIN):
            answer = await client.post(
                "/v1/judge", json={"requests": [ONE]}, headers={"Authorization": f"Bearer {key}"}
            )
            assert answer.status_code == 200
        assert (await client.get("/openapi.json")).status_code == 401
        assert (await client.get("/healthz")).status_code == 200


async def test_a_key_may_stand_in_the_path_and_is_seen_by_nobody_behind_the_door():
    seen = APIRouter()

    @seen.get("/where")
    async def where(caller: Annotated[Caller, Depends(caller_of)]) -> dict[str, str]:
        return {"namespace": caller.namespace}

    async with client_of(reward_keys=[KEY], routers=[seen]) as client:
        answer = await client.get(f"/k/{KEY}/where")
        by_header = await client.get("/where", headers={"Authorization": f"Bearer {KEY}"})
        assert (await client.get("/k/wrong/where")).status_code == 401
        assert (await client.get(f"/k/{KEY}")).status_code == 404
    assert answer.json() == by_header.json()
    assert KEY not in answer.text


async def test_a_reward_key_opens_no_route_for_admins():
    admin = APIRouter()

    @admin.post("/v1/stop")
    async def stop(caller: Annotated[Caller, Depends(admin_of)]) -> dict[str, bool]:
        return {"admin": caller.is_admin}

    async with client_of(reward_keys=[KEY], admin_keys=[ADMIN], routers=[admin]) as client:
        refused = await client.post("/v1/stop", headers={"Authorization": f"Bearer {KEY}"})
        allowed = await client.post("/v1/stop", headers={"Authorization": f"Bearer {ADMIN}"})
    assert refused.status_code == 403
    assert allowed.json() == {"admin": True}


async def test_without_keys_nobody_is_an_admin():
    admin = APIRouter()

    @admin.post("/v1/stop")
    async def stop(caller: Annotated[Caller, Depends(admin_of)]) -> None: ...

    async with client_of(routers=[admin]) as client:
        assert (await client.post("/v1/stop")).status_code == 403


async def test_a_body_above_the_limit_is_refused_whether_it_says_its_length_or_not():
    async def parts():
        for _ in range(100):
            yield b" " * 1000

    async with client_of(max_body_bytes=10_000) as client:
        said = await client.post("/v1/judge", content=b" " * 20_000)
        streamed = await client.post("/v1/judge", content=parts(), headers={"Content-Type": "application/json"})
        assert (await client.post("/v1/judge", json={"requests": [ONE]})).status_code == 200
    for answer in (said, streamed):
        assert answer.status_code == 413
        assert "max_body_bytes" in answer.json()["error"]


async def test_a_body_that_does_not_come_is_waited_for_no_longer_than_the_recipe_says():
    async def parts():
        yield b"{"
        await asyncio.sleep(5)

    async with client_of(body_s=0.1) as client:
        answer = await client.post("/v1/judge", content=parts(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 408
    assert answer.json()["error"] == "the body did not come within 0.1 s, the limit body_s"


async def test_what_is_open_at_once_is_bounded_in_number_and_in_bytes_and_the_next_may_come_after_it():
    service = service_over(ScriptedEngine(digits, delay_s=0.2))
    async with client_of(service, max_open=2, max_body_bytes=4096) as client:
        answers = await asyncio.gather(*(client.post("/v1/judge", json={"requests": [ONE]}) for _ in range(3)))
        assert sorted(answer.status_code for answer in answers) == [200, 200, 429]
        assert max(answers, key=lambda answer: answer.status_code).headers["Retry-After"] == "1"
    long = {"requests": [ONE | {"prompt": "long " * 600}]}
    async with client_of(service, max_body_bytes=4096) as client:
        answers = await asyncio.gather(*(client.post("/v1/judge", json=long) for _ in range(40)))
        assert {answer.status_code for answer in answers} == {200, 429}
        assert (await client.post("/v1/judge", json=long)).status_code == 200


async def test_more_requests_than_allowed_are_refused_by_name():
    async with client_of(max_requests=2) as client:
        answer = await client.post("/v1/judge", json={"requests": [ONE] * 3})
    assert answer.status_code == 413
    assert answer.json()["error"] == "requests: 3 in one call, the limit max_requests is 2"


async def test_media_are_held_to_the_limits_of_the_judge_that_is_asked():
    service = service_over()
    service.judges["strict"] = service.judges["main"]
    image = f"data:image/png;base64,{DOT}"
    async with client_of(service, others={"strict": replace(LIMITS, image_bytes=10)}) as client:
        shown = {"prompt": "p", "completions": ["ends with 1", "ends with 2"], "images": [image]}
        rewarded = {"prompts": ["p"], "completions": ["ends with 1"], "columns": {"images": [[image]]}}
        for route, body in (
            ("/v1/judge", {"requests": [shown]}),
            ("/v1/rewards", rewarded),
            ("/v1/rerank", shown),
        ):
            assert "the limit" not in (await client.post(route, json=body)).text
            assert "the limit" in (await client.post(route, json={**body, "judge": "strict"})).text


@pytest.mark.parametrize("image", ["/etc/passwd", "file:///etc/passwd", "x.png", {"path": "/etc/passwd"}])
async def test_a_path_in_a_request_is_never_opened(image):
    async with client_of() as client:
        for request in (
            {**ONE, "images": [image]},
            {**ONE, "completions": [{"image": image}]},
            {**ONE, "prompt": [{"role": "user", "content": [{"type": "image", "image": image}]}]},
        ):
            (outcome,) = await judged(client, request)
            assert outcome["reason"] == "refused"
            assert any(
                word in outcome["detail"] for word in ("paths are not opened", "host that the operator", "no http")
            )


async def test_an_image_comes_as_a_data_uri_or_as_base64_bytes():
    async with client_of() as client:
        outcomes = await judged(
            client,
            {**ONE, "images": [f"data:image/png;base64,{DOT}"]},
            {**ONE, "images": [{"bytes": DOT}]},
            {**ONE, "images": [{"bytes": "no base64!"}]},
        )
    assert [outcome["template"] for outcome in outcomes[:2]] == ["image-score", "image-score"]
    assert outcomes[0]["request"] == outcomes[1]["request"]
    assert outcomes[2]["detail"] == "requests[2]: images[0].bytes: is no base64"


async def test_a_template_is_one_of_the_bundled_and_never_a_file(tmp_path):
    (tmp_path / "mine.toml").write_text("")
    async with client_of() as client:
        answer = await client.post("/v1/judge", json={"requests": [ONE], "template": str(tmp_path / "mine.toml")})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("template: no template")


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (b"{", 400, "the body is no JSON"),
        (b"[]", 422, "the body: "),
        (b"null", 422, "the body: "),
        (b"{}", 422, "requests: Field required"),
        (b'{"requests": 3}', 422, "requests: Input should be a valid list"),
        (b'{"requests": [], "deadline_s": -1}', 422, "deadline_s: Input should be greater than 0"),
        (b'{"requests": [], "deadline_s": NaN}', 422, "deadline_s: Input should be"),
        (b'{"requests": [], "more": 1}', 422, "more: Extra inputs are not permitted"),
        (b"[" * 100_000, 400, ""),
        (b'{"requests": "\xff"}', 400, ""),
    ],
)
async def test_a_bad_body_is_refused_in_one_line_that_names_the_field(content, status, message):
    async with client_of() as client:
        answer = await client.post("/v1/judge", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert answer.json()["error"].startswith(message)
    assert "\n" not in answer.json()["error"]


async def test_columns_of_another_length_are_named():
    body = {"prompts": ["a", "b"], "completions": ["c", "d"], "columns": {"rubric": ["r"]}}
    async with client_of() as client:
        answer = await client.post("/v1/rewards", json=body)
    assert answer.status_code == 422
    assert answer.json()["error"].endswith("columns.rubric has 1 entries and prompts has 2")


NAMES = """requests prompt completions prompts id images columns template judge role content type bytes deadline_s
molecules group_ids x"""
FIELDS = st.sampled_from(NAMES.split())
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=4),
    max_leaves=12,
)


@given(
    route=st.sampled_from(["/v1/judge", "/v1/rewards", "/v1/rerank"]), body=st.dictionaries(FIELDS, JSON, max_size=5)
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
async def test_no_body_makes_the_server_fail(route, body):
    async with client_of() as client:
        answer = await client.post(
            route, content=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
        )
    assert answer.status_code < 500


async def test_what_comes_too_late_to_be_answered_is_told_when_to_come_back():
    service = service_over(ScriptedEngine(digits, delay_s=0.2), lanes=1)
    async with client_of(service) as client:
        await judged(client, ONE)
        waiting = asyncio.create_task(judged(client, *[{**ONE, "prompt": f"q{i}"} for i in range(5)]))
        await asyncio.sleep(0.05)
        answer = await client.post("/v1/judge", json={"requests": [{**ONE, "prompt": "late"}], "deadline_s": 0.5})
        assert answer.status_code == 429
        assert answer.headers["Retry-After"] == "1"
        assert [outcome["status"] for outcome in await waiting] == ["scored"] * 5
        assert service.judges["main"].admission.accepted == 0


async def test_an_answer_whose_caller_has_gone_is_written_no_further():
    ended = asyncio.Event()

    class Endless(ScriptedEngine):
        async def generate(self, prompt, sampling):
            try:
                await asyncio.sleep(60)
                yield Reply(text="")
            finally:
                ended.set()

    service = service_over(Endless(digits))
    async with client_of(service) as client:
        call = asyncio.create_task(client.post("/v1/judge", json={"requests": [ONE]}))
        await asyncio.sleep(0.1)
        call.cancel()
        await asyncio.wait_for(ended.wait(), 2)
        await asyncio.gather(call, return_exceptions=True)
    assert service.judges["main"].admission.accepted == 0


async def test_a_server_is_ready_only_when_it_says_so():
    missing = "no judgment has come back yet"
    async with client_of(ready=lambda: missing) as client:
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()["error"]) == (503, missing)
        missing = ""
        assert (await client.get("/readyz")).status_code == 200


async def test_every_route_stands_in_the_openapi_document():
    async with client_of() as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
    assert {"/v1/judge", "/v1/rewards", "/v1/rerank", "/healthz", "/readyz"} <= paths.keys()


async def test_the_methods_of_reranking_stand_in_the_openapi_document():
    async with client_of() as client:
        document = (await client.get("/openapi.json")).json()["components"]["schemas"]
    fields = document["RerankBody"]["properties"]
    assert fields["method"]["anyOf"][0]["enum"] == list(METHODS)
    assert all(word in fields["method"]["description"] for word in METHODS)
    assert "knockout of lists" in fields["list_size"]["description"]
