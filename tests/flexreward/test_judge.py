import asyncio
import gc
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

import pytest

from flexreward.engines.base import Capabilities, Engine, Prompt, Sampling
from flexreward.engines.scripted import ScriptedEngine
from flexreward.errors import ContextError, EngineError, OutputError, RecipeError, SampleError
from flexreward.judge import Judge
from flexreward.ledger import Ledger
from flexreward.ledger.store import Store
from flexreward.templates import load_template
from flexreward.types import JudgeRequest, Judgment, Media, Outcome, Reason, Reply, Scale, Unscored, Verdict

SCALE = Scale(low=1, high=10)


@dataclass(frozen=True)
class Plain:
    """A template that shows completions a line each and reads numbers between bars."""

    id: str = "plain"
    scale: Scale = SCALE
    num_completions: int | None = None
    reasoning: str = "none"
    digest: str = "d" * 64

    def render(self, request: JudgeRequest, *, prefill: bool = False) -> Prompt:
        if not request.completions:
            raise SampleError("no completions")
        lines = [request.prompt, *request.completions]
        return Prompt(system="score each", user="\n".join(map(str, lines)), prefix="<think>" if prefill else "")

    def parse(self, reply: Reply, *, count: int) -> Outcome:
        scores = tuple(map(float, re.findall(r"\|([\d.]+)\|", reply.text)))
        if len(scores) != count:
            return Unscored(reason=Reason.MISSING, reply=reply.text)
        return Verdict(scores=scores, scale=self.scale, reply=reply.text)


PAIR = JudgeRequest(id="q", prompt="2+2?", completions=("good", "bad"))
ONE = JudgeRequest(id="q", prompt="2+2?", completions=("good",))


def fair(prompt: Prompt) -> str:
    """Nine for what is good, two for the rest, wherever it is shown."""
    return "".join("|9|" if line.startswith("good") else "|2|" for line in prompt.user.split("\n")[1:])


def ones(count: int) -> list[JudgeRequest]:
    return [JudgeRequest(id=str(i), prompt=f"{i}?", completions=("good",)) for i in range(count)]


def judge(engine: Engine, **options: object) -> Judge:
    return Judge(engine, Plain(), **options)  # type: ignore[arg-type]


async def consume(judgments: AsyncIterator[Judgment], seen: list[str]) -> None:
    async for judgment in judgments:
        seen.append(judgment.request_id)


class Spy:
    """An engine that remembers what it was asked for, and what was closed before its end."""

    can = Capabilities(prefix=True)

    def __init__(self, replies: Callable[[Prompt, Sampling], AsyncIterator[Reply]]) -> None:
        self.identity = {"engine": "spy", "model": "m"}
        self.asked: list[tuple[Prompt, Sampling]] = []
        self.running = self.most_running = self.aborted = 0
        self._replies = replies

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncIterator[Reply]:
        self.asked.append((prompt, sampling))
        self.running += 1
        self.most_running = max(self.running, self.most_running)
        ended = False
        try:
            async for reply in self._replies(prompt, sampling):
                yield reply
            ended = True
        finally:
            self.running -= 1
            self.aborted += not ended

    async def close(self) -> None:
        pass


def taking(seconds: Callable[[Prompt], float], text: Callable[[Prompt], str] = fair) -> Spy:
    async def replies(prompt: Prompt, sampling: Sampling) -> AsyncIterator[Reply]:
        for i in range(sampling.n):
            await asyncio.sleep(seconds(prompt))
            yield Reply(text=text(prompt), index=i)

    return Spy(replies)


def failing(after: int, error: Exception, text: str = "|9|") -> Spy:
    async def replies(prompt: Prompt, sampling: Sampling) -> AsyncIterator[Reply]:
        await asyncio.sleep(0)
        for i in range(after):
            yield Reply(text=text, index=i)
        raise error

    return Spy(replies)


# Law 1: a failure is never a score.


@pytest.mark.parametrize(
    ("error", "reason"), [(EngineError("dead"), Reason.ENGINE), (ContextError("too long"), Reason.CONTEXT)]
)
async def test_a_dead_engine_is_unscored_with_its_reason_and_what_it_said(error, reason):
    judgment = await judge(failing(0, error)).judge(ONE)
    assert isinstance(judgment.outcome, Unscored)
    assert judgment.outcome.reason is reason
    assert judgment.outcome.detail == str(error)


