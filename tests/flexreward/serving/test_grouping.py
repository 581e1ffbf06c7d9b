import asyncio
import re
from dataclasses import replace

import pytest

from flexreward.config import JudgeRecipe
from flexreward.engines.base import Prompt
from flexreward.engines.scripted import ScriptedEngine
from flexreward.errors import BusyError, EngineError, SampleError, UserError
from flexreward.ledger import Ledger
from flexreward.serving import cohort as cohort_module
from flexreward.serving import gathering
from flexreward.serving.admission import Admission
from flexreward.serving.cohort import Cohorts
from flexreward.serving.contract import Caller, Rewarded, RewardItem
from flexreward.serving.grouping import Grouping
from flexreward.serving.judges import OpenJudge
from flexreward.serving.service import JudgeService
from flexreward.types import Media, Message, Reason

WORTH = re.compile(r"worth ([0-9.]+)")
ME = Caller(namespace="me")
EIGHT = tuple(f"worth {worth}" for worth in (5, 9, 1, 7, 3, 8, 2, 7))


def by_worth(prompt: Prompt) -> str:
    """A judge that scores each completion by the number it names."""
    return "<think>I look.</think>" + "".join(f"<answer>{worth}</answer>" for worth in WORTH.findall(prompt.user))


def served(
    template: str | None = None,
    method: str = "win_rate",
    *,
    engine: ScriptedEngine | None = None,
    cohorts: Cohorts | None = None,
    lanes: int = 64,
    max_waiting: int = 10_000,
    **grouping: object,
) -> JudgeService:
    opened = OpenJudge(
        recipe=JudgeRecipe(model="scripted:worth", engine="scripted", template=template),
        engine=engine or ScriptedEngine(by_worth),
        admission=Admission(lanes=lanes, max_waiting=max_waiting),
    )
    rewards = Grouping(cohorts or Cohorts(), method=method, **grouping)  # type: ignore[arg-type]
    return JudgeService({"main": opened}, ledger=Ledger(None), deadline_s=30.0, group_rewards=rewards)


def items(*completions: str, prompt: str = "how much?", **fields: object) -> list[RewardItem]:
    return [RewardItem(prompt=prompt, completion=text, **fields) for text in completions]  # type: ignore[arg-type]


def values(rewarded: list[Rewarded]) -> list[float | None]:
    return [one.reward for one in rewarded]


async def test_items_of_equal_prompts_are_a_group_and_results_follow_the_call():
    mixed = items("worth 7", "worth 2", prompt="a") + items("worth 3", "worth 9", prompt="b")
    order = [0, 2, 1, 3]
    told = await served().rewards([mixed[i] for i in order], caller=ME)
    assert values(told) == [1.0, 0.0, 0.0, 1.0]


async def test_a_judge_may_have_a_way_of_its_own():
    service = served(method="score", others={"main": "win_rate"})
    for judge in ("main", ""):
        assert values(await service.rewards(items("worth 7", "worth 2"), caller=ME, judge=judge)) == [1.0, 0.0]


async def test_each_result_says_how_it_came_about():
    told = (await served().rewards(items("worth 7", "worth 2", "worth 4"), caller=ME))[0]
    assert told.score == 7.0
    assert told.reasoning.startswith("<think>I look.</think>")
    assert told.flipped is False
    assert told.reason is None
    assert told.seconds > 0


async def test_a_flipped_winner_is_told():
    first = ScriptedEngine(lambda prompt: "<think></think><answer>9</answer><answer>2</answer>")
    told = await served(engine=first).rewards(items("worth 7", "worth 2"), caller=ME)
    assert [one.flipped for one in told] == [True, True]
    assert values(told) == [0.5, 0.5]


@pytest.mark.parametrize("method", ["score", "win_rate", "bradley_terry"])
async def test_eight_members_split_over_four_callers_get_what_one_caller_gets(method):
    engine = ScriptedEngine(by_worth)
    alone = values(await served("pair", method, engine=engine).rewards(items(*EIGHT), caller=ME))
    asked = engine.num_calls
    split_engine = ScriptedEngine(by_worth)
    cohorts = Cohorts()
    services = [served("pair", method, engine=split_engine, cohorts=cohorts) for _ in range(2)]
    calls = [items(*EIGHT[i : i + 2], group_size=8) for i in (4, 0, 6, 2)]
    told = await asyncio.gather(*(services[i % 2].rewards(call, caller=ME) for i, call in enumerate(calls)))
    assert [*values(told[1]), *values(told[3]), *values(told[0]), *values(told[2])] == alone
    assert split_engine.num_calls == asked


