"""The client against the server's own routes and service, over a scripted judge."""

from __future__ import annotations

import time

import PIL.Image
import pytest

from flexreward.client import RewardClient
from flexreward.engines.scripted import ScriptedEngine
from flexreward.errors import UserError
from flexreward.media.intake import image_of
from flexreward.serving.app import Bounds, build_app
from flexreward.serving.contract import RewardItem
from flexreward.types import JudgeRequest, Media, Message, Reason
from tests.faulty_server import listening
from tests.flexreward.serving.served import KEY, service_over


def app_over(service=None, **bounds):
    return build_app(service or service_over(template="score"), bounds=Bounds(**bounds))


@pytest.fixture(scope="module")
def url():
    with listening(app_over()) as found:
        yield found


def item(completion, **fields):
    return RewardItem(prompt=fields.pop("prompt", "Which digit?"), completion=completion, **fields)


async def test_rewards_of_the_server_reach_the_trainer(url):
    found = await RewardClient(url).rewards([item(f"It is {digit}") for digit in (5, 1, 3)])
    assert [one.score for one in found] == [5, 1, 3]
    assert [one.reward for one in found] == [1.0, 0.0, 0.5]
    assert all("Hm." in one.reasoning for one in found)


async def test_conversations_and_columns_are_taken_by_the_server(url):
    turns = (Message(role="system", content="Be kind."), Message(role="user", content="Which?"))
    (found,) = await RewardClient(url).rewards(
        [item((Message(role="assistant", content="4"),), prompt=turns, molecules=("CCO",), group="g", id="0.0", step=3)]
    )
    assert found.score == 4


async def test_what_the_judge_cannot_read_is_unscored_with_its_reason(url):
    good, bad = await RewardClient(url).rewards([item("2"), item("none")])
    assert good.score == 2
    assert (bad.reward, bad.reason) == (None, Reason.NOT_A_NUMBER)


async def test_thousands_of_items_come_back_in_order(url):
    digits = [1 + n % 5 for n in range(1500)]
    found = await RewardClient(url).rewards([item(str(digit), prompt=f"p{n}") for n, digit in enumerate(digits)])
    assert [one.score for one in found] == digits


async def test_a_broken_image_costs_its_own_group_only(url):
    broken = Media(kind="image", data=b"no image at all")
    whole = image_of(PIL.Image.new("RGB", (2, 2)))
    asked = [item("1", prompt="a"), item("2", prompt="b", media=(broken,)), item("3", prompt="c", media=(whole,))]
    found = await RewardClient(url).rewards(asked)
    assert found[0].score == 1
    assert [one.reward for one in found[1:]] == [None, None]  # this judge is shown no images
    assert {one.reason for one in found[1:]} == {Reason.REFUSED}


async def test_a_probe_is_answered_and_a_wrong_judge_is_named(url):
    await RewardClient(url).probe()
    with pytest.raises(UserError, match=r"no judge 'strict', expected one of main.*name a judge"):
        await RewardClient(url).probe(judge="strict")


async def test_a_key_opens_the_server_and_a_wrong_one_does_not():
    with listening(app_over(reward_keys=(KEY,))) as url:
        (found,) = await RewardClient(url, key=KEY).rewards([item("3")])
        assert found.score == 3
        with pytest.raises(UserError, match=r"401.*FLEXREWARD_KEY"):
            await RewardClient(url, key="another-key-0123456789").probe()


async def test_a_hanging_judge_costs_the_deadline():
    slow = ScriptedEngine(lambda prompt: "<think>x</think><answer>3</answer>", delay_s=60)
    with listening(app_over(service_over(slow, template="score"))) as url:
        start = time.monotonic()
        (found,) = await RewardClient(url, deadline_s=0.6).rewards([item("3")])
        assert time.monotonic() - start < 1.2
    assert (found.reward, found.reason) == (None, Reason.DEADLINE)


async def test_judgments_come_as_rows_in_order(url):
    asked = [JudgeRequest(id=f"r{n}", prompt="Which?", completions=(f"It is {n}", "It is 3")) for n in (5, 1)]
    first, second = await RewardClient(url).judge(asked, template="pair")
    assert (first["id"], first["scores"], first["preferred"]) == ("r5", [5, 3], 0)
    assert (second["id"], second["scores"], second["preferred"]) == ("r1", [1, 3], 1)


async def test_judgments_that_cannot_be_had_are_unscored_rows():
    asked = [JudgeRequest(id="r", prompt="Which?", completions=("1", "2"))]
    (row,) = await RewardClient("http://127.0.0.1:9", deadline_s=0.2).judge(asked)
    assert (row["id"], row["status"], row["reason"], row["scores"]) == ("r", "unscored", "engine", None)


async def test_a_ranking_has_the_best_first(url):
    asked = JudgeRequest(prompt="Which?", completions=("It is 2", "It is 5", "It is 3"))
    found = await RewardClient(url).rerank(asked, template="batch")
    assert (found.order, found.scores, found.reason) == ([1, 2, 0], [2, 5, 3], None)
    lost = await RewardClient("http://127.0.0.1:9", deadline_s=0.2).rerank(asked)
    assert (lost.order, lost.scores, lost.reason) == (None, None, Reason.ENGINE)


async def test_a_ranking_by_a_method_tells_its_judgments(url):
    asked = JudgeRequest(id="q", prompt="Which?", completions=("It is 2", "It is 5", "It is 3", "It is 2"))
    found = await RewardClient(url).rerank(asked, method="round-robin")
    assert (found.order, found.scores) == ([1, 2, 0, 3], [1 / 6, 1.0, 2 / 3, 1 / 6])
    assert found.counts == {"judgments": 3, "unscored": 0, "flipped": 0, "drawn": 0, "unread": 0}
    lists = await RewardClient(url).rerank(asked, method="listwise", list_size=3, seed=4)
    assert lists.order[0] == 1
    wrong = await RewardClient(url).rerank(asked, method="knockout", template="score")
    assert (wrong.order, wrong.reason) == (None, Reason.REFUSED)
    assert "template: score does not show 2 completions" in wrong.detail