async def test_an_engine_that_fails_before_its_first_step_is_unscored_too():
    class Dead(ScriptedEngine):
        def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncIterator[Reply]:
            raise EngineError("closed")

    outcome = (await judge(Dead(fair)).judge(ONE)).outcome
    assert outcome == Unscored(reason=Reason.ENGINE, detail="closed")


async def test_a_reply_that_cannot_be_read_is_unscored_and_kept():
    judgment = await judge(ScriptedEngine(lambda _: "no numbers")).judge(ONE)
    assert judgment.outcome == Unscored(reason=Reason.MISSING, reply="no numbers")


async def test_an_engine_that_ends_early_without_a_word_is_unscored():
    async def nothing(prompt: Prompt, sampling: Sampling) -> AsyncIterator[Reply]:
        return
        yield

    outcome = (await judge(Spy(nothing)).judge(ONE)).outcome
    assert isinstance(outcome, Unscored)
    assert outcome.reason is Reason.ENGINE
    assert "0 of 1" in outcome.detail


async def test_a_mistake_in_an_engine_is_raised_and_leaves_nobody_waiting():
    def broken(prompt: Prompt) -> str:
        raise ZeroDivisionError("a bug")

    broken_judge = judge(ScriptedEngine(broken, delay_s=0.01))
    first, second = await asyncio.gather(broken_judge.judge(ONE), broken_judge.judge(ONE), return_exceptions=True)
    assert isinstance(first, ZeroDivisionError)
    assert second.outcome == Unscored(reason=Reason.ENGINE, detail="ZeroDivisionError: a bug")


async def test_a_request_that_the_engine_cannot_be_shown_is_unscored_and_asks_no_engine():
    class OfText(ScriptedEngine):
        can = Capabilities()

    engine = OfText(fair)
    images = tuple(Media(kind="image", data=name) for name in (b"good", b"bad"))
    request = JudgeRequest(prompt="q", completions=images)
    outcome = (await Judge(engine, load_template("mj-align")).judge(request)).outcome
    assert isinstance(outcome, Unscored)
    assert outcome.reason is Reason.REFUSED
    assert engine.num_calls == 0


async def test_a_request_that_lacks_what_the_template_shows_is_the_users_mistake():
    with pytest.raises(SampleError, match="expected image as completion 1, found text"):
        await Judge(ScriptedEngine(fair), load_template("mj-align")).judge(PAIR)


# Law 2: a tie is a verdict.


async def test_a_judge_that_always_prefers_slot_one_ends_in_a_tie():
    judgment = await judge(ScriptedEngine(lambda _: "|8||3|")).judge(PAIR)
    assert isinstance(judgment.outcome, Verdict)
    assert judgment.outcome.tie
    assert judgment.outcome.scores == (5.5, 5.5)
    assert judgment.consistent is False


async def test_equal_completions_tie_and_are_bought_once():
    engine = ScriptedEngine(fair, delay_s=0.01)
    outcome = (await judge(engine).judge(replace(PAIR, completions=("good", "good")))).outcome
    assert isinstance(outcome, Verdict)
    assert outcome.tie
    assert engine.num_calls == 1


# Law 3: same request, same answer.


async def test_identical_requests_in_flight_join_one_purchase():
    engine = ScriptedEngine(fair, delay_s=0.01)
    shared = judge(engine)
    judgments = await asyncio.gather(*(shared.judge(replace(PAIR, id=str(i))) for i in range(20)))
    assert engine.num_calls == 2  # one an order
    assert len({judgment.outcome for judgment in judgments}) == 1
    assert [judgment.request_id for judgment in judgments] == [str(i) for i in range(20)]


async def test_judges_that_share_a_ledger_join_too():
    engine, ledger = ScriptedEngine(fair, delay_s=0.01), Ledger(None)
    await asyncio.gather(*(judge(engine, ledger=ledger).judge(ONE) for _ in range(5)))
    assert engine.num_calls == 1


async def test_a_kept_verdict_is_never_bought_again(tmp_path):
    engine = ScriptedEngine(fair)
    with Store(tmp_path / "s.sqlite") as store:
        first = await judge(engine, ledger=Ledger(store)).judge(PAIR)
    with Store(tmp_path / "s.sqlite") as store:
        second = await judge(engine, ledger=Ledger(store)).judge(PAIR)
    assert engine.num_calls == 2
    assert not first.cached
    assert second.cached
    assert replace(second, cached=False, seconds=0) == replace(first, seconds=0)


