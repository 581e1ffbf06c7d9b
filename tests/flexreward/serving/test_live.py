"""The live page: who may read it, what it shows, and that no text on it acts; in Chromium, over a real socket."""

import asyncio
import contextlib
import threading
import time

import pytest
import uvicorn

from flexreward.bench.chromium import chromium, started
from flexreward.engines.scripted import ScriptedEngine
from flexreward.serving.app import Bounds, build_app
from flexreward.serving.board import Board
from flexreward.serving.callers import admin_of
from flexreward.serving.live import live_routes
from tests.flexreward.serving.served import ADMIN, KEY, client_of, service_over

ASKED = {"requests": [{"id": "a", "prompt": "Which?", "completions": ["ends with 8", "ends with 3"]}]}


def board_of(service):
    board = Board()

    async def read():
        board.add("here", service.tally.take(service.waiting()), now=time.time())
        return board

    return read


async def test_judgments_that_came_over_http_are_counted_under_their_judge():
    service = service_over()
    async with client_of(service, routers=[live_routes(board_of(service))]) as client:
        await client.post("/v1/judge", json=ASKED)
        told = (await client.get("/v1/live")).json()
        metrics = (await client.get("/metrics")).text
    (judge,) = told["judges"]
    assert judge["name"] == "main"
    assert judge["judgments"] == 1
    assert told["verdicts"][0]["completions"] == ["ends with 8", "ends with 3"]
    assert 'flexreward_judgments_total{judge="main",status="scored"} 1.0' in metrics


async def test_rewards_are_counted_too_and_calls_that_are_refused():
    service = service_over(max_waiting=1)
    body = {"prompts": ["p"] * 2, "completions": ["ends with 1", "ends with 2"]}
    service.judges["main"].admission.accepted = 1
    async with client_of(service, routers=[live_routes(board_of(service))]) as client:
        assert (await client.post("/v1/rewards", json=body)).status_code == 429
        service.judges["main"].admission.accepted = 0
        assert (await client.post("/v1/rewards", json=body)).status_code == 200
        (judge,) = (await client.get("/v1/live")).json()["judges"]
    assert (judge["refused"], judge["judgments"]) == (1, 2)


async def test_what_everybody_asked_is_shown_to_admins_alone():
    service = service_over()
    keys = {"reward_keys": (KEY,), "admin_keys": (ADMIN,)}
    routers = [live_routes(board_of(service), viewer=admin_of)]
    async with client_of(service, key=KEY, routers=routers, **keys) as client:
        assert [(await client.get(path)).status_code for path in ("/", "/v1/live")] == [403, 403]
        assert (await client.get("/metrics")).status_code == 200
    async with client_of(service, key=ADMIN, routers=routers, **keys) as client:
        assert [(await client.get(path)).status_code for path in ("/", "/v1/live")] == [200, 200]
    async with client_of(service, routers=routers, **keys) as client:
        assert (await client.get("/metrics")).status_code == 401


@contextlib.contextmanager
def listening(app):
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


@pytest.mark.browser
@pytest.mark.skipif(chromium() is None, reason="no Chromium here; `apt-get install chromium` adds it")
def test_the_page_shows_what_comes_in_and_a_hostile_text_stays_text(tmp_path):
    hostile = "<img src=x onerror=\"document.title='acted'\"><script>document.title='acted'</script> ends with 9"
    service = service_over(
        ScriptedEngine(lambda prompt: f"<think>{hostile}</think><answer>9</answer><answer>1</answer>")
    )
    app = build_app(
        service,
        bounds=Bounds(reward_keys=(KEY,), admin_keys=(ADMIN,)),
        routers=[live_routes(board_of(service), viewer=admin_of)],
    )
    asked = {"requests": [{"prompt": hostile, "completions": [hostile, "ends with 1"]}]}

    async def judged(port):
        import httpx

        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}) as client:
            assert (await client.post(f"http://127.0.0.1:{port}/v1/judge", json=asked)).status_code == 200

    with listening(app) as port, started(tmp_path) as browser:
        browser.open(f"http://127.0.0.1:{port}/k/{ADMIN}/")
        browser.until("document.getElementById('state').textContent.includes('ingress cop')")
        assert browser.ask("document.querySelectorAll('#last .card').length") == 0
        asyncio.run(judged(port))
        browser.until("document.querySelectorAll('#last .card').length")
        browser.ask("document.querySelector('#last .card').open = true")
        shown = browser.ask("document.getElementById('last').textContent")
        assert shown.count(hostile[:60]) >= 3
        assert browser.ask("document.querySelector('#last .badge').textContent") == "0.44 : 0.44"
        assert browser.ask("document.querySelectorAll('#last img, #last script').length") == 0
        assert browser.ask("document.title") == "flexreward: live"
        assert browser.ask("document.querySelector('#each h3').textContent") == "main"
        assert browser.ask("document.querySelectorAll('#history rect.good').length") == 120
    assert [event for event in browser.events if event["method"] == "Log.entryAdded"] == []
