"""Requests as each framework's own client builds them, and what it does with the answer."""

import asyncio
import contextlib
import json

import httpx
import pytest

from flexreward.config import JudgeRecipe
from flexreward.engines.base import Prompt
from flexreward.engines.scripted import ScriptedEngine
from flexreward.errors import EngineError
from flexreward.ledger import Ledger
from flexreward.serving.admission import Admission
from flexreward.serving.app import Bounds, build_app
from flexreward.serving.cohort import Cohorts
from flexreward.serving.dialects import routers
from flexreward.serving.grouping import Grouping
from flexreward.serving.judges import OpenJudge
from flexreward.serving.service import JudgeService
from tests.flexreward.serving.served import digits

USER = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
PROMPT = USER.format("How much?")


def dead(prompt: Prompt) -> str:
    raise EngineError("the GPU has gone")


@contextlib.asynccontextmanager
async def served(method="score", *, script=digits, gather_s=5.0, max_waiting=10_000, delay_s=0.0):
    engine = ScriptedEngine(script, delay_s=delay_s)
    opened = OpenJudge(
        recipe=JudgeRecipe(model="scripted:digits", engine="scripted"),
        engine=engine,
        admission=Admission(lanes=64, max_waiting=max_waiting),
    )
    grouping = Grouping(Cohorts(), method=method, gather_s=gather_s)
    service = JudgeService({"main": opened}, ledger=Ledger(None), deadline_s=30.0, group_rewards=grouping)
    app = build_app(service, bounds=Bounds(reward_keys=["key-0123456789abcdef"]), routers=routers(service, neutral=0.5))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    headers = {"Authorization": "Bearer key-0123456789abcdef"}
    async with httpx.AsyncClient(transport=transport, base_url="http://server", headers=headers) as client:
        client.engine = engine
        yield client


# OpenRLHF: one sample a POST, as tensors of the answer.


def sample(completion, *, prompt=PROMPT, label="7"):
    return {"query": [prompt + completion + "<|im_end|>"], "prompts": [prompt], "labels": [label]}


async def openrlhf(client, body, url="/get_reward"):
    response = await client.post(url, json=body)
    assert response.status_code == 200
    found = response.json()
    rewards = found["rewards"]
    scores = found.get("scores", rewards)
    numbers = [*rewards, *scores, *(value for values in found["extra_logs"].values() for value in values)]
    assert all(isinstance(number, float) and abs(number) < 1e6 for number in numbers)
    return found


async def test_openrlhf_gets_the_reward_of_what_follows_the_prompt():
    async with served() as client:
        found = await openrlhf(client, sample("it is 5"))
        assert found["rewards"] == found["scores"] == [1.0]
        assert found["extra_logs"]["unscored"] == [0.0]
        assert (await openrlhf(client, sample("it is 1")))["rewards"] == [0.0]


async def test_openrlhf_sends_empty_lists_to_all_servers_but_the_first():
    async with served() as client:
        found = await openrlhf(client, {"query": [], "prompts": [], "labels": []})
        assert found["rewards"] == found["scores"] == []
        assert found["extra_logs"] == {name: [] for name in ("unscored", "flipped", "judge_tokens", "judge_seconds")}


@pytest.mark.parametrize("label", [None, "", 3, {"answer": 4}, ["x"]])
async def test_openrlhf_may_send_any_label_or_none(label):
    async with served() as client:
        assert (await openrlhf(client, sample("it is 5", label=label)))["rewards"] == [1.0]
        body = sample("it is 5")
        del body["labels"]
        assert (await openrlhf(client, body))["rewards"] == [1.0]


@pytest.mark.parametrize(("method", "script"), [("score", dead), ("win_rate", dead), ("score", lambda prompt: "hm")])
async def test_openrlhf_gets_a_finite_number_and_a_mark_for_what_is_unscored(method, script):
    async with served(method, script=script) as client:
        scored = await openrlhf(client, sample("it is 5"), "/get_reward?group_size=1")
        assert scored["rewards"] == [0.5]
        assert scored["extra_logs"]["unscored"] == [1.0]


async def test_openrlhf_gets_the_mean_of_its_group_for_what_is_unscored():
    def script(prompt: Prompt) -> str:
        return "hm" if "broken" in prompt.user else digits(prompt)

    async with served(script=script) as client:
        texts = ("it is 5", "it is 3", "broken 1")
        body = {"query": [PROMPT + text for text in texts], "prompts": [PROMPT] * 3, "labels": [""] * 3}
        found = await openrlhf(client, body)
        assert found["rewards"] == [1.0, 0.5, 0.75]
        assert found["extra_logs"]["unscored"] == [0.0, 0.0, 1.0]


