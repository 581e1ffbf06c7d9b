import asyncio
import json
import pickle
import socket
import subprocess
import sys
import threading
import time

import httpx
import numpy as np
import PIL.Image
import pytest
from fastapi import Response
from fastapi.responses import StreamingResponse

from flexreward import client, client_wire
from flexreward.client import RewardClient
from flexreward.errors import RecipeError, UserError
from flexreward.media.intake import image_of
from flexreward.serving.contract import Rewarded, RewardItem
from flexreward.types import Media, Message, Reason
from tests.faulty_server import FaultyServer, Reset, by_length, serving


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(client, "FIRST_S", 0.002)


@pytest.fixture(scope="module")
def listening():
    with serving(FaultyServer()) as made:
        yield made


@pytest.fixture
def server(listening):
    listening.__dict__ |= FaultyServer(url=listening.url).__dict__
    return listening


def item(completion, prompt="p", **fields):
    return RewardItem(prompt=prompt, completion=completion, **fields)


def items(*lengths):
    return [item("x" * length) for length in lengths]


def values(found):
    return [one.reward for one in found]


async def rewards(server, asked, *, deadline_s=5.0, **options):
    async with RewardClient(server.url, deadline_s=deadline_s, **options) as one:
        return await one.rewards(asked)


async def test_rewards_come_in_the_order_of_the_items(server):
    asked = [item("x" * n, prompt=f"p{n % 3}") for n in (7, 1, 5, 3)]
    assert values(await rewards(server, asked)) == [0.07, 0.01, 0.05, 0.03]


async def test_everything_that_comes_with_a_reward_is_kept(server):
    server.script = lambda number, body: {
        "rewards": [0.5, None],
        "reasons": [None, "quorum"],
        "details": ["", "one order of two"],
        "scores": [5.5, None],
        "reasoning": ["well", ""],
        "flipped": [False, True],
        "tokens": [12, 7],
    }
    assert await rewards(server, items(1, 2)) == [
        Rewarded(reward=0.5, score=5.5, reasoning="well", flipped=False, tokens=12),
        Rewarded(reward=None, reason=Reason.QUORUM, detail="one order of two", flipped=True, tokens=7),
    ]


async def test_what_is_judged_and_what_stands_beside_it_is_sent(server):
    turns = (Message(role="user", content="What?"),)
    asked = RewardItem(
        prompt=turns,
        completion=(Message(role="assistant", content="This."),),
        rubric="Be short.",
        reference="That.",
        molecules=("CCO",),
        group="g",
        group_size=4,
        id="0.3",
        run="run",
        step=7,
    )
    async with RewardClient(server.url) as one:
        await one.rewards([asked], judge="strict")
    (body,) = server.bodies
    assert 100 < body.pop("deadline_s") < 120
    assert body == {
        "prompts": [[{"role": "user", "content": "What?"}]],
        "completions": [[{"role": "assistant", "content": "This."}]],
        "columns": {"rubric": ["Be short."], "reference": ["That."], "molecules": [["CCO"]]},
        "group_ids": ["g"],
        "group_size": 4,
        "ids": ["0.3"],
        "run": "run",
        "step": 7,
        "judge": "strict",
    }


@pytest.mark.parametrize("image", [PIL.Image.new("RGB", (2, 2)), np.zeros((2, 2, 3), np.uint8), b"GIF89a..."])
async def test_media_go_as_data_uris_wherever_they_stand(server, image):
    medium = image_of(image)
    prompt = (Message(role="user", content=("Look: ", medium)),)
    await rewards(server, [RewardItem(prompt=prompt, completion=medium, media=(medium,))])
    (body,) = server.bodies
    uri = body["columns"]["images"][0][0]
    assert image_of(uri).data == medium.data
    assert body["prompts"][0][0]["content"] == [{"type": "text", "text": "Look: "}, {"type": "image", "image": uri}]
    assert body["completions"] == [{"image": uri}]


async def test_an_item_that_cannot_be_sent_is_unscored_and_the_others_are_scored(server, tmp_path):
    gone = Media(kind="image", path=tmp_path / "gone.png")
    sized = Media(kind="image", data=b"GIF89a", size=(4, 4))
    found = await rewards(server, [item("x", media=(gone,)), item("xx"), item("x", media=(sized,))])
    assert values(found) == [None, 0.02, None]
    assert found[0].reason is Reason.REFUSED
    assert "gone.png" in found[0].detail
    assert "size of its own" in found[2].detail