async def test_kept_replies_are_read_anew_and_not_bought(tmp_path):
    class Halved(Plain):
        def parse(self, reply: Reply, *, count: int) -> Outcome:
            verdict = super().parse(reply, count=count)
            return replace(verdict, scores=tuple(score / 2 for score in verdict.scores))

    engine = ScriptedEngine(fair)
    with Store(tmp_path / "s.sqlite") as store:
        ledger = Ledger(store)
        first = Judge(engine, Plain(), ledger=ledger)
        second = Judge(engine, Halved(digest="e" * 64), ledger=ledger)
        assert (await first.judge(ONE)).outcome.scores == (9,)
        assert (await second.judge(ONE)).outcome.scores == (4.5,)
    assert engine.num_calls == 1
    assert first.fingerprint != second.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"sampling": Sampling(temperature=0.5)},
        {"sampling": Sampling(seed=1)},
        {"sampling": Sampling(max_tokens=7)},
        {"sampling": Sampling(stop=("x",))},
        {"votes": 3},
        {"prefill": True},
        {"namespace": "other"},
    ],
    ids=str,
)
async def test_whatever_changes_replies_ends_reuse(tmp_path, change):
    engine = ScriptedEngine(fair)
    with Store(tmp_path / "s.sqlite") as store:
        await judge(engine, ledger=Ledger(store)).judge(ONE)
        other = await judge(engine, ledger=Ledger(store), **change).judge(ONE)
    assert engine.num_calls == 2
    assert not other.cached


