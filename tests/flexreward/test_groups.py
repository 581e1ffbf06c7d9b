import asyncio
import random
import re
import statistics
from collections.abc import Callable
from itertools import combinations

import pytest
from scipy.stats import kendalltau

from flexreward.engines.base import Prompt
from flexreward.engines.scripted import ScriptedEngine
from flexreward.errors import EngineError, SampleError
from flexreward.groups import Asked, GroupOutcome, compares, judge_group, num_judgments, num_pairs
from flexreward.judge import Judge
from flexreward.reward import Game, win_rates
from flexreward.templates import load_template
from flexreward.types import JudgeRequest, Judgment, OrderOutcome, Reason, Scale, Unscored, Verdict

TEN = Scale(low=1, high=10)
WORTH = re.compile(r"worth ([0-9.]+)")
GROUP = JudgeRequest(id="g", prompt="how much?", completions=("worth 7", "worth 2", "worth 9", "worth 4"))


def by_worth(prompt: Prompt) -> str:
    """A judge that scores each completion by the number it names."""
    scores = "".join(f"<answer>{worth}</answer>" for worth in WORTH.findall(prompt.user))
    return f"<think>I look.</think>{scores}"


def judge(template: str, script: Callable[[Prompt], str] = by_worth, **options: object) -> Judge:
    return Judge(ScriptedEngine(script), load_template(template), **options)  # type: ignore[arg-type]


async def grouped(judge: Judge, method: str, group: JudgeRequest = GROUP, **options: float) -> GroupOutcome:
    num = judge.template.num_completions
    return await judge_group(judge.judge, group, method=method, num_completions=num, **options)  # type: ignore[arg-type]


def group_of(*completions: str) -> JudgeRequest:
    return JudgeRequest(id="g", prompt="how much?", completions=completions)


async def test_each_is_scored_on_its_own_by_a_template_of_one():
    outcome = await grouped(judge("score"), "score", group_of("worth 5", "worth 1", "worth 3"))
    assert outcome.rewards == (1.0, 0.0, 0.5)


async def test_a_template_of_pairs_scores_each_by_the_mean_over_all_others():
    outcome = await grouped(judge("pair"), "score", group_of("worth 10", "worth 1", "worth 5.5"))
    assert outcome.rewards == (1.0, 0.0, 0.5)
    assert [one.members for one in outcome.asked] == [(0, 1), (0, 2), (1, 2)]


async def test_a_listwise_template_scores_all_at_once_in_both_directions():
    for method in ("score", "listwise"):
        outcome = await grouped(judge("batch"), method, group_of("worth 10", "worth 1", "worth 5.5"))
        assert outcome.rewards == (1.0, 0.0, 0.5)
        assert [order.order for order in outcome.asked[0].judgment.orders] == [(0, 1, 2), (2, 1, 0)]


async def test_a_win_rate_is_the_share_of_the_others_that_are_beaten():
    outcome = await grouped(judge("pair"), "win_rate")
    assert outcome.rewards == (2 / 3, 0.0, 1.0, 1 / 3)


async def test_a_judge_that_always_prefers_slot_one_makes_ties():
    first = judge("pair", lambda prompt: "<think></think><answer>9</answer><answer>2</answer>")
    for method in ("win_rate", "bradley_terry"):
        assert (await grouped(first, method)).rewards == pytest.approx((0.5,) * 4)


async def test_bradley_terry_ranks_as_the_scores_do_from_half_of_the_pairs():
    group = group_of(*(f"worth {worth}" for worth in (5, 9, 1, 7, 3, 8, 2, 6)))
    outcome = await grouped(judge("pair"), "bradley_terry", group)
    assert len(outcome.asked) == 14
    assert kendalltau(outcome.rewards, (5, 9, 1, 7, 3, 8, 2, 6)).statistic == pytest.approx(1.0)
    assert all(0.0 < reward < 1.0 for reward in outcome.rewards)


@pytest.mark.parametrize(("size", "count"), [(1, 0), (2, 1), (3, 2), (4, 3), (8, 14), (16, 60)])
def test_bradley_terry_compares_half_of_all_pairs_and_as_many_as_connect_the_group(size, count):
    assert num_pairs(size) == count


@pytest.mark.parametrize(
    ("template", "method"),
    [("score", "score"), ("pair", "score"), ("pair", "win_rate"), ("pair", "bradley_terry"), ("batch", "listwise")],
)
async def test_a_group_takes_as_many_judgments_as_are_said_beforehand(template, method):
    shown = judge(template)
    num = num_judgments(method, size=4, num_completions=shown.template.num_completions)
    assert len((await grouped(shown, method)).asked) == num


async def test_what_was_asked_and_its_order_follow_from_the_group_alone():
    runs = [await grouped(judge("pair"), "bradley_terry") for _ in range(2)]
    assert runs[0].rewards == runs[1].rewards
    assert [one.members for one in runs[0].asked] == [one.members for one in runs[1].asked]


async def test_the_pairs_of_a_round_are_judged_at_the_same_time():
    running = most = 0
    inner = judge("pair")

    async def ask(request: JudgeRequest) -> Judgment:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return await inner.judge(request)

    group = group_of(*(f"worth {worth}" for worth in range(1, 9)))
    await judge_group(ask, group, method="bradley_terry", num_completions=2)
    assert most == 4


@pytest.mark.parametrize("method", ["score", "win_rate", "bradley_terry"])
async def test_equal_completions_are_judged_once_and_get_equal_rewards(method):
    engine = ScriptedEngine(by_worth)
    pair = Judge(engine, load_template("pair"))
    outcome = await grouped(pair, method, group_of("worth 8", "worth 2", "worth 8", "worth 8"))
    assert outcome.rewards[0] == outcome.rewards[2] == outcome.rewards[3] > outcome.rewards[1]
    assert engine.num_calls == 2
    assert outcome.of(3)[0].members == (0, 1)


