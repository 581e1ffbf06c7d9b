"""The judge over HTTP: opening it, its keys and its name."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

import pytest

from flexreward.config import open_engine, resolve_judge
from flexreward.engines import load_engine
from flexreward.engines.base import Sampling
from flexreward.engines.openai import OpenAIEngine
from flexreward.errors import RecipeError, UserError
from tests.flexreward.openai_engine.server import engine_of, failed, replies_of


def refused(*arguments: Any, **options: Any) -> str:
    with pytest.raises(UserError) as error:
        OpenAIEngine(*arguments, **options)
    return failed(error)


def test_a_judge_is_a_servers_url_where_it_serves_one_model(server):
    engine = open_engine(resolve_judge(server.url))
    assert engine.identity["model"] == "judge-7b"
    server.models.append("other")
    assert "serves several models (judge-7b, other); name one in a recipe" in refused(server.url)
    server.models.clear()
    assert "serves no model; name one" in refused(server.url)


def test_a_model_that_is_not_served_is_told_those_that_are(server):
    server.models = ["a", "b"]
    assert refused("c", base_url=server.url) == f"{server.url}: serves no model 'c', expected one of a, b"


def test_a_server_that_is_not_there_is_said_soon():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        assert refused("m", base_url=url).startswith(f"{url}: cannot be reached (ConnectError")


def test_a_key_comes_from_the_environment_and_stands_nowhere_else(server, monkeypatch, caplog):
    server.key = "sk-very-secret-7"
    caplog.set_level(logging.DEBUG)
    assert "401 Unauthorized: Wrong key: None; name the variable of its key in api_key_env" in refused(server.url)
    assert "the environment variable JUDGE_KEY holds no key; set it" in refused(server.url, api_key_env="JUDGE_KEY")
    monkeypatch.setenv("JUDGE_KEY", "sk-wrong-secret")
    wrong = refused(server.url, api_key_env="JUDGE_KEY")
    assert wrong.endswith("Wrong key: Bearer ***; the key in JUDGE_KEY does not open it")
    monkeypatch.setenv("JUDGE_KEY", "sk-two lines\n")
    assert "secret" not in refused(server.url, api_key_env="JUDGE_KEY")
    monkeypatch.setenv("JUDGE_KEY", f"{server.key}\n")
    engine = OpenAIEngine(server.url, api_key_env="JUDGE_KEY")
    (reply,) = asyncio.run(replies_of(engine, sampling=Sampling()))
    assert reply.text == "good"
    assert "secret" not in f"{engine.identity} {caplog.text} {engine._remote!r}"
    assert server.headers[0]["Authorization"] == f"Bearer {server.key}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "option 'base_url' is missing"),
        ({"base_url": "localhost:8000"}, "base_url: expected a URL such as"),
        ({"base_url": "http://me:pw@h/v1"}, "base_url: a URL here holds no user and no password"),
        ({"base_url": "http://h/v1?key=1"}, "base_url: expected a URL such as"),
        ({"base_url": "http://h/v1", "dialects": "vllm"}, "unknown option 'dialects', expected one of base_url, "),
        ({"base_url": "http://h/v1", "dialect": "tgi"}, "dialect: Input should be 'openai' or 'vllm'"),
        ({"base_url": "http://h/v1", "modalities": "image"}, "modalities: Input should be a valid list"),
        ({"base_url": "http://h/v1", "timeout_s": 0}, "timeout_s: Input should be greater than 0"),
        ({"base_url": "http://h/v1", "extra_body": {"n": 2}}, "extra_body: n cannot be set there"),
        ({"base_url": "http://h/v1", "extra_body": {"x": float("nan")}}, "extra_body: cannot be sent as JSON"),
        ({"base_url": "http://h/v1", "api_key_env": "sk-1"}, "api_key_env: String should match pattern"),
        ({"base_url": "http://h/v1", "special_tokens": ["<"]}, "special_tokens: '<' cannot be escaped"),
    ],
    ids=range(12),
)
def test_a_wrong_option_is_named(options, message):
    assert message in refused("m", **options)
    with pytest.raises(RecipeError):
        load_engine("openai", model="m", **options)


def test_the_identity_holds_url_model_probe_and_escape_and_says_that_it_is_unverified(server):
    identity = engine_of(server).identity
    assert {**identity, "probe": len(identity["probe"])} == {
        "engine": "openai",
        "url": server.url,
        "model": "judge-7b",
        "probe": 64,
        "verified": "no",
        "escapes": "word-joiner-1",
        "dialect": "openai",
    }
    assert engine_of(server).identity == identity
    others = [
        {"special_tokens": ["<think>"]},
        {"dialect": "vllm"},
        {"split_votes": True},
        {"seeds": False},
        {"extra_body": {"top_k": 1}},
        {"modalities": ["image"]},
    ]
    assert all(engine_of(server, **options).identity != identity for options in others)
    same = [{"timeout_s": 5.0}, {"retries": 1}, {"max_connections": 2}]
    assert all(engine_of(server, **options).identity == identity for options in same)