async def test_openrlhf_groups_come_one_sample_a_post_and_are_judged_together():
    async with served("win_rate") as client:
        url = "/get_reward?group_size=4"
        posts = [openrlhf(client, sample(f"it is {digit}"), url) for digit in (3, 9, 1, 3)]
        assert [found["rewards"] for found in await asyncio.gather(*posts)] == [[0.5], [1.0], [0.0], [0.5]]
        asked = client.engine.num_calls
        assert (await openrlhf(client, sample("it is 9"), url))["rewards"] == [1.0]
        assert client.engine.num_calls == asked


async def test_an_unscored_member_of_a_group_in_several_posts_has_the_mean_of_all():
    def script(prompt: Prompt) -> str:
        return "hm" if "broken" in prompt.user else digits(prompt)

    async with served("win_rate", script=script) as client:
        texts = ("it is 3", "it is 9", "broken 1")
        posts = [openrlhf(client, sample(text), "/get_reward?group_size=3") for text in texts]
        found = await asyncio.gather(*posts)
        assert [one["rewards"] for one in found] == [[0.0], [1.0], [0.5]]
        assert found[2]["extra_logs"]["unscored"] == [1.0]


async def test_a_query_that_does_not_begin_with_its_prompt_is_unscored_and_the_others_are_not():
    async with served() as client:
        body = {"query": ["it is 5", PROMPT + "it is 5"], "prompts": [PROMPT, PROMPT], "labels": ["", ""]}
        found = await openrlhf(client, body)
        assert found["extra_logs"]["unscored"] == [1.0, 0.0]
        assert found["rewards"] == [0.5, 1.0]


async def test_a_server_without_room_is_waited_for_and_not_given_up():
    async with served(max_waiting=1, delay_s=0.1) as client:
        posts = [openrlhf(client, sample(f"it is {digit}")) for digit in (5, 3, 1)]
        assert [found["rewards"] for found in await asyncio.gather(*posts)] == [[1.0], [0.5], [0.0]]


async def test_a_server_that_never_has_room_gives_a_marked_number_at_the_deadline():
    async with served(max_waiting=1, delay_s=3.0) as client:
        first = asyncio.create_task(client.post("/get_reward", json=sample("it is 1")))
        await asyncio.sleep(0.1)
        found = await openrlhf(client, sample("it is 5"), "/get_reward?deadline_s=0.3")
        assert found["rewards"] == [0.5]
        assert found["extra_logs"]["unscored"] == [1.0]
        first.cancel()


async def test_a_key_may_stand_in_the_path_of_a_dialect():
    async with served() as client:
        del client.headers["Authorization"]
        assert (await client.post("/get_reward", json=sample("it is 5"))).status_code == 401
        assert (await openrlhf(client, sample("it is 5"), "/k/key-0123456789abcdef/get_reward"))["rewards"] == [1.0]


async def test_lists_of_different_lengths_are_refused_by_name():
    async with served() as client:
        response = await client.post("/get_reward", json={"query": ["a"], "prompts": []})
        assert response.status_code == 422
        assert "prompts has 0 entries and query has 1" in response.text


# slime: one sample a POST; the body is the reward.


def slime(completion, **fields):
    return {"prompt": PROMPT, "response": completion, "label": "7"} | fields


async def test_slime_reads_the_body_as_the_reward():
    async with served() as client:
        response = await client.post("/remote_rm", json=slime("it is 4<|im_end|>"))
        assert response.json() == 0.75


async def test_slime_may_send_messages_and_any_label():
    async with served() as client:
        messages = [{"role": "user", "content": "How much?"}]
        for label in (None, 3, {"answer": 4}):
            response = await client.post("/remote_rm", json=slime("it is 4", prompt=messages, label=label))
            assert response.json() == 0.75


async def test_slime_gets_a_dict_for_its_reward_key():
    async with served(script=dead) as client:
        found = (await client.post("/remote_rm?reply=dict", json=slime("it is 4"))).json()
        assert found["score"] == 0.5
        assert found["unscored"] == 1


async def test_slime_gets_a_number_or_an_error_for_what_is_unscored():
    async with served(script=dead) as client:
        assert (await client.post("/remote_rm", json=slime("it is 4"))).json() == 0.5
        response = await client.post("/remote_rm?unscored=error", json=slime("it is 4"))
        assert response.status_code == 503
        assert "unscored (engine)" in response.text


async def test_slime_sends_each_member_of_a_group_by_itself():
    async with served("win_rate") as client:
        bodies = [slime(f"it is {digit}") for digit in (2, 8)]
        posts = [client.post("/remote_rm?group_size=2", json=body) for body in bodies]
        assert [response.json() for response in await asyncio.gather(*posts)] == [0.0, 1.0]


# verl: the form of vLLM's classifier.


def verl(completion, **fields):
    return {"model": "judge", "input": PROMPT + completion + "<|im_end|>\n", "use_activation": False} | fields


async def test_verl_reads_the_last_probability_of_the_last_entry():
    async with served() as client:
        found = (await client.post("/classify", json=verl("it is 4"))).json()
        assert found["data"][-1]["probs"][-1] == 0.75
        assert found["data"][-1]["unscored"] == 0
        assert found["object"] == "list"