async def test_a_group_of_equal_completions_ties():
    for method in ("win_rate", "bradley_terry"):
        outcome = await grouped(judge("pair"), method, group_of("worth 8", "worth 8", "worth 8"))
        assert outcome.rewards == (0.5, 0.5, 0.5)
        assert outcome.asked == ()


async def test_a_group_of_equal_completions_is_scored_by_pairs_as_they_are():
    assert (await grouped(judge("pair"), "score", group_of("worth 10", "worth 10"))).rewards == (1.0, 1.0)


@pytest.mark.parametrize(
    ("template", "method"), [("pair", "win_rate"), ("pair", "bradley_terry"), ("batch", "listwise")]
)
async def test_a_lone_completion_has_nobody_to_be_compared_with(template, method):
    outcome = await grouped(judge(template), method, group_of("worth 8"))
    assert outcome.rewards == (None,)
    assert outcome.reason(0).reason is Reason.ALONE


async def test_a_dead_engine_gives_nobody_a_reward_not_even_equal_ones():
    def dead(prompt: Prompt) -> str:
        raise EngineError("dead")

    for method in ("score", "win_rate", "bradley_terry"):
        outcome = await grouped(judge("pair", dead), method, group_of("worth 8", "worth 8", "worth 2"))
        assert outcome.rewards == (None, None, None)
        assert outcome.reason(1).reason in (Reason.ENGINE, Reason.QUORUM)


@pytest.mark.parametrize("method", ["score", "win_rate", "bradley_terry"])
async def test_who_cannot_be_judged_is_left_out_and_changes_nobody_elses_rank(method):
    def chokes(prompt: Prompt) -> str:
        return "no answer" if "worth 9" in prompt.user else by_worth(prompt)

    outcome = await grouped(judge("pair", chokes), method)
    assert outcome.rewards[2] is None
    assert outcome.reason(2).reason in (Reason.NO_END, Reason.NO_ANSWER, Reason.QUORUM)
    assert outcome.rewards[0] > outcome.rewards[3] > outcome.rewards[1]


async def test_a_template_that_cannot_show_a_completion_says_so():
    with pytest.raises(SampleError, match="expected image"):
        await grouped(judge("image-pair"), "win_rate")


def test_only_scores_of_one_need_no_group():
    assert not compares("score", num_completions=1)
    assert compares("score", num_completions=2)
    assert compares("win_rate", num_completions=2)


def noisy(seed: int, size: int, *, view: float, noise: float) -> tuple[list[float], Callable[[JudgeRequest], Verdict]]:
    """What completions are worth, and a judge that sees each a little wrong, and each time a little differently.

    Args:
        view: Standard deviation, in points of ten, of how wrongly it sees a completion.
        noise: The same for each time that it is shown it; a pair is shown twice.
    """
    rng = random.Random(seed)
    worth = [rng.uniform(1, 10) for _ in range(size)]
    seen = [value + rng.gauss(0, view) for value in worth]

    def said(request: JudgeRequest) -> Verdict:
        pair = [int(completion) for completion in request.completions]
        again = random.Random(f"{seed} {pair}")
        scores = [
            statistics.fmean(min(max(round(seen[i] + again.gauss(0, noise)), 1), 10) for _ in range(2)) for i in pair
        ]
        return Verdict(scores=tuple(scores), scale=TEN)

    return worth, said


async def taus(seed: int, size: int, **judge: float) -> dict[str, float]:
    worth, said = noisy(seed, size, **judge)
    group = group_of(*map(str, range(size)))

    async def ask(request: JudgeRequest) -> Judgment:
        outcome = said(request)
        orders = (OrderOutcome(order=(0, 1), outcome=outcome, votes=()),)
        return Judgment(request_id="", template="pair", outcome=outcome, orders=orders, judge="")

    half = await judge_group(ask, group, method="bradley_terry", num_completions=2)
    every = await judge_group(ask, group, method="bradley_terry", num_completions=2, share=1.0)
    assert len(half.asked) <= size * (size - 1) / 4
    assert len(every.asked) == size * (size - 1) / 2
    games = [Game(*one.members, one.judgment.outcome) for one in every.asked]
    found = {"half": half.rewards, "every": every.rewards, "wins": win_rates(games, group_size=size)}
    return {name: kendalltau(rewards, worth).statistic for name, rewards in found.items()}


async def test_half_of_the_pairs_rank_a_group_as_well_as_all_of_them_over_200_seeds():
    found = [await taus(seed, 8, view=1.0, noise=0.5) for seed in range(200)]
    half, every, wins = (statistics.fmean(one[name] for one in found) for name in ("half", "every", "wins"))
    assert half > every - 0.02
    assert half > wins - 0.02
    assert every < 0.9  # the judge is noisy indeed


def test_unscored_pairs_are_named_by_the_commonest_reason():
    lost = [Unscored(reason=reason) for reason in (Reason.DEADLINE, Reason.ENGINE, Reason.DEADLINE)]
    asked = []
    for outcome, members in zip(lost, combinations(range(3), 2), strict=True):
        orders = (OrderOutcome(order=(0, 1), outcome=outcome, votes=()),)
        judgment = Judgment(request_id="", template="pair", outcome=outcome, orders=orders, judge="")
        asked.append((members, judgment))
    outcome = GroupOutcome(rewards=(None,) * 3, asked=tuple(Asked(*one) for one in asked), same=(0, 1, 2))
    assert outcome.reason(1).reason is Reason.DEADLINE
