import asyncio
from collections.abc import AsyncIterator

import pytest

from flexreward.config import TINY, JudgeRecipe, load_recipe, open_judge
from flexreward.engines.base import Capabilities, Prompt, Sampling
from flexreward.engines.scripted import ScriptedEngine
from flexreward.engines.waiting import WaitingEngine
from flexreward.errors import ContextError, EngineError, RecipeError
from flexreward.files.outcomes import header_of
from flexreward.judge import Judge
from flexreward.templates import load_template
from flexreward.types import JudgeRequest, Reason, Reply, Unscored, Verdict

ONE = JudgeRequest(id="q", prompt="2+2?", completions=("4",))
PROMPT = Prompt(system="", user="2+2?")


def thinking(prompt: Prompt) -> str:
    """Thinks one more thought each time, and scores how many there were."""
    count = prompt.prefix.count("Wait") + 1
    opening = "" if prompt.prefix else "<think>"
    return f"{opening} thought {count}.</think><answer>{count}</answer>"


async def replies(engine, sampling=Sampling(), prompt=PROMPT) -> list[Reply]:  # noqa: B008
    return [reply async for reply in engine.generate(prompt, sampling)]


class Counting:
    """Ten tokens a call, cut at the limit; remembers what it was asked."""

    can = Capabilities(prefix=True)
    identity = {"engine": "counting", "model": "m"}  # noqa: RUF012

    def __init__(self, texts: list[str], fails: Exception | None = None) -> None:
        self.texts, self.fails = texts, fails
        self.asked: list[tuple[Prompt, Sampling]] = []

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncIterator[Reply]:
        self.asked.append((prompt, sampling))
        if len(self.asked) > 1 and self.fails:
            raise self.fails
        for index in range(sampling.n):
            text = self.texts[(len(self.asked) - 1) % len(self.texts)]
            cut = sampling.max_tokens < 10
            yield Reply(
                text=prompt.prefix + text,
                index=index,
                finish_reason="length" if cut else "stop",
                prompt_tokens=100,
                completion_tokens=min(10, sampling.max_tokens),
            )


@pytest.mark.parametrize("waits", [0, 1, 2, 4])
async def test_a_thought_goes_on_as_often_as_asked_and_then_ends(waits):
    judge = Judge(WaitingEngine(ScriptedEngine(thinking), waits), load_template("score"))
    judgment = await judge.judge(ONE)
    text = judgment.orders[0].votes[0].reply.text
    assert isinstance(judgment.outcome, Verdict)
    assert judgment.outcome.scores == (waits + 1,)
    assert text.count("Wait") == waits
    assert text.count("</think>") == 1


async def test_every_vote_goes_on_by_itself_with_a_seed_of_its_own():
    engine = Counting(["<think>a</think>", "b</think>", "c</think><answer>3</answer>"])
    engine.texts = ["<think>a</think>", *["b</think>"] * 6]
    found = await replies(WaitingEngine(engine, 2), Sampling(n=3, seed=7, temperature=1))
    assert sorted(reply.index for reply in found) == [0, 1, 2]
    assert {reply.text for reply in found} == {"<think>aWaitbWaitb</think>"}
    assert len(engine.asked) == 1 + 3 * 2
    assert len({sampling.seed for _, sampling in engine.asked}) == 7
    assert all(sampling.n == 1 for _, sampling in engine.asked[1:])


async def test_the_rounds_share_one_limit_of_tokens_and_the_prompt_counts_once():
    engine = Counting(["<think>a</think>", "b</think>", "c</think>"])
    (reply,) = await replies(WaitingEngine(engine, 2), Sampling(max_tokens=25))
    assert [sampling.max_tokens for _, sampling in engine.asked] == [25, 15, 5]
    assert (reply.prompt_tokens, reply.completion_tokens, reply.finish_reason) == (100, 25, "length")


async def test_a_reply_without_an_ended_thought_is_left_as_it_is():
    engine = Counting(["<think>never ends"])
    (reply,) = await replies(WaitingEngine(engine, 3))
    assert reply.text == "<think>never ends"
    assert len(engine.asked) == 1


async def test_a_thought_that_fills_the_context_is_a_cut_reply():
    (reply,) = await replies(WaitingEngine(Counting(["<think>a</think>"], ContextError("full")), 1))
    assert reply.truncated


async def test_an_engine_that_dies_in_a_later_round_ends_unscored():
    judge = Judge(WaitingEngine(Counting(["<think>a</think>"], EngineError("died")), 1), load_template("score"))
    outcome = (await judge.judge(ONE)).outcome
    assert outcome == Unscored(reason=Reason.ENGINE, detail="died")


async def test_closing_the_iterator_aborts_every_round():
    running = 0

    class Slow(Counting):
        async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncIterator[Reply]:
            nonlocal running
            running += 1
            try:
                if prompt.prefix:
                    await asyncio.sleep(60)
                for index in range(sampling.n):
                    yield Reply(text="<think>a</think>", index=index)
            finally:
                running -= 1

    judge = Judge(WaitingEngine(Slow([]), 1), load_template("score"), votes=2, deadline_s=0.05)
    outcome = (await judge.judge(ONE)).outcome
    assert isinstance(outcome, Unscored)
    assert outcome.reason is Reason.DEADLINE
    assert running == 0


def test_the_fingerprint_and_the_header_say_how_often():
    engine, template = ScriptedEngine(thinking), load_template("score")
    prints = {Judge(WaitingEngine(engine, waits), template).fingerprint for waits in range(4)}
    assert len(prints) == 4
    assert header_of(Judge(WaitingEngine(engine, 3), template))["judge"]["waits"] == "3"


def test_what_cannot_wait_is_said_in_one_line():
    class Plain(Counting):
        can = Capabilities()

    with pytest.raises(RecipeError, match="waits: the engine counting cannot go on"):
        WaitingEngine(Plain([]), 1)
    with pytest.raises(RecipeError, match="no thought before its answers"):
        open_judge(JudgeRecipe(model="scripted:longer", engine="scripted", waits=1), template="score-answer-first")


@pytest.mark.slow
async def test_the_bundled_judge_thinks_longer_when_it_must():
    recipe = load_recipe(TINY)
    request = JudgeRequest(id="q", prompt="Sort from small to large: 7, 3, 9.", completions=("3, 7, 9",))
    texts = []
    engine = None
    for waits in (0, 1):
        judge = open_judge(recipe.model_copy(update={"waits": waits}), template="score", engine=engine)
        engine = engine or judge.engine
        judgment = await judge.judge(request)
        texts.append(judgment.orders[0].votes[0].reply.text)
        tokens = judgment.completion_tokens
        assert tokens <= recipe.max_tokens
    await engine.close()
    thought = texts[0].partition("</think>")[0]
    assert texts[1].startswith(thought + "Wait")
