"""Whatever comes, a dialect answers: 200 in the form that its client reads, or 4xx with a line."""

import asyncio
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.flexreward.serving.dialects.test_dialects import PROMPT, served

PATHS = ("/get_reward", "/remote_rm", "/classify", "/compare")
TEXT = st.text(max_size=20) | st.sampled_from(
    [PROMPT, PROMPT + "it is 5<|im_end|>", "<|im_start|>", "<|im_end|>", "<think>", "\ud800", "/etc/passwd", "file:///"]
)
LEAF = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
FIELDS = ("query", "prompts", "labels", "prompt", "response", "label", "model", "input", "conversation_history")
MORE = ("response_objs", "principle", "role", "content", "output", "type", "text", "image", "image_url", "url")
NAMES = st.sampled_from((*FIELDS, *MORE, "message", "output_text", "user", "assistant"))
ANY = st.recursive(LEAF, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | TEXT, inner, max_size=5))
ROLE = st.sampled_from(["user", "assistant", "system", "developer", "tool", "x"])
TURN = st.fixed_dictionaries({"role": ROLE, "content": TEXT | ANY})
SAID = st.fixed_dictionaries({"output": st.lists(st.fixed_dictionaries({"type": TEXT, "content": TEXT | ANY}) | ANY)})
SPOKEN = st.sampled_from(["", "x", PROMPT]).flatmap(lambda start: TEXT.map(lambda text: PROMPT + start + text))
NEARLY = {
    "/get_reward": st.lists(st.tuples(SPOKEN | TEXT, st.just(PROMPT) | TEXT, ANY), max_size=3).map(
        lambda rows: {name: [row[i] for row in rows] for i, name in enumerate(("query", "prompts", "labels"))}
    ),
    "/remote_rm": st.fixed_dictionaries(
        {"prompt": TEXT | st.lists(TURN, max_size=3) | ANY, "response": TEXT, "label": ANY}
    ),
    "/classify": st.fixed_dictionaries({"model": TEXT, "input": SPOKEN | st.lists(SPOKEN, max_size=3) | ANY}),
    "/compare": st.fixed_dictionaries(
        {
            "conversation_history": st.lists(TURN, min_size=1, max_size=3),
            "response_objs": st.lists(SAID | ANY, min_size=1, max_size=3),
            "principle": st.none() | TEXT,
        }
    ),
}
BROKEN = ("[" * 100_000, '{"query": ' * 50_000, "1e999", "NaN", "9" * 10_000, '"' + "\\u0000" * 9)


def post(path: str, content: bytes):
    async def send():
        async with served("win_rate") as client:
            return await client.post(path, content=content, headers={"Content-Type": "application/json"})

    return asyncio.run(send())


def numbers(value):
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from numbers(one)
    elif isinstance(value, float):
        yield value


def check(response):
    assert response.status_code < 500
    found = response.json()
    if response.status_code == 200:
        assert all(math.isfinite(number) for number in numbers(found))
    else:
        assert "\n" not in found["error"]


@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=50)
@given(data=st.data())
def test_any_json_is_answered_with_numbers_or_with_a_line(path, data):
    check(post(path, json.dumps(data.draw(NEARLY[path] | NEARLY[path] | ANY)).encode()))


@settings(max_examples=50)
@given(path=st.sampled_from(PATHS), body=st.binary(max_size=40))
def test_any_bytes_are_answered_with_a_line(path, body):
    assert 400 <= post(path, body).status_code < 500 or body.strip().isdigit()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("body", BROKEN)
def test_bodies_made_to_break_a_parser_are_refused(path, body):
    response = post(path, body.encode())
    assert 400 <= response.status_code < 500