async def test_a_listwise_group_is_shown_in_the_same_order_however_it_came():
    def by_place(prompt: Prompt) -> str:
        scores = range(1, 1 + len(WORTH.findall(prompt.user)))
        return "<think></think>" + "".join(f"<answer>{score}</answer>" for score in scores)

    found = []
    for calls in ([items(*EIGHT[:4])], [items(EIGHT[i], group_size=4) for i in (2, 0, 3, 1)]):
        service = served("batch", "listwise", engine=ScriptedEngine(by_place))
        told = await asyncio.gather(*(service.rewards(call, caller=ME) for call in calls))
        found.append([values(one) for one in told])
    one, split = found
    assert [split[1][0], split[3][0], split[0][0], split[2][0]] == one[0]


async def test_scores_of_one_wait_for_nobody():
    told = await served("score", "score").rewards(items("worth 5", group_size=8), caller=ME)
    assert values(told) == [1.0]


async def test_what_is_missing_does_not_hold_back_the_rest():
    service = served(gather_s=0.1)
    calls = [items("worth 7", group_size=4), items("worth 2", group_size=4)]
    told = await asyncio.gather(*(service.rewards(call, caller=ME) for call in calls))
    assert [values(one) for one in told] == [[1.0], [0.0]]


async def test_a_lone_member_is_unscored_and_told_why():
    told = (await served(gather_s=0.05).rewards(items("worth 7", group_size=4), caller=ME))[0]
    assert told.reward is None
    assert told.reason is Reason.ALONE
    assert told.detail.startswith("3 other member(s) of its group never came")


async def test_a_retry_of_one_member_gets_the_released_result():
    engine = ScriptedEngine(by_worth)
    service = served(engine=engine)
    calls = [items("worth 7", group_size=2), items("worth 2", group_size=2)]
    told = await asyncio.gather(*(service.rewards(call, caller=ME) for call in calls))
    asked = engine.num_calls
    assert await service.rewards(calls[1], caller=ME) == told[1]
    assert engine.num_calls == asked


async def test_a_caller_that_goes_away_while_it_judges_does_not_break_the_group(monkeypatch):
    monkeypatch.setattr(gathering, "STEP_S", 0.02)
    engine = ScriptedEngine(by_worth, delay_s=0.1)
    service = served(engine=engine)
    first = asyncio.create_task(service.rewards(items("worth 7", group_size=2), caller=ME, deadline_s=60))
    await asyncio.sleep(0.01)
    second = asyncio.create_task(service.rewards(items("worth 2", group_size=2), caller=ME, deadline_s=30))
    await asyncio.sleep(0.05)
    first.cancel()
    assert values(await second) == [0.0]
    assert values(await service.rewards(items("worth 7", group_size=2), caller=ME)) == [1.0]


async def test_a_judge_that_breaks_breaks_each_call_and_hangs_none(monkeypatch):
    monkeypatch.setattr(gathering, "STEP_S", 0.02)

    def broken(prompt: Prompt) -> str:
        raise ZeroDivisionError("a bug")

    service = served(engine=ScriptedEngine(broken))
    calls = [items("worth 7", group_size=2), items("worth 2", group_size=2)]
    told = await asyncio.gather(*(service.rewards(call, caller=ME) for call in calls), return_exceptions=True)
    assert [type(one) for one in told] == [ZeroDivisionError] * 2


async def test_a_dead_engine_leaves_all_unscored_with_the_reason():
    def dead(prompt: Prompt) -> str:
        raise EngineError("the GPU has gone")

    told = await served(engine=ScriptedEngine(dead)).rewards(items("worth 7", "worth 2"), caller=ME)
    assert values(told) == [None, None]
    assert "the GPU has gone" in told[0].detail or told[0].reason in (Reason.ENGINE, Reason.QUORUM)


@pytest.mark.parametrize(("method", "template"), [("score", "score"), ("win_rate", "pair")])
async def test_the_deadline_of_a_call_holds_whatever_hangs(method, template):
    slow = ScriptedEngine(by_worth, delay_s=30.0)
    service = served(template, method, engine=slow, lanes=1)
    start = asyncio.get_running_loop().time()
    told = await service.rewards(items("worth 5", "worth 2", "worth 3"), caller=ME, deadline_s=0.2)
    assert asyncio.get_running_loop().time() - start < 2.0
    assert values(told) == [None] * 3
    assert told[0].reason in (Reason.DEADLINE, Reason.QUORUM)


async def test_a_group_whose_owner_never_answers_in_time_is_unscored_at_the_deadline():
    class Silent(Cohorts):
        async def join(self, joining, timeout_s):
            await asyncio.sleep(timeout_s)
            return cohort_module.WAITING

    told = await served(cohorts=Silent()).rewards(items("worth 5", group_size=2), caller=ME, deadline_s=0.2)
    assert told[0].reason is Reason.DEADLINE


