"""The judge's model as OpenAI's clients ask it."""

from __future__ import annotations

import asyncio
import json
from math import inf

import httpx
import pytest

from flexreward.config import JudgeRecipe, open_judge, resolve_judge
from flexreward.engines.base import Capabilities
from flexreward.engines.scripted import ScriptedEngine
from flexreward.errors import ContextError, EngineError
from flexreward.media.limits import LIMITS
from flexreward.serving.app import Bounds, build_app
from flexreward.serving.chat_routes import chat_routes
from flexreward.serving.phases import Phase, Rest
from flexreward.types import JudgeRequest, Reply, TokenLogprob
from tests.faulty_server import listening
from tests.flexreward.serving.served import KEY, client_of, service_over

CALL = {"model": "main", "messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]}
DOT = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)


class Spoken(ScriptedEngine):
    """Says what it was asked for, and can all that an engine can."""

    can = Capabilities(
        token_ids=True, prefix=True, logprobs=True, constrained=True, modalities=frozenset({"text", "image"})
    )

    def __init__(self, script="Well.", **options):
        super().__init__(lambda prompt: script(prompt) if callable(script) else script, **options)
        self.asked = []

    async def generate(self, prompt, sampling):
        self.asked.append((prompt, sampling))
        async for reply in super().generate(prompt, sampling):
            yield reply


def routes_over(engine, **options):
    service = service_over(engine, max_tokens=77, **options)
    return service, [chat_routes(service, hosts=frozenset(), limits=LIMITS)]


async def asked(engine, **fields):
    service, routers = routes_over(engine)
    async with client_of(service, routers=routers) as client:
        return await client.post("/v1/chat/completions", json=CALL | fields)


async def test_a_call_becomes_a_prompt_and_replies_become_choices():
    engine = Spoken("It is 4.")
    answer = (await asked(engine, n=2, temperature=0.5, top_p=0.9, seed=5, max_tokens=9, stop=["."])).json()
    ((prompt, sampling),) = engine.asked
    assert (prompt.system, prompt.user, prompt.prefix) == ("S", "U", "")
    assert (sampling.n, sampling.temperature, sampling.top_p, sampling.seed) == (2, 0.5, 0.9, 5)
    assert (sampling.max_tokens, sampling.stop, sampling.logprobs) == (9, (".",), 0)
    assert answer["object"] == "chat.completion"
    assert [(one["index"], one["message"]["content"]) for one in answer["choices"]] == [(0, "It is 4"), (1, "It is 4")]
    assert {one["finish_reason"] for one in answer["choices"]} == {"stop"}
    assert answer["usage"].keys() == {"prompt_tokens", "completion_tokens", "total_tokens"}


async def test_what_is_left_out_is_as_openai_has_it_and_as_long_as_the_recipe_says():
    engine = Spoken()
    for _ in range(2):
        await asked(engine)
    (_, first), (_, second) = engine.asked
    assert (first.temperature, first.top_p, first.n, first.max_tokens, first.stop) == (1.0, 1.0, 1, 77, ())
    assert first.seed != second.seed
    await asked(engine, max_completion_tokens=3, stop="x")
    assert (engine.asked[-1][1].max_tokens, engine.asked[-1][1].stop) == (3, ("x",))


async def test_a_started_turn_is_gone_on_with_and_not_told_again():
    turns = [*CALL["messages"], {"role": "assistant", "content": "<think>"}]
    more = {"continue_final_message": True, "add_generation_prompt": False}
    engine = Spoken("so</think>4")
    answer = (await asked(engine, messages=turns, **more)).json()
    assert engine.asked[0][0].prefix == "<think>"
    assert answer["choices"][0]["message"]["content"] == "so</think>4"
    assert (await asked(engine, messages=turns)).status_code == 400