async def test_other_weights_end_reuse(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        for model in ("a", "b"):
            assert not (await judge(ScriptedEngine(fair, name=model), ledger=Ledger(store)).judge(ONE)).cached


@pytest.mark.parametrize(
    "change",
    [
        {"sampling": Sampling(temperature=1)},
        {"votes": 2},
        {"aggregate": "median"},
        {"both_orders": False},
        {"order_seed": 0},
        {"order_seed": 1},
        {"prefill": True},
    ],
    ids=str,
)
def test_the_fingerprint_changes_with_whatever_changes_a_verdict(change):
    assert judge(ScriptedEngine(fair), **change).fingerprint != judge(ScriptedEngine(fair)).fingerprint


def test_the_fingerprint_changes_with_the_template_and_the_model():
    engine = ScriptedEngine(fair)
    assert Judge(engine, Plain(digest="e" * 64)).fingerprint != Judge(engine, Plain()).fingerprint
    assert judge(ScriptedEngine(fair, name="other")).fingerprint != judge(engine).fingerprint


def test_the_fingerprint_does_not_change_with_what_changes_no_verdict(tmp_path):
    plain = judge(ScriptedEngine(fair))
    assert judge(ScriptedEngine(fair), deadline_s=3.0, ledger=Ledger(None)).fingerprint == plain.fingerprint
    assert judge(ScriptedEngine(fair), sampling=Sampling(temperature=0)).fingerprint == plain.fingerprint


async def test_the_seed_follows_from_the_request_alone():
    async def seeds(requests: list[JudgeRequest], **options: object) -> dict[str, int]:
        engine = taking(lambda _: 0)
        async for _ in judge(engine, **options).judge_all(requests, max_in_flight=3):
            pass
        return {prompt.user: sampling.seed for prompt, sampling in engine.asked}

    requests = ones(20)
    forward = await seeds(requests)
    assert await seeds(requests[::-1]) == forward
    assert await seeds(requests, namespace="tenant") == forward
    assert len(set(forward.values())) == 20
    assert all(0 <= seed < 2**53 for seed in forward.values())
    other = await seeds(requests, sampling=Sampling(seed=1))
    assert not set(other.values()) & set(forward.values())


async def test_one_order_drawn_a_row_is_shown_and_the_scores_come_in_the_order_of_the_request():
    pairs = [replace(PAIR, id=str(i)) for i in range(40)]
    judgments = [judgment async for judgment in judge(ScriptedEngine(fair), order_seed=3).judge_all(pairs)]
    assert {judgment.outcome.scores for judgment in judgments} == {(9, 2)}
    assert {len(judgment.orders) for judgment in judgments} == {1}
    assert {judgment.orders[0].order for judgment in judgments} == {(0, 1), (1, 0)}


async def test_a_failure_of_the_engine_is_never_kept(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        for came in (0, 2):  # two of three are a verdict, and yet not what was to be bought
            await judge(failing(came, EngineError("died")), votes=3, ledger=Ledger(store)).judge(ONE)
            assert len(store) == 0


async def test_an_engine_that_fails_after_its_last_reply_has_answered(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        judgment = await judge(failing(1, EngineError("late")), ledger=Ledger(store)).judge(ONE)
        assert isinstance(judgment.outcome, Verdict)
        assert len(store) == 1


async def test_a_dead_engine_is_asked_once_for_all_who_wait():
    engine = failing(0, EngineError("dead"))
    shared = judge(engine)
    judgments = await asyncio.gather(*(shared.judge(ONE) for _ in range(10)))
    assert {judgment.outcome for judgment in judgments} == {Unscored(reason=Reason.ENGINE, detail="dead")}
    assert len(engine.asked) == 1
    await shared.judge(ONE)
    assert len(engine.asked) == 2  # not settled: who comes later tries again


async def test_a_cancelled_buyer_leaves_the_purchase_to_the_next():
    engine = taking(lambda _: 0.2)
    shared = judge(engine)
    first, second = (asyncio.create_task(shared.judge(ONE)) for _ in range(2))
    await asyncio.sleep(0.005)
    first.cancel()
    assert isinstance((await second).outcome, Verdict)
    assert first.cancelled()
    assert len(engine.asked) == 2
    assert engine.aborted == 1


# Law 4: scores follow the request's order.


@pytest.mark.parametrize("completions", [("good", "bad"), ("bad", "good"), ("bad", "good", "worse")])
async def test_scores_follow_the_request_whatever_order_was_shown(completions):
    judgment = await judge(ScriptedEngine(fair), votes=3).judge(replace(PAIR, completions=completions))
    expected = tuple(9.0 if text == "good" else 2.0 for text in completions)
    assert judgment.outcome.scores == expected
    assert judgment.consistent is True
    assert {order.order for order in judgment.orders} == {
        tuple(range(len(completions))),
        tuple(range(len(completions)))[::-1],
    }
    for order in judgment.orders:
        assert order.outcome.scores == expected
        assert [vote.outcome.scores for vote in order.votes] == [expected] * 3


async def test_votes_stand_in_the_order_of_their_draw_not_of_their_end():
    async def backwards(prompt: Prompt, sampling: Sampling) -> AsyncIterator[Reply]:
        for i in reversed(range(sampling.n)):
            yield Reply(text=f"|{i + 1}|", index=i)

    judgment = await judge(Spy(backwards), votes=3).judge(ONE)
    assert [vote.reply.text for vote in judgment.orders[0].votes] == ["|1|", "|2|", "|3|"]


# Law 6: every wait has a deadline.


async def test_past_its_deadline_a_request_is_unscored_and_its_generation_aborted():
    engine = taking(lambda _: 60)
    outcome = (await judge(engine, deadline_s=0.02).judge(PAIR)).outcome
    assert isinstance(outcome, Unscored)
    assert outcome.reason is Reason.DEADLINE
    assert engine.aborted == 2
    assert engine.running == 0


async def test_who_waits_for_another_has_a_deadline_of_his_own():
    engine, ledger = taking(lambda _: 0.2), Ledger(None)
    patient = asyncio.create_task(judge(engine, ledger=ledger).judge(ONE))
    await asyncio.sleep(0)
    hasty = (await judge(engine, ledger=ledger, deadline_s=0.02).judge(ONE)).outcome
    assert isinstance(hasty, Unscored)
    assert hasty.reason is Reason.DEADLINE
    assert isinstance((await patient).outcome, Verdict)
    assert len(engine.asked) == 1


async def test_a_buyer_out_of_time_leaves_the_purchase_to_who_has_longer():
    engine, ledger = taking(lambda _: 0.05), Ledger(None)
    hasty = asyncio.create_task(judge(engine, ledger=ledger, deadline_s=0.01).judge(ONE))
    await asyncio.sleep(0)
    assert isinstance((await judge(engine, ledger=ledger).judge(ONE)).outcome, Verdict)
    assert isinstance((await hasty).outcome, Unscored)


async def test_a_timeout_of_the_engines_own_is_not_taken_for_the_deadline():
    with pytest.raises(TimeoutError):
        await judge(failing(0, TimeoutError("a bug")), deadline_s=10).judge(ONE)


# Law 8: quorum.


@pytest.mark.parametrize(("came", "scored"), [(0, False), (1, False), (2, False), (3, True), (4, True)])
async def test_what_a_dying_engine_gave_counts_only_past_half_of_what_was_asked_for(came, scored):
    judgment = await judge(failing(came, EngineError("died")), votes=5).judge(ONE)
    assert isinstance(judgment.outcome, Verdict) is scored
    (order,) = judgment.orders
    assert [isinstance(vote.outcome, Verdict) for vote in order.votes] == [True] * came + [False] * (5 - came)
    if not scored:
        assert judgment.outcome.reason is Reason.ENGINE


async def test_votes_that_came_before_the_deadline_count_past_half():
    arrived = 0

    async def slow_at_the_end(prompt: Prompt, sampling: Sampling) -> AsyncIterator[Reply]:
        nonlocal arrived
        for i in range(sampling.n):
            await asyncio.sleep(0 if i < 3 else 60)
            arrived += 1
            yield Reply(text="|9|", index=i)

    outcome = (await judge(Spy(slow_at_the_end), votes=5, deadline_s=0.5).judge(ONE)).outcome
    assert outcome.scores == (9.0,)
    assert arrived == 3


async def test_a_pair_with_one_readable_order_is_unscored():
    engine = ScriptedEngine(lambda prompt: "|9||2|" if prompt.user.endswith("bad") else "hm")
    outcome = (await judge(engine).judge(PAIR)).outcome
    assert isinstance(outcome, Unscored)
    assert outcome.reason is Reason.QUORUM


# judge_all.


async def test_judgments_come_in_the_order_of_the_requests():
    engine = taking(lambda prompt: 0.02 if prompt.user.startswith("0") else 0.001)
    ids = [judgment.request_id async for judgment in judge(engine).judge_all(ones(50), max_in_flight=8)]
    assert ids == [str(i) for i in range(50)]
    assert engine.most_running == 8


async def test_the_input_is_taken_as_there_is_room_and_never_held_whole():
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield replace(ONE, prompt=str(taken))

    judgments = judge(ScriptedEngine(fair)).judge_all(endless(), max_in_flight=4)
    for _ in range(100):
        await anext(judgments)
    assert taken <= 100 + 4 * 4 + 1
    await judgments.aclose()


async def test_a_judgment_does_not_wait_for_requests_that_have_not_come():
    async def trickle():
        yield ONE
        await asyncio.sleep(60)

    judgments = judge(ScriptedEngine(fair)).judge_all(trickle())
    assert isinstance((await asyncio.wait_for(anext(judgments), 30)).outcome, Verdict)
    await judgments.aclose()


async def test_a_bad_row_is_raised_in_its_place_after_all_judgments_before_it():
    def rows():
        yield from ones(10)
        raise SampleError("line 11: broken JSON")

    seen = []
    engine = taking(lambda _: 0.005)
    with pytest.raises(SampleError, match="line 11"):
        await consume(judge(engine).judge_all(rows(), max_in_flight=4), seen)
    assert seen == [str(i) for i in range(10)]
    assert engine.aborted == 0


async def test_a_request_that_cannot_be_shown_is_raised_in_its_place():
    rows = [*ones(3), replace(ONE, completions=()), *ones(3)]
    seen = []
    with pytest.raises(SampleError):
        await consume(judge(taking(lambda _: 0.001)).judge_all(rows), seen)
    assert seen == ["0", "1", "2"]


async def test_a_store_that_fails_is_raised_once_and_ends_the_purchases(tmp_path):
    class Full(Store):
        def put(self, key: str, value: bytes) -> bytes:
            if len(self) >= 5:
                raise OutputError("disk full")
            return super().put(key, value)

    engine = taking(lambda _: 0.001)
    with Full(tmp_path / "s.sqlite") as store:
        with pytest.raises(OutputError):
            await consume(judge(engine, ledger=Ledger(store)).judge_all(ones(500), max_in_flight=4), [])
        assert len(store) == 5
    assert len(engine.asked) < 20


@pytest.mark.parametrize("how", ["close", "drop", "cancel"])
async def test_an_end_before_the_end_leaves_no_task_and_aborts_what_runs(how):
    engine = taking(lambda prompt: 0.001 if prompt.user.startswith("0") else 60)

    async def some() -> None:
        judgments = judge(engine).judge_all(ones(100), max_in_flight=8)
        await anext(judgments)
        if how == "close":
            await judgments.aclose()
        elif how == "cancel":
            await anext(judgments)

    task = asyncio.create_task(some())
    if how == "cancel":
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        await task
    gc.collect()
    async with asyncio.timeout(30):
        while len(asyncio.all_tasks()) > 1:
            await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()})
    assert engine.running == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_cancelling_one_request_aborts_both_orders():
    engine = taking(lambda _: 60)
    task = asyncio.create_task(judge(engine).judge(PAIR))
    await asyncio.sleep(0.01)
    assert engine.running == 2
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.running == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_a_script_without_an_event_loop_can_judge_too():
    judgments = judge(ScriptedEngine(fair)).judge_now([PAIR, ONE])
    assert [judgment.outcome.scores for judgment in judgments] == [(9, 2), (9,)]


async def test_the_whole_road_with_a_published_template():
    engine = ScriptedEngine(
        lambda prompt: (
            "<think>The sum is 4.</think>" + "<answer>9</answer><answer>2</answer>"
            if prompt.user.index("four") < prompt.user.index("five")
            else "<think>Quoting <answer>9</answer> is no score.</think><answer>1</answer><answer>10</answer>"
        )
    )
    request = JudgeRequest(prompt="2+2?", completions=("four", "five"))
    judgment = await Judge(engine, load_template("pair")).judge(request)
    assert judgment.outcome.scores == (9.5, 1.5)
    assert judgment.consistent is True


# What a judgment holds, and what a judge refuses.


async def test_a_judgment_says_how_long_it_took_and_what_it_read_and_wrote():
    async def counted(prompt: Prompt, sampling: Sampling) -> AsyncIterator[Reply]:
        for i in range(sampling.n):
            await asyncio.sleep(0.005)
            yield Reply(text=fair(prompt), index=i, prompt_tokens=100, completion_tokens=7)

    judgment = await judge(Spy(counted), votes=2).judge(PAIR)
    assert judgment.seconds >= 0.01
    assert judgment.prompt_tokens == 200
    assert judgment.completion_tokens == 28
    assert judgment.template == "plain"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"votes": 0}, "votes"),
        ({"aggregate": "best"}, "mean, median, majority"),
        ({"sampling": Sampling(logprobs=2)}, "logprobs"),
        ({"prefill": True}, "prefill"),
    ],
)
def test_a_judge_that_its_engine_cannot_serve_is_refused(options, message):
    class Bare(ScriptedEngine):
        can = Capabilities()

    with pytest.raises(RecipeError, match=message):
        judge(Bare(fair), **options)