async def test_verl_gets_a_number_that_is_marked_for_what_is_unscored():
    async with served(script=dead) as client:
        entry = (await client.post("/classify", json=verl("it is 4"))).json()["data"][-1]
        assert entry["probs"] == [0.5]
        assert (entry["unscored"], entry["label"]) == (1, "unscored")


async def test_verl_may_send_several_inputs():
    async with served() as client:
        several = [PROMPT + "it is 1<|im_end|>", PROMPT + "it is 5<|im_end|>"]
        found = (await client.post("/classify", json=verl("", input=several))).json()
        assert [entry["probs"] for entry in found["data"]] == [[0.0], [1.0]]


async def test_an_input_that_is_no_conversation_is_refused_with_the_remedy():
    async with served() as client:
        response = await client.post("/classify", json=verl("", input="4"))
        assert response.status_code == 400
        assert response.json()["error"].startswith("input[0]: expected a conversation that ends with an assistant turn")


# NeMo Gym: objects of the Responses API.


def response_obj(text):
    return {
        "id": "resp_1",
        "object": "response",
        "output": [
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm, 9"}]},
            {"type": "function_call", "name": "look", "arguments": "{}", "call_id": "c"},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]},
        ],
    }


def gym(*texts, **fields):
    history = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "How much?"}]
    return {"conversation_history": history, "response_objs": [response_obj(text) for text in texts]} | fields


async def test_nemo_gym_gets_win_rates_and_each_comparison():
    async with served() as client:
        found = (await client.post("/compare", json=gym("it is 4", "it is 9", "it is 1"))).json()
        assert found["rewards"] == [0.5, 1.0, 0.0]
        first = found["comparison_results"][0]
        assert (first["response_i"], first["response_j"], first["score_1"], first["score_2"]) == (0, 1, 4.0, 9.0)
        assert first["ranking"] == pytest.approx(3.5 + 2.5 * 5 / 9)
        assert found["metrics"]["comparisons"] == 3.0
        assert found["unscored"] == [0, 0, 0]


async def test_nemo_gym_comparisons_that_are_unscored_are_left_out_and_never_filled_in():
    def script(prompt: Prompt) -> str:
        return "hm" if "broken" in prompt.user else digits(prompt)

    async with served(script=script) as client:
        found = (await client.post("/compare", json=gym("it is 4", "it is 9", "broken 1"))).json()
        assert [(one["response_i"], one["response_j"]) for one in found["comparison_results"]] == [(0, 1)]
        assert found["rewards"] == [0.0, 1.0, 0.5]
        assert found["unscored"] == [0, 0, 1]
        assert found["metrics"]["comparisons_unscored"] == 2.0


async def test_nemo_gym_principles_are_the_rubric():
    shown = []

    def script(prompt: Prompt) -> str:
        shown.append(prompt.system)
        return digits(prompt)

    async with served(script=script) as client:
        assert (await client.post("/compare", json=gym("it is 4", "it is 9", principle="Be large."))).status_code == 200
        assert all("Be large." in system for system in shown)


async def test_nemo_gym_equal_and_lone_and_dead_responses_have_numbers():
    async with served() as client:
        assert (await client.post("/compare", json=gym("it is 4", "it is 4"))).json()["rewards"] == [0.5, 0.5]
        lone = (await client.post("/compare", json=gym("it is 4"))).json()
        assert (lone["rewards"], lone["unscored"]) == ([0.5], [1])
    async with served(script=dead) as client:
        found = (await client.post("/compare", json=gym("it is 4", "it is 4", "it is 5"))).json()
        assert (found["rewards"], found["unscored"]) == ([0.5] * 3, [1] * 3)


# All of them.


async def test_a_judge_that_the_url_names_wrongly_is_refused_with_those_there_are():
    async with served() as client:
        for path, body in (("/get_reward", sample("it is 5")), ("/remote_rm", slime("x")), ("/compare", gym("a", "b"))):
            response = await client.post(f"{path}?judge=strict", json=body)
            assert response.status_code == 400
            assert "expected one of main" in response.text


async def test_options_that_are_none_are_refused_by_name():
    async with served() as client:
        for option in ("group_size=0", "group_size=x", "deadline_s=-1", "deadline_s=nan"):
            response = await client.post(f"/get_reward?{option}", json=sample("it is 5"))
            assert response.status_code == 422
            assert option.partition("=")[0] in response.text


async def test_half_a_character_ends_nothing():
    async with served() as client:
        bodies = {
            "/get_reward": sample("it is \ud800 5", prompt=USER.format("\udfff"), label="\ud800"),
            "/remote_rm": slime("it is \ud800 5", label="\ud800"),
            "/classify": verl("it is \ud800 5", model="\ud800"),
            "/compare": gym("it is \ud800 4", "it is 5", principle="\ud800"),
        }
        for path, body in bodies.items():
            headers = {"Content-Type": "application/json"}
            response = await client.post(path, content=json.dumps(body), headers=headers)
            assert response.status_code == 200