async def test_parts_keep_their_places_and_no_path_is_opened():
    def parts(url):
        texts = [{"type": "text", "text": "before"}, {"type": "text", "text": "after"}]
        content = [texts[0], {"type": "image_url", "image_url": {"url": url}}, texts[1]]
        return [{"role": "user", "content": content}]

    engine = Spoken()
    assert (await asked(engine, messages=parts(DOT))).status_code == 200
    prompt = engine.asked[0][0]
    assert (prompt.user, [(one.at, one.kind) for one in prompt.media]) == ("beforeafter", [(6, "image")])
    for path in ("/etc/passwd", "file:///etc/passwd", "http://169.254.169.254/"):
        answer = await asked(engine, messages=parts(path))
        assert answer.status_code in (400, 422), path
    assert len(engine.asked) == 1


async def test_log_probabilities_are_told_and_minus_infinity_as_the_lowest_number():
    logprobs = (TokenLogprob(text="4", logprob=-0.5, top=(("4", -0.5), ("5", -inf))),)
    engine = Spoken(Reply(text="4", logprobs=logprobs))
    answer = (await asked(engine, logprobs=True, top_logprobs=2)).json()
    (told,) = answer["choices"][0]["logprobs"]["content"]
    assert (told["token"], told["logprob"], told["bytes"]) == ("4", -0.5, [52])
    assert [(one["token"], one["logprob"]) for one in told["top_logprobs"]] == [("4", -0.5), ("5", -9999.0)]
    assert engine.asked[0][1].logprobs == 2
    assert (await asked(engine)).json()["choices"][0]["logprobs"] is None


async def events(engine, **fields):
    answer = await asked(engine, stream=True, **fields)
    assert answer.headers["content-type"].startswith("text/event-stream")
    return [line.removeprefix("data: ") for line in answer.text.splitlines() if line]


async def test_a_stream_holds_each_reply_and_ends_as_openais_does():
    *chunks, done = await events(Spoken("It is 4."), n=2, stream_options={"include_usage": True})
    assert done == "[DONE]"
    *chunks, last = [json.loads(chunk) for chunk in chunks]
    assert (last["choices"], last["usage"]["prompt_tokens"]) == ([], 0)
    said = {0: "", 1: ""}
    for chunk in chunks:
        (choice,) = chunk["choices"]
        said[choice["index"]] += choice["delta"].get("content", "")
    assert said == {0: "It is 4.", 1: "It is 4."}
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, "stop"] * 2
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}


async def test_a_stream_that_breaks_says_so_and_does_not_end_as_one_that_is_whole():
    class Breaks(Spoken):
        async def generate(self, prompt, sampling):
            yield Reply(text="first")
            raise EngineError("it is dead")

    *_, last = await events(Breaks(), n=2)
    assert json.loads(last)["error"] == {"message": "it is dead", "type": "EngineError", "code": 503}


def refusing(error):
    def script(prompt):
        raise error

    return Spoken(script)


@pytest.mark.parametrize("stream", [False, True])
async def test_what_cannot_be_answered_is_refused_with_one_line_before_an_answer_begins(stream):
    long = await asked(refusing(ContextError("too long")), stream=stream)
    assert (long.status_code, long.json()) == (413, {"error": "too long"})
    unknown = await asked(Spoken(), model="other", stream=stream)
    assert (unknown.status_code, unknown.json()) == (404, {"error": "model: no judge 'other', expected one of main"})
    lacking = await asked(ScriptedEngine(lambda _: "x"), logprobs=True, stream=stream)
    assert (lacking.status_code, lacking.json()["error"][:9]) == (422, "logprobs:")
    turns = [{"role": role, "content": "x"} for role in ("user", "assistant", "user")]
    many = await asked(Spoken(), messages=turns, stream=stream)
    assert many.status_code == 400
    assert many.json()["error"].endswith("found user, assistant, user")
    assert (await asked(Spoken(), tools=[], stream=stream)).status_code == 422