async def test_failures_that_may_pass_are_asked_again(server):
    faults = [
        Response(status_code=503, headers={"Retry-After": "0.01"}),
        Response(status_code=429),
        Response(b'{"rewards": [0.5', status_code=200),
        Response(b'{"rewards": [0.5]}', status_code=200),
        Response(b"[]", status_code=200),
        Reset(),
        Response(status_code=500),
    ]
    server.script = lambda number, body: faults[number] if number < len(faults) else by_length(body)
    assert values(await rewards(server, items(1, 2))) == [0.01, 0.02]
    assert len(server.bodies) == len(faults) + 1


@pytest.mark.parametrize("fault", ["hang", "drip", "busy", "broken", "reset", "dead"])
async def test_a_server_that_never_answers_costs_the_deadline_and_no_more(server, fault):
    url = server.url

    async def hang():
        await asyncio.sleep(60)

    async def drip():
        while True:
            yield b" "
            await asyncio.sleep(0.01)

    faults = {
        "hang": hang,
        "drip": lambda: StreamingResponse(drip()),
        "busy": lambda: Response(b'{"error": {"message": "all taken"}}', status_code=429),
        "broken": lambda: Response(b"\xff{", status_code=200),
        "reset": Reset,
    }
    if fault == "dead":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{free.getsockname()[1]}"
    else:
        server.script = lambda number, body: faults[fault]()
    start = time.monotonic()
    found = await RewardClient(url, deadline_s=0.5).rewards(items(1, 2, 3))
    assert time.monotonic() - start < 1.0
    assert values(found) == [None] * 3
    assert {one.reason for one in found} <= {Reason.DEADLINE, Reason.ENGINE}
    assert all(one.detail and "\n" not in one.detail for one in found)


async def test_a_server_that_asks_for_more_time_than_there_is_is_given_up_at_once(server):
    server.script = lambda number, body: Response(status_code=503, headers={"Retry-After": "60"})
    start = time.monotonic()
    found = await rewards(server, items(1))
    assert time.monotonic() - start < 2
    assert found[0].reason is Reason.DEADLINE
    assert "no time is left" in found[0].detail


async def test_the_server_is_told_less_time_than_the_client_has(server):
    await rewards(server, items(1), deadline_s=4.0)
    assert 3 < server.bodies[0]["deadline_s"] < 3.7


@pytest.mark.parametrize("reward", [-0.1, 1.1, "1", True, float("nan"), float("inf")])
async def test_a_reward_that_is_none_is_no_reward(server, reward):
    server.script = lambda number, body: Response(json.dumps({"rewards": [reward, 0.5]}))
    found = await rewards(server, items(1, 2))
    assert values(found) == [None, 0.5]
    assert found[0].reason is Reason.ENGINE


async def test_a_reason_that_is_not_known_here_is_a_failure_of_the_server(server):
    server.script = lambda number, body: {"rewards": [None, None], "reasons": ["moon", ["x"]]}
    assert [one.reason for one in await rewards(server, items(1, 2))] == [Reason.ENGINE] * 2


async def test_a_call_of_thousands_is_cut_and_groups_stay_whole(server):
    asked = [item("x" * (1 + n % 5), prompt=f"p{n % 300}") for n in range(2400)]
    found = await rewards(server, asked, deadline_s=20)
    assert values(found) == [len(one.completion) / 100 for one in asked]
    assert max(len(body["prompts"]) for body in server.bodies) <= 1000
    prompts = [prompt for body in server.bodies for prompt in set(body["prompts"])]
    assert len(prompts) == len(set(prompts)) == 300


def parcels(asked):
    return [client_wire.parcel_of(i, one) for i, one in enumerate(asked)]


def test_a_call_of_many_bytes_is_cut():
    asked = [item("x" * 100, prompt=f"p{n}") for n in range(10)]
    cut = client_wire.batches(parcels(asked), most_bytes=400)
    assert len(cut) == 4
    assert [one.place for batch in cut for one in batch] == list(range(10))


def test_a_group_that_is_too_large_for_a_call_is_named_and_keeps_its_size():
    cut = client_wire.batches(parcels([item("x", prompt="a"), *[item("x", prompt="b")] * 5]), most_items=2)
    assert [len(batch) for batch in cut] == [1, 2, 2, 1]
    named = {(one.item.group, one.item.group_size) for batch in cut[1:] for one in batch}
    assert len(named) == 1
    assert next(iter(named))[1] == 5
    assert cut[0][0].item.group == ""


def test_items_of_two_steps_or_runs_never_travel_together():
    asked = [item("x", step=1), item("x", step=2), item("x", run="r", step=2), item("x", step=1)]
    cut = client_wire.batches(parcels(asked))
    assert [[one.place for one in batch] for batch in cut] == [[0, 3], [1], [2]]


