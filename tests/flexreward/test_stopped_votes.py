"""The judge ends a vote on a label early; the store keeps it as what it is, and a full vote is not confused by it."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexreward.config import open_engine, resolve_judge
from flexreward.engines.base import Capabilities, Prompt, Sampling
from flexreward.engines.scripted import ScriptedEngine
from flexreward.errors import EngineError, RecipeError
from flexreward.files.outcomes import header_of
from flexreward.judge import Judge
from flexreward.ledger import Ledger
from flexreward.ledger.audit import audit
from flexreward.ledger.purchase import decode
from flexreward.ledger.store import Store
from flexreward.stops import label
from flexreward.templates import load_template
from flexreward.types import JudgeRequest, Judgment, Reason, Reply, Unscored, Verdict

PAIR = load_template("pair")
REQUEST = JudgeRequest(id="q", prompt="2+2?", completions=("4", "5"))
DRAWN = Sampling(temperature=1.0)
SAID = {
    "a": "<think>x</think><answer>9</answer><answer>2</answer>",
    "b": "<think>x</think><answer>3</answer><answer>4</answer>",
    "t": "<think>x</think><answer>7</answer><answer>7</answer>",
    "u": "<think>x",
}


class Race:
    """An engine whose replies, one a letter, end in the order of ``ends``; it counts those that were let end."""

    can = Capabilities(prefix=True)

    def __init__(
        self,
        says: str,
        ends: Sequence[int] | None = None,
        *,
        fails_after: int | None = None,
        hangs_after: int | None = None,
    ) -> None:
        self.identity = {"engine": "race"}
        self.says = says
        self.ends = range(len(says)) if ends is None else ends
        self.fails_after = fails_after
        self.hangs_after = hangs_after
        self.num_ended = self.num_calls = self.num_closed = 0

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncIterator[Reply]:
        self.num_calls += 1
        try:
            for number, index in enumerate(self.ends):
                if number == self.fails_after:
                    raise EngineError("the power went out")
                await asyncio.sleep(60 if number == self.hangs_after else 0)
                self.num_ended += 1
                yield Reply(text=SAID[self.says[index]], index=index, completion_tokens=10)
        finally:
            self.num_closed += 1

    async def close(self) -> None:
        pass


def judge(engine, votes: int, *, stop: float | None = 0.0, ledger: Ledger | None = None, **options) -> Judge:
    options = {"sampling": DRAWN, "aggregate": "majority", "both_orders": False} | options
    return Judge(engine, PAIR, votes=votes, stop=stop, ledger=ledger, **options)


async def test_a_vote_ends_once_the_rest_cannot_change_it_and_the_engine_is_closed():
    engine = Race("abaaaabb")
    judgment = await judge(engine, 8).judge(REQUEST)
    assert judgment.outcome == Verdict(scores=(10, 1), scale=PAIR.scale)
    assert (len(judgment.orders[0].votes), engine.num_ended, engine.num_closed) == (6, 6, 1)
    assert judgment.completion_tokens == 60


@given(
    st.lists(st.sampled_from("abtu"), min_size=2, max_size=7).flatmap(
        lambda s: st.tuples(st.just(s), st.permutations(range(len(s))))
    )
)
def test_in_whatever_order_replies_end_the_outcome_is_that_of_the_full_vote(case):
    says, ends = case

    async def both() -> None:
        ledger = Ledger(None)
        engine = Race("".join(says), ends)
        stopped = await judge(engine, len(says), ledger=ledger).judge(REQUEST)
        full = await judge(Race("".join(says)), len(says), stop=None).judge(REQUEST)
        assert len(full.orders[0].votes) == len(says)
        assert stopped.outcome == label(full.orders[0].votes)

    asyncio.run(both())


@given(
    st.lists(st.sampled_from("aabtu"), min_size=2, max_size=9).flatmap(
        lambda s: st.tuples(st.just(s), st.permutations(range(len(s))))
    ),
    st.sampled_from([0.0, 0.25]),
)
def test_which_replies_count_turns_neither_on_which_ended_first_nor_on_what_the_store_holds(case, stop):
    says, ends = case

    async def asked(path: Path) -> None:
        with Store(path) as store:
            one = await judge(Race("".join(says)), len(says), stop=stop).judge(REQUEST)
            other = await judge(Race("".join(says), ends), len(says), stop=stop).judge(REQUEST)
            await judge(Race("".join(says)), len(says), stop=None, ledger=Ledger(store)).judge(REQUEST)
            found = await judge(Race("".join(says)), len(says), stop=stop, ledger=Ledger(store)).judge(REQUEST)
        assert one.orders == other.orders == found.orders

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(asked(Path(folder) / "s.db"))


async def test_both_orders_together_are_those_of_the_full_vote_too():
    says = {REQUEST.completions: "aaaba", REQUEST.completions[::-1]: "bbtab"}

    def script(prompt: Prompt) -> list[str]:
        shown = REQUEST.completions if prompt.user.index("\n4") < prompt.user.index("\n5") else ("5", "4")
        return [SAID[letter] for letter in says[shown]]

    stopped = await judge(ScriptedEngine(script), 5, both_orders=True).judge(REQUEST)
    assert [len(order.votes) for order in stopped.orders] == [3, 5]
    assert stopped.outcome == Verdict(scores=(10, 1), scale=PAIR.scale)


async def test_a_stopped_vote_is_kept_with_its_name_and_the_replies_that_count_and_replayed_in_the_same_bytes(tmp_path):
    with Store(tmp_path / "s.db") as store:
        first = await judge(Race("aaabb", [4, 0, 1, 2, 3]), 5, ledger=Ledger(store)).judge(REQUEST)
        later = Race("aaabb")
        again = await judge(later, 5, ledger=Ledger(store)).judge(REQUEST)
        (kept,) = [decode(row.value) for row in store.rows()]
    assert (kept.stopped, kept.sampling.n, [reply.index for reply in kept.replies]) == ("lossless", 5, [0, 1, 2])
    assert again == replace(first, cached=True, seconds=again.seconds)
    assert later.num_calls == 0


async def test_a_full_vote_after_a_stopped_one_has_all_its_replies_and_its_own_bytes(tmp_path):
    with Store(tmp_path / "s.db") as store, Store(tmp_path / "alone.db") as alone:
        engine = Race("aaabb")
        await judge(engine, 5, ledger=Ledger(store)).judge(REQUEST)
        full = await judge(engine, 5, stop=None, ledger=Ledger(store)).judge(REQUEST)
        await judge(engine, 5, stop=None, ledger=Ledger(alone)).judge(REQUEST)
        stopped_row, full_row = store.rows()
        (alone_row,) = alone.rows()
    assert [len(order.votes) for order in full.orders] == [5]
    assert full.outcome == Verdict(scores=(9, 2), scale=PAIR.scale)
    assert (full_row.key, full_row.value) == (alone_row.key, alone_row.value)
    assert b"stopped" in stopped_row.value
    assert b"stopped" not in full_row.value


async def test_a_vote_that_may_stop_takes_a_full_one_and_buys_nothing(tmp_path):
    with Store(tmp_path / "s.db") as store:
        engine = Race("aaabb")
        await judge(engine, 5, stop=None, ledger=Ledger(store)).judge(REQUEST)
        found = await judge(engine, 5, ledger=Ledger(store)).judge(REQUEST)
        assert len(store) == 1
    assert (engine.num_calls, found.cached) == (1, True)
    assert found.outcome == Verdict(scores=(10, 1), scale=PAIR.scale)


async def test_a_statistical_vote_says_the_same_with_a_full_vote_in_the_store_as_without(tmp_path):
    says = "b" * 7 + "a" * 8
    with Store(tmp_path / "s.db") as store:
        ledger, rash = Ledger(store), {"stop": 0.25}
        first = await judge(Race(says), 15, ledger=ledger, **rash).judge(REQUEST)
        await judge(Race(says), 15, stop=None, ledger=ledger).judge(REQUEST)
        other = await judge(Race(says), 15, ledger=ledger, stop=0.2).judge(REQUEST)
        again = await judge(Race(says), 15, ledger=ledger, **rash).judge(REQUEST)
        lossless = await judge(Race(says), 15, ledger=ledger).judge(REQUEST)
        named = [decode(row.value).stopped for row in store.rows()]
    assert again.outcome == first.outcome == Verdict(scores=(1, 10), scale=PAIR.scale)
    assert other.orders == (await judge(Race(says), 15, stop=0.2).judge(REQUEST)).orders
    assert lossless.outcome == Verdict(scores=(10, 1), scale=PAIR.scale)
    assert named == ["error 0.25", ""]


async def test_votes_that_are_read_otherwise_do_not_share_where_they_ended(tmp_path):
    other = replace(PAIR, reasoning="last", prefix="")  # shows the same, and reads no score in these replies
    with Store(tmp_path / "s.db") as store:
        engine = Race("aaabb")
        await judge(engine, 5, ledger=Ledger(store)).judge(REQUEST)
        found = await Judge(
            engine,
            other,
            sampling=DRAWN,
            votes=5,
            aggregate="majority",
            stop=0.0,
            both_orders=False,
            ledger=Ledger(store),
        ).judge(REQUEST)
    assert len(found.orders[0].votes) == 5
    assert isinstance(found.outcome, Unscored)


async def test_an_engine_that_fails_before_the_vote_is_decided_leaves_it_unscored_and_after_it_changes_nothing(
    tmp_path,
):
    with Store(tmp_path / "s.db") as store:
        early = await judge(Race("aaaaa", fails_after=2), 5, ledger=Ledger(store)).judge(REQUEST)
        assert (early.outcome.reason, len(store)) == (Reason.ENGINE, 0)
        late = await judge(Race("aaaaa", fails_after=3), 5, ledger=Ledger(store)).judge(REQUEST)
        assert late.outcome == Verdict(scores=(10, 1), scale=PAIR.scale)


async def test_a_deadline_in_the_middle_of_a_vote_leaves_what_a_full_one_would_have_and_keeps_nothing(tmp_path):
    async def asked(says: str, ends: Sequence[int], store: Store, stop: float | None = 0.0) -> Judgment:
        engine = Race(says, ends, hangs_after=3)
        return await judge(engine, 5, stop=stop, ledger=Ledger(store), deadline_s=0.2).judge(REQUEST)

    with Store(tmp_path / "s.db") as store:
        undecided = await asked("aubba", range(5), store)
        quorum = await asked("aabbb", [4, 0, 1, 2, 3], store)  # three of five, but not the first three
        full = await asked("aabbb", [4, 0, 1, 2, 3], store, stop=None)
        assert len(store) == 0
        decided = await asked("aaabb", range(5), store)
        assert len(store) == 1
    assert undecided.outcome.reason is Reason.DEADLINE
    assert quorum.outcome.preferred == full.outcome.preferred == 0
    assert decided.outcome == Verdict(scores=(10, 1), scale=PAIR.scale)


async def test_those_who_ask_at_the_same_time_share_one_stopped_vote():
    engine = Race("aaabb")
    one = judge(engine, 5)
    first, second = await asyncio.gather(one.judge(REQUEST), one.judge(REQUEST))
    assert engine.num_calls == 1
    assert first.orders == second.orders


async def test_an_audit_replays_of_a_stopped_vote_what_was_read(tmp_path):
    with Store(tmp_path / "s.db") as store:
        await judge(Race("aaabb", [4, 0, 1, 2, 3]), 5, ledger=Ledger(store)).judge(REQUEST)
        same = await audit(store, engine=Race("aaabb"))
        other = await audit(store, engine=Race("aabbb"))
    assert (same.num_same, same.sound) == (1, True)
    assert len(other.different) == 1


def test_the_stop_enters_the_fingerprint_and_the_header_and_without_one_nothing_changes():
    engine = ScriptedEngine(lambda _: SAID["a"])
    prints = {stop: judge(engine, 5, stop=stop).fingerprint for stop in (None, 0.0, 0.05, 0.1)}
    assert len(set(prints.values())) == 4
    assert judge(engine, 5, stop=0).fingerprint == prints[0.0]
    assert "stop" not in header_of(judge(engine, 5, stop=None))["judge"]
    assert header_of(judge(engine, 5, stop=0.05))["judge"]["stop"] == "error 0.05"


def test_a_mean_has_no_stop():
    with pytest.raises(RecipeError, match="stop: mean needs every vote"):
        judge(ScriptedEngine(lambda _: SAID["a"]), 5, aggregate="mean")


@pytest.mark.slow
async def test_the_bundled_judges_stopped_votes_are_part_of_its_full_ones_and_say_the_same():
    engine = open_engine(resolve_judge("tiny"))
    warm = {"sampling": Sampling(temperature=1.5, max_tokens=160), "both_orders": True}
    sums = [(12 + i, 30 + 3 * i) for i in range(6)]
    requests = [
        JudgeRequest(id=str(i), prompt=f"What is {a} + {b}?", completions=(f"It is {a + b}.", f"It is {a + b + 1}."))
        for i, (a, b) in enumerate(sums)
    ]
    stopped = [one async for one in judge(engine, 5, **warm).judge_all(requests)]
    full = [one async for one in judge(engine, 5, stop=None, **warm).judge_all(requests)]
    alone = [one async for one in judge(engine, 5, **warm).judge_all(requests[::-1], max_in_flight=1)][::-1]
    await engine.close()
    assert [one.orders for one in alone] == [one.orders for one in stopped]  # whatever is in the batch beside them
    for early, whole in zip(stopped, full, strict=True):
        for some, all_of_them in zip(early.orders, whole.orders, strict=True):
            assert some.outcome == label(all_of_them.votes)
            assert {vote.reply for vote in some.votes} <= {vote.reply for vote in all_of_them.votes}
    read, asked = (sum(len(order.votes) for one in found for order in one.orders) for found in (stopped, full))
    assert read < asked == 60