async def test_a_reply_has_its_deadline_and_a_judge_that_sleeps_is_not_asked():
    service, routers = routes_over(Spoken(delay_s=5.0))
    async with client_of(service, routers=routers) as client:
        late = await client.post("/v1/chat/completions?deadline_s=0.05", json=CALL)
        assert (late.status_code, late.json()) == (504, {"error": "the reply did not come in time"})
        assert service.waiting() == {"main": 0}
        service.gate.tell({"main": Rest(Phase.ASLEEP, "t", 9.0)})
        asleep = await client.post("/v1/chat/completions", json=CALL)
        assert (asleep.status_code, asleep.headers["Retry-After"]) == (503, "9")


async def test_a_client_that_goes_away_ends_the_writing():
    ended = asyncio.Event()

    class Endless(Spoken):
        async def generate(self, prompt, sampling):
            try:
                yield Reply(text="first")
                await asyncio.sleep(60)
            finally:
                ended.set()

    service, _ = routes_over(Endless())
    replies = service.write(*(await prompt_and_sampling()))
    assert (await anext(replies)).text == "first"
    await replies.aclose()
    assert ended.is_set()
    assert service.waiting() == {"main": 0}


async def prompt_and_sampling():
    engine = Spoken()
    await asked(engine)
    return engine.asked[0]


async def test_the_models_are_the_judges_and_a_key_is_needed():
    service, routers = routes_over(Spoken())
    async with client_of(service, routers=routers, reward_keys=[KEY]) as client:
        assert (await client.post("/v1/chat/completions", json=CALL)).status_code == 401
        headers = {"Authorization": f"Bearer {KEY}"}
        found = (await client.get("/v1/models", headers=headers)).json()
        assert (found["object"], [one["id"] for one in found["data"]]) == ("list", ["main"])
        assert (await client.post("/v1/chat/completions", json=CALL, headers=headers)).status_code == 200


async def test_without_the_routes_nothing_is_there():
    async with client_of() as client:
        assert (await client.post("/v1/chat/completions", json=CALL)).status_code == 404
        assert (await client.get("/v1/models")).status_code == 404


@pytest.fixture(scope="module")
def tiny():
    return resolve_judge("tiny").model_copy(update={"template": "pair"})


def test_a_judge_over_this_server_gives_the_verdict_that_the_model_gives_at_hand(tiny):
    request = JudgeRequest(prompt="What is 17 + 25?", completions=("17 + 25 = 42", "17 + 25 = 43"))
    local = open_judge(tiny)
    (here,) = local.judge_now([request])
    service, routers = routes_over(local.engine)
    with listening(build_app(service, bounds=Bounds(), routers=routers)) as url:
        models = httpx.get(f"{url}/v1/models", trust_env=False).json()
        for dialect in ("openai", "vllm"):
            recipe = JudgeRecipe(
                **{"model": models["data"][0]["id"], "engine": "openai", "template": "pair"},
                max_tokens=tiny.max_tokens,
                options={"base_url": f"{url}/v1", "dialect": dialect},
            )
            (there,) = open_judge(recipe).judge_now([request])
            assert there.outcome == here.outcome
            replies = [[order.votes[0].reply.text for order in one.orders] for one in (here, there)]
            assert replies[0] == replies[1]
            assert there.orders[0].votes[0].reply.prompt_tokens == here.orders[0].votes[0].reply.prompt_tokens > 0


def test_openais_own_client_is_answered():
    openai = pytest.importorskip("openai")
    service, routers = routes_over(Spoken("It is 4."))
    app = build_app(service, bounds=Bounds(reward_keys=[KEY]), routers=routers)
    with listening(app) as url, openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        assert [one.id for one in client.models.list()] == ["main"]
        whole = client.chat.completions.create(**CALL)
        assert whole.choices[0].message.content == "It is 4."
        parts = list(client.chat.completions.create(**CALL, stream=True))
        assert "".join(part.choices[0].delta.content or "" for part in parts) == "It is 4."
        with pytest.raises(openai.NotFoundError) as refused:
            client.chat.completions.create(**(CALL | {"model": "x"}))
        assert refused.value.body == "model: no judge 'x', expected one of main"