async def test_what_one_group_has_done_is_not_held_against_the_others(server):
    def refusing(number, body):
        if "bad" in body["prompts"]:
            return Response(b'{"detail": "completions[0]: no image"}', status_code=422)
        return by_length(body)

    server.script = refusing
    asked = [item("x" * n, prompt="bad" if n == 5 else f"p{n}") for n in range(1, 9)]
    found = await rewards(server, asked)
    assert values(found) == [None if n == 5 else n / 100 for n in range(1, 9)]
    assert found[4].reason is Reason.REFUSED
    assert "no image" in found[4].detail


async def test_a_key_is_sent_and_never_said(server, monkeypatch):
    server.key = "secret-1"
    assert values(await rewards(server, items(1), key="secret-1")) == [0.01]
    monkeypatch.setenv("FLEXREWARD_KEY", "secret-1")
    assert values(await rewards(server, items(1))) == [0.01]
    monkeypatch.setenv("FLEXREWARD_KEY", "secret-2")
    (found,) = await rewards(server, items(1))
    assert found.reason is Reason.REFUSED
    assert "401" in found.detail
    assert "secret" not in found.detail
    assert "secret" not in repr(RewardClient(server.url, key="secret-1"))


def test_one_client_works_on_loops_that_come_and_go(server):
    one = RewardClient(server.url)

    async def kept():
        async with one:
            return values(await one.rewards(items(1))) + values(await one.rewards(items(2)))

    assert asyncio.run(kept()) == [0.01, 0.02]
    assert asyncio.run(kept()) == [0.01, 0.02]
    assert values(asyncio.run(one.rewards(items(3)))) == [0.03]


def test_one_client_works_on_two_loops_at_once(server):
    one, found = RewardClient(server.url), []

    async def asked():
        async with one:
            found.append(values(await one.rewards(items(1, 2))))

    threads = [threading.Thread(target=asyncio.run, args=(asked(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[0.01, 0.02]] * 2


async def test_a_client_pickles_while_it_is_open(server):
    async with RewardClient(server.url, deadline_s=3) as one:
        await one.rewards(items(1))
        copied = pickle.loads(pickle.dumps(one))  # noqa: S301  # ours
    assert values(await copied.rewards(items(4))) == [0.04]
    assert copied.deadline_s == 3


async def test_a_probe_is_a_call_without_items(server):
    await RewardClient(server.url).probe(judge="strict")
    assert server.bodies[0]["prompts"] == []
    assert server.bodies[0]["judge"] == "strict"


@pytest.mark.parametrize(
    ("status", "remedy"),
    [(401, "FLEXREWARD_KEY"), (403, "FLEXREWARD_KEY"), (404, "address of a flexreward server"), (422, "name a judge")],
)
async def test_a_probe_says_what_to_do(server, status, remedy):
    server.script = lambda number, body: Response(b'{"error": "no"}', status_code=status)
    with pytest.raises(UserError, match=remedy) as error:
        await RewardClient(server.url).probe()
    assert str(status) in str(error.value)
    assert "\n" not in str(error.value)


async def test_a_probe_waits_for_a_server_that_comes_up_and_for_no_other(server):
    server.script = lambda number, body: Response(status_code=503) if number < 3 else by_length(body)
    await RewardClient(server.url).probe()
    assert len(server.bodies) == 4
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(UserError, match="flexreward serve RECIPE"):
        await RewardClient(url).probe(deadline_s=0.3)


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://h", "http://", "http://h?x=1", "http://u:p@h", None])
def test_an_address_that_is_none_is_one_line(url):
    with pytest.raises(RecipeError, match=r"^url: "):
        RewardClient(url)


@pytest.mark.parametrize("deadline_s", [0, -1, float("inf"), float("nan")])
def test_a_deadline_that_is_none_is_one_line(deadline_s):
    with pytest.raises(RecipeError, match=r"^deadline_s: "):
        RewardClient("http://h", deadline_s=deadline_s)


async def test_a_call_that_is_cancelled_ends(server):
    server.script = lambda number, body: asyncio.sleep(60)
    work = asyncio.create_task(rewards(server, items(1), deadline_s=60))
    await asyncio.sleep(0.2)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work


def test_a_client_needs_no_model_no_cluster_and_no_server():
    code = "import flexreward.client, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"ray", "torch", "fastapi", "transformers", "datasets", "numpy", "PIL"} & set(loaded)
    assert httpx.__name__ in loaded