async def test_callers_steps_and_runs_never_meet():
    service = served(gather_s=0.1)
    seven, two = items("worth 7", group_size=2), items("worth 2", group_size=2)
    for other in (
        service.rewards(two, caller=Caller(namespace="other")),
        service.rewards([replace(two[0], step=2)], caller=ME),
        service.rewards([replace(two[0], run="b")], caller=ME),
        service.rewards([replace(two[0], group="g")], caller=ME),
        service.rewards([replace(two[0], rubric="another")], caller=ME),
    ):
        told = await asyncio.gather(service.rewards(seven, caller=ME), other)
        assert [values(one) for one in told] == [[None], [None]]
        service = served(gather_s=0.1)


async def test_several_groups_of_one_prompt_in_a_call_follow_each_other():
    told = await served().rewards(items("worth 7", "worth 2", "worth 7", "worth 9", group_size=2), caller=ME)
    assert values(told) == [1.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ([{"prompt": "a"}, {"prompt": "b"}], r"completions\[1\]: the group 'g' mixes prompts"),
        (
            [{"rubric": "a"}, {"rubric": "b"}],
            "mixes prompts, or what is shown with them",
        ),
        ([{"group_size": 2}, {"group_size": 3}], "several group_size"),
        ([{"group_size": 1}, {"group_size": 1}], "has 2 members and group_size 1"),
    ],
)
async def test_a_group_that_is_none_is_refused_in_one_line(fields, says):
    named = [
        RewardItem(**({"prompt": "a", "completion": f"worth {i}", "group": "g"} | f)) for i, f in enumerate(fields)
    ]
    with pytest.raises(UserError, match=says):
        await served().rewards(named, caller=ME)


async def test_an_item_that_cannot_be_shown_is_named_before_anything_is_judged():
    engine = ScriptedEngine(by_worth)
    sound = Media(kind="audio", data=b"x")
    mixed = [*items("worth 7", "worth 2"), RewardItem(prompt="how much?", completion=sound)]
    with pytest.raises(SampleError, match=r"completions\[2\]: no bundled template shows"):
        await served(engine=engine).rewards(mixed, caller=ME)
    assert engine.num_calls == 0


async def test_conversations_and_media_tell_groups_apart():
    turns = [(Message(role="user", content=text),) for text in ("a", "b")]
    calls = [RewardItem(prompt=turn, completion=f"worth {worth}") for turn in turns for worth in (7, 2)]
    assert values(await served().rewards(calls, caller=ME)) == [1.0, 0.0, 1.0, 0.0]
    pictures = [(Media(kind="image", data=data),) for data in (b"x", b"y")]
    shown = [RewardItem(prompt="q", completion=f"worth {worth}", media=media) for media in pictures for worth in (7, 2)]
    assert values(await served("image-pair").rewards(shown, caller=ME)) == [1.0, 0.0, 1.0, 0.0]


async def test_no_items_have_no_results():
    assert await served().rewards([], caller=ME) == []


async def test_a_group_is_admitted_as_a_whole_before_it_is_gathered_or_judged():
    service = served(max_waiting=10, engine=ScriptedEngine(by_worth, delay_s=0.3))
    first = asyncio.create_task(service.rewards(items("worth 7", "worth 2", "worth 4", "worth 9"), caller=ME))
    await asyncio.sleep(0.1)
    assert service.judges["main"].admission.accepted == 6
    with pytest.raises(BusyError):
        await service.rewards(items("worth 7", "worth 2", "worth 3", group_size=4), caller=ME)
    assert values(await first) == [2 / 3, 0.0, 1 / 3, 1.0]
    assert service.judges["main"].admission.accepted == 0


async def test_a_judgment_that_has_ended_makes_room_before_its_call_has():
    service = served("score", "score", lanes=1, engine=ScriptedEngine(by_worth, delay_s=0.1))
    call = asyncio.create_task(service.rewards(items("worth 1", "worth 2", "worth 3"), caller=ME))
    seen = set()
    while not call.done():
        seen.add(service.judges["main"].admission.accepted)
        await asyncio.sleep(0.01)
    assert {1, 2, 3} < seen
    assert service.judges["main"].admission.accepted == 0


async def test_the_same_judge_compares_by_the_template_that_fits_and_by_its_own_where_that_does():
    one = RewardItem(prompt="q", completion="worth 7")
    assert values(await served("score", "win_rate").rewards([one, *items("worth 2", prompt="q")], caller=ME)) == [1, 0]
    assert values(await served("pair", "score").rewards(items("worth 10", "worth 1"), caller=ME)) == [1.0, 0.0]
    assert served("pair", "score").judges.shown_at_once("", "score") == 2
    assert served("score", "score").judges.shown_at_once("", "listwise") is None
