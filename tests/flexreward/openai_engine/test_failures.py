"""The judge over HTTP: whatever goes wrong ends in time, in one line, and never in a score."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import aclosing
from email.utils import formatdate

import pytest

from flexreward import asking
from flexreward.engines import endpoint
from flexreward.engines.base import Sampling
from flexreward.errors import ContextError, DeadlineError, EngineError, RefusedError
from tests.flexreward.openai_engine.server import (
    DRAWN,
    DROP,
    PROMPT,
    Answer,
    completion,
    engine_of,
    failed,
    in_turn,
    replies_of,
)


@pytest.mark.parametrize(
    "trouble",
    [
        *(Answer({"error": {"message": "busy"}}, status=status) for status in (408, 429, 500, 502, 503, 504)),
        Answer(DROP),
        Answer(b"half", headers={"Content-Length": "400", "Connection": "close"}),
    ],
    ids=["408", "429", "500", "502", "503", "504", "dropped", "cut"],
)
async def test_what_fails_on_the_way_is_asked_again(server, trouble):
    server.script = in_turn(trouble, trouble, completion("good"))
    (reply,) = await replies_of(engine_of(server), sampling=Sampling())
    assert reply.text == "good"
    assert len(server.bodies) == 3
    assert server.bodies[0] == server.bodies[2]


async def test_retry_after_is_waited_for(server):
    server.script = in_turn(Answer({}, status=429, headers={"Retry-After": "0.4"}), completion("good"))
    began = time.monotonic()
    await replies_of(engine_of(server), sampling=Sampling())
    assert time.monotonic() - began >= 0.4


def test_retry_after_is_seconds_or_a_date():
    assert asking.after_s("7") == 7
    assert asking.after_s(formatdate(time.time() + 60, usegmt=True)) == pytest.approx(60, abs=5)
    assert [asking.after_s(odd) for odd in ("", "soon", "-1", "nan", formatdate(0))] == [0] * 5


async def test_a_server_that_asks_for_more_time_than_there_is_is_not_waited_for(server):
    server.script = in_turn(Answer({}, status=503, headers={"Retry-After": "3600"}))
    began = time.monotonic()
    with pytest.raises(DeadlineError) as error:
        await replies_of(engine_of(server, timeout_s=30), sampling=Sampling())
    assert "503 Service Unavailable; no time is left to ask again" in failed(error)
    assert time.monotonic() - began < 10


async def test_nonsense_in_retry_after_is_passed_over(server):
    server.script = in_turn(Answer({}, status=503, headers={"Retry-After": "soon"}), completion("good"))
    assert len(await replies_of(engine_of(server), sampling=Sampling())) == 1


async def test_pauses_are_drawn_from_zero_up_to_a_limit_that_doubles(server, monkeypatch):
    limits = []
    monkeypatch.setattr(asking.random, "uniform", lambda low, high: limits.append((low, high)) or 0.0)
    monkeypatch.setattr(endpoint, "LONGEST_S", 0.01)
    server.script = in_turn(Answer({}, status=503))
    with pytest.raises(EngineError) as error:
        await replies_of(engine_of(server, retries=4), sampling=Sampling())
    assert "503 Service Unavailable (asked 5 times)" in failed(error)
    assert limits == [(0, 0.002), (0, 0.004), (0, 0.008), (0, 0.01)]


async def test_a_slow_server_ends_with_the_deadline_and_its_request_is_aborted(server):
    server.script = in_turn(Answer(completion("late"), delay_s=20))
    with pytest.raises(DeadlineError, match=r"no answer in 0.2 s"):
        await replies_of(engine_of(server, timeout_s=0.2), sampling=Sampling())
    assert await asyncio.to_thread(server.aborted.wait, 10)


async def test_half_an_answer_and_then_silence_ends_with_the_deadline(server):
    server.script = in_turn(Answer(b"half", headers={"Content-Length": "400"}))
    with pytest.raises(DeadlineError, match=r"no answer in 0.2 s"):
        await replies_of(engine_of(server, timeout_s=0.2), sampling=Sampling())
    assert len(server.bodies) == 1


async def test_a_server_that_takes_connections_and_never_answers_ends_with_the_deadline(server):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        engine = engine_of(server, timeout_s=0.2)
        engine._remote = engine._remote.model_copy(update={"base_url": f"http://127.0.0.1:{silent.getsockname()[1]}"})
        with pytest.raises(DeadlineError, match=r"no answer in 0.2 s"):
            await replies_of(engine, sampling=Sampling())


async def test_a_server_that_has_gone_is_asked_again_and_then_given_up(server):
    engine = engine_of(server, retries=2)
    server.close()
    with pytest.raises(EngineError, match=r"cannot be reached \(ConnectError.*asked 3 times"):
        await replies_of(engine, sampling=Sampling())


async def test_a_connection_that_the_server_has_closed_meanwhile_is_opened_anew(server):
    server.script = in_turn(Answer(completion("a"), headers={"Connection": "close"}), completion("b"))
    engine = engine_of(server)
    first = await anext(engine.generate(PROMPT, Sampling()))
    second = await anext(engine.generate(PROMPT, Sampling()))
    assert (first.text, second.text, len(server.bodies)) == ("a", "b", 2)
    await engine.close()


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (400, {"message": "maximum context length is 4096 tokens"}, ContextError, "context length is 4096"),
        (400, {"error": {"message": "two\nlines"}}, RefusedError, "400 Bad Request: two lines"),
        (422, {"detail": [1]}, RefusedError, "422 Unprocessable"),
        (413, {}, RefusedError, "413"),
        (401, {"error": "who?"}, EngineError, "401 Unauthorized: who?; name the variable of its key in api_key_env"),
        (404, {"message": "gone"}, EngineError, "404 Not Found: gone"),
        (302, {}, EngineError, "302 Found"),
    ],
)
async def test_what_the_server_refuses_is_said_once_in_one_line(server, status, body, kind, message):
    server.script = in_turn(Answer(body, status=status))
    with pytest.raises(kind) as error:
        await replies_of(engine_of(server), sampling=Sampling())
    assert message in failed(error)
    assert failed(error).startswith(server.url)
    assert len(server.bodies) == (2 if kind is ContextError else 1)  # the second asks for no length


BROKEN = {
    b"{": "the answer is no chat completion",
    b"": "the answer is no chat completion",
    b"[" * 5000: "the answer is no chat completion",
    b"\xff": "the answer is no chat completion",
    b"{}": "choices: Field required",
    b'{"choices": []}': "the server gave 0 of 1 replies",
    b'{"choices": [{}]}': "choices.0.message: Field required",
    b'{"choices": [{"message": {"content": [1]}}]}': "choices.0.message.content: Input should be a valid string",
    b'{"choices": [{"message": {"content": "x"}}]}': "finish_reason None",
    b'{"choices": [{"message": {"content": "x"}, "finish_reason": "content_filter"}]}': "filter has withheld a reply",
    b'{"choices": [{"message": {}, "finish_reason": "tool_calls"}]}': "finish_reason 'tool_calls'",
    b'{"choices": [{"message": {"content": "x"}, "finish_reason": "stop", "logprobs": {"content": [{"token": "x", '
    b'"logprob": NaN}]}}]}': "log-probability of nan",
}


@pytest.mark.parametrize("content", BROKEN, ids=range(len(BROKEN)))
async def test_an_answer_that_cannot_be_used_is_an_engines_failure(server, content):
    server.script = in_turn(Answer(content))
    with pytest.raises(EngineError) as error:
        await replies_of(engine_of(server), sampling=Sampling())
    assert BROKEN[content] in failed(error)


async def test_replies_that_can_be_used_come_before_the_failure_of_others(server):
    server.script = lambda body: completion("a", "b")
    seen = []
    engine = engine_of(server)

    async def gather() -> None:
        async for reply in engine.generate(PROMPT, DRAWN):
            seen.append(reply.text)

    with pytest.raises(EngineError, match="gave 2 of 3 replies; set split_votes"):
        await gather()
    await engine.close()
    assert seen == ["a", "b"]


async def test_closing_the_iterator_aborts_the_request(server):
    server.script = lambda body: Answer(completion("late"), delay_s=20)
    engine = engine_of(server)
    stream = engine.generate(PROMPT, DRAWN)
    async with aclosing(stream):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await anext(stream)
    assert await asyncio.to_thread(server.aborted.wait, 10)
    assert server.under_way == 0
    await engine.close()


async def test_closing_the_engine_ends_what_is_under_way(server):
    server.script = lambda body: Answer(completion("late"), delay_s=20)
    engine = engine_of(server)
    work = asyncio.create_task(anext(engine.generate(PROMPT, DRAWN)))
    assert await asyncio.to_thread(server.waiting.wait, 10)
    await engine.close()
    with pytest.raises(EngineError, match="closed"):
        await work
    with pytest.raises(EngineError, match="closed"):
        await anext(engine.generate(PROMPT, DRAWN))


async def test_no_more_requests_are_at_the_server_than_the_recipe_allows(server):
    server.script = lambda body: Answer(completion("good"), delay_s=0.03)
    engine = engine_of(server, max_connections=3)
    server.most_under_way = 0
    together = [anext(engine.generate(PROMPT, Sampling())) for _ in range(12)]
    assert len(await asyncio.gather(*together)) == 12
    assert server.most_under_way == 3
    await engine.close()