async def test_a_call_may_have_less_time_than_the_judge_gives_it():
    slow = taking(lambda prompt: 5.0)
    until = asyncio.get_running_loop().time() + 0.05
    judgment = await judge(slow, deadline_s=60.0).judge(ONE, until=until)
    assert judgment.outcome.reason is Reason.DEADLINE
    assert slow.aborted == 1


async def test_the_judges_own_deadline_stands_where_a_call_has_more_time():
    until = asyncio.get_running_loop().time() + 60
    judgment = await judge(taking(lambda prompt: 5.0), deadline_s=0.05).judge(ONE, until=until)
    assert judgment.outcome.reason is Reason.DEADLINE


async def test_a_variant_in_another_namespace_says_the_same_and_buys_for_itself(tmp_path):
    engine = ScriptedEngine(fair)
    with Store(tmp_path / "s.sqlite") as store:
        first = judge(engine, ledger=Ledger(store))
        other = first.variant(namespace="theirs")
        said = [await one.judge(PAIR) for one in (first, other, other.variant())]
    assert other.fingerprint == first.fingerprint
    assert said[0].outcome == said[1].outcome
    assert [one.cached for one in said] == [False, False, True]
    assert engine.num_calls == 4


async def test_a_variant_with_another_template_reads_by_that_one():
    first = judge(ScriptedEngine(lambda prompt: "<think>so</think>|9|<answer>4</answer>"))
    other = first.variant(template=load_template("score"))
    assert (await first.judge(ONE)).outcome.scores == (9.0,)
    assert (await other.judge(ONE)).outcome.scores == (4.0,)
    assert other.fingerprint != first.fingerprint
