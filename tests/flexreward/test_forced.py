import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flexreward.cli import run
from flexreward.config import TINY, load_recipe, open_judge, parse_recipe
from flexreward.engines.base import Answer, Capabilities, Prompt, Sampling
from flexreward.engines.forced import ForcedEngine
from flexreward.engines.scripted import ScriptedEngine
from flexreward.engines.waiting import WaitingEngine
from flexreward.errors import ContextError, EngineError, RecipeError, RefusedError
from flexreward.files.outcomes import Item, header_of, outcome_row
from flexreward.judge import Judge
from flexreward.ledger import Ledger
from flexreward.ledger.purchase import Purchase, decode, encode, name_of
from flexreward.ledger.store import Store
from flexreward.templates import Template, load_template
from flexreward.types import JudgeRequest, Reason, Reply, TokenLogprob, Unscored, Verdict

ONE = JudgeRequest(id="q", prompt="2+2?", completions=("4",))
TWO = JudgeRequest(id="q", prompt="2+2?", completions=("4", "5"))
PROMPT = Prompt(system="", user="2+2?", answer=Answer("<answer>[1-5]</answer>", 18, "first"))


class Writer:
    """Ten tokens of thought a round, or what ``thoughts`` say next; answers held to a pattern are 3s."""

    can = Capabilities(prefix=True, constrained=True, logprobs=True, held_logprobs=True)
    identity = {"engine": "writer", "model": "m"}  # noqa: RUF012

    def __init__(self, *thoughts: str, fails: Exception | None = None) -> None:
        self.thoughts, self.fails = thoughts or ("<think>a</think>",), fails
        self.asked: list[tuple[Prompt, Sampling]] = []
        self.num_free = 0

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncIterator[Reply]:
        self.asked.append((prompt, sampling))
        if sampling.pattern is not None:
            if self.fails:
                raise self.fails
            found = re.findall("<answer>", sampling.pattern)
            texts = ["<answer>3</answer>" * int((re.findall(r"\{(\d)\}$", sampling.pattern) or [len(found)])[0])]
            tokens = 5
        else:
            texts, tokens = [self.thoughts[self.num_free % len(self.thoughts)]], min(10, sampling.max_tokens)
            self.num_free += 1
        for index in range(sampling.n):
            text = texts[0]
            cut = sampling.pattern is None and sampling.max_tokens < 10
            logprobs = (TokenLogprob(text=text, logprob=-0.5, top=((text, -0.5),)),) if sampling.logprobs else ()
            yield Reply(
                text=prompt.prefix + text,
                index=index,
                finish_reason="length" if cut else "stop",
                prompt_tokens=100,
                completion_tokens=tokens,
                logprobs=logprobs,
            )


async def replies(engine, sampling=Sampling(), prompt=PROMPT) -> list[Reply]:  # noqa: B008
    return [reply async for reply in engine.generate(prompt, sampling)]


async def test_a_thought_that_ends_by_itself_is_answered_and_not_marked():
    writer = Writer("<think>short</think>")
    (reply,) = await replies(ForcedEngine(writer))
    assert reply.text == "<think>short</think><answer>3</answer>"
    assert not reply.thought_cut
    assert reply.finish_reason == "stop"
    assert (reply.prompt_tokens, reply.completion_tokens) == (100, 15)


async def test_a_thought_at_its_limit_is_ended_and_marked():
    writer = Writer("<think>endless and end")
    (reply,) = await replies(ForcedEngine(writer), Sampling(max_tokens=5))
    assert reply.text == "<think>endless and end</think><answer>3</answer>"
    assert reply.thought_cut
    assert not reply.truncated
    assert writer.asked[0][1].max_tokens == 5
    assert writer.asked[0][1].stop == ("</think>",)
    assert writer.asked[1][1].pattern == PROMPT.answer.pattern


async def test_a_turn_that_ends_inside_of_its_thought_is_answered_and_marked():
    (reply,) = await replies(ForcedEngine(Writer("I would say <answer>9</answer>")))
    assert reply.text == "I would say <answer>9</answer></think><answer>3</answer>"
    assert reply.thought_cut


async def test_every_reply_is_answered_by_itself_with_a_seed_of_its_own():
    writer = Writer()
    found = await replies(ForcedEngine(writer), Sampling(n=3, seed=7, temperature=1))
    assert sorted(reply.index for reply in found) == [0, 1, 2]
    assert [sampling.n for _, sampling in writer.asked] == [3, 1, 1, 1]
    assert len({sampling.seed for _, sampling in writer.asked}) == 4


@pytest.mark.parametrize("waits", [0, 1, 2, 4])
async def test_the_limit_bounds_all_rounds_of_a_thought_that_must_go_on(waits):
    writer = Writer("<think>a</think>", *["b</think>"] * 4)
    (reply,) = await replies(ForcedEngine(WaitingEngine(writer, waits)), Sampling(max_tokens=25))
    thoughts = [sampling.max_tokens for _, sampling in writer.asked if sampling.pattern is None]
    assert thoughts == [25, 15, 5][: waits + 1]
    assert reply.completion_tokens <= 25 + 5
    assert reply.text.count("Wait") == min(waits, 2)
    assert reply.text.endswith("</think><answer>3</answer>")
    assert reply.thought_cut == (waits >= 2)


async def test_a_started_turn_whose_thought_is_over_is_answered_at_once():
    writer = Writer()
    prompt = Prompt(system="", user="x", prefix="<think></think>", answer=PROMPT.answer)
    (reply,) = await replies(ForcedEngine(writer), prompt=prompt)
    assert reply.text == "<think></think><answer>3</answer>"
    assert len(writer.asked) == 1


async def test_answers_that_come_first_are_held_and_the_thought_after_them_is_cut():
    writer = Writer("and so on")
    judge = Judge(ForcedEngine(writer), load_template("pair-answer-first"), sampling=Sampling(max_tokens=5))
    judgment = await judge.judge(TWO)
    assert isinstance(judgment.outcome, Verdict)
    for order in judgment.orders:
        assert order.votes[0].reply.text == "<answer>3</answer><answer>3</answer><think>and so on"
        assert order.votes[0].reply.thought_cut


async def test_where_there_is_no_thought_there_are_only_answers():
    writer = Writer()
    judgment = await Judge(ForcedEngine(writer), load_template("score-direct")).judge(ONE)
    assert judgment.orders[0].votes[0].reply.text == "<answer>3</answer>"
    assert not judgment.orders[0].votes[0].reply.thought_cut
    assert len(writer.asked) == 1


@pytest.mark.parametrize("thought", ["<think>short</think>", "<think>endless"])
@pytest.mark.parametrize("template", ["score", "score-answer-first", "score-direct"])
async def test_expected_scores_are_read_from_forced_answers(thought, template):
    judge = Judge(ForcedEngine(Writer(thought)), load_template(template), aggregate="expected")
    outcome = (await judge.judge(ONE)).outcome
    assert isinstance(outcome, Verdict)
    assert outcome.scores == (3,)


async def test_an_engine_that_dies_at_the_answer_ends_unscored():
    judge = Judge(ForcedEngine(Writer(fails=EngineError("died"))), load_template("score"))
    assert (await judge.judge(ONE)).outcome == Unscored(reason=Reason.ENGINE, detail="died")


async def test_a_thought_that_fills_the_context_of_an_engine_that_does_not_count_is_a_cut_reply():
    (reply,) = await replies(ForcedEngine(Writer(fails=ContextError("full"))))
    assert reply.truncated


class Narrow(Writer):
    """A character is a token, 80 are the context, it does not count: a reply that does not fit is cut at its end."""

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncIterator[Reply]:
        left = 80 - len(prompt.user) - len(prompt.prefix)
        if left < 1:
            raise ContextError("the prompt is too long")
        async for reply in super().generate(prompt, sampling):
            text = reply.text.removeprefix(prompt.prefix)
            cut = len(text) > min(left, sampling.max_tokens)
            text = text[: min(left, sampling.max_tokens)]
            finish = "length" if cut else "stop"
            yield replace(reply, text=prompt.prefix + text, finish_reason=finish, completion_tokens=len(text))


@pytest.mark.parametrize("length", [1, 30, 50, 70, 300])
async def test_a_thought_that_fills_the_context_of_an_engine_that_does_not_count_makes_room(length):
    writer = Narrow("<think>" + "a" * length)
    (reply,) = await replies(ForcedEngine(writer), Sampling(max_tokens=1000))
    assert re.fullmatch("<think>a+</think><answer>3</answer>", reply.text)
    assert not reply.truncated
    assert reply.thought_cut
    assert reply.text.count("a") >= min(length, 20)
    assert len(writer.asked) <= 4


async def test_a_prompt_that_leaves_no_room_for_an_answer_is_cut_and_not_read():
    (reply,) = await replies(ForcedEngine(Narrow("<think>a")), prompt=replace(PROMPT, user="x" * 72))
    assert (reply.text, reply.truncated, reply.thought_cut) == ("<think>a", True, True)


async def test_closing_the_iterator_aborts_every_round():
    running = 0

    class Slow(Writer):
        async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncIterator[Reply]:
            nonlocal running
            running += 1
            try:
                if sampling.pattern:
                    await asyncio.sleep(60)
                for index in range(sampling.n):
                    yield Reply(text="<think>a", index=index)
            finally:
                running -= 1

    judge = Judge(ForcedEngine(Slow()), load_template("score"), votes=2, deadline_s=0.05)
    outcome = (await judge.judge(ONE)).outcome
    assert isinstance(outcome, Unscored)
    assert outcome.reason is Reason.DEADLINE
    assert running == 0


async def test_a_cut_thought_is_marked_in_the_outcome_and_found_again_in_the_store(tmp_path):
    ledger = Ledger(Store(tmp_path / "store.sqlite"))
    rows = []
    for text in ("<think>endless", "<think>endless", "<think>short</think>"):
        writer = Writer(text)
        judge = Judge(ForcedEngine(writer), load_template("score"), ledger=ledger)
        judgment = await judge.judge(ONE)
        rows.append((outcome_row(judgment, Item(ONE, {})), len(writer.asked)))
    vote = rows[0][0]["orders"][0]["votes"][0]
    assert vote["thought_cut"] is True
    assert rows[1] == (rows[0][0], 0)
    plain = outcome_row(await Judge(ForcedEngine(Writer()), load_template("score")).judge(ONE), Item(ONE, {}))
    assert "thought_cut" not in plain["orders"][0]["votes"][0]


def test_the_form_of_the_answer_is_part_of_what_names_and_buys_a_reply():
    other = Prompt(system="", user="2+2?", answer=Answer("<answer>[1-9]</answer>", 18, "first"))
    bare = Prompt(system="", user="2+2?")
    assert len({name_of(p, source="s", namespace="") for p in (PROMPT, other, bare)}) == 3
    purchase = Purchase(engine={}, prompt=PROMPT, sampling=Sampling(), replies=(Reply(text="x", thought_cut=True),))
    assert decode(encode(purchase)) == purchase
    assert "answer" not in json.loads(encode(Purchase(engine={}, prompt=bare, sampling=Sampling(), replies=())))


def test_the_fingerprint_and_the_header_say_that_answers_are_forced():
    template = load_template("score")
    plain, forced = Judge(Writer(), template), Judge(ForcedEngine(Writer()), template)
    assert plain.fingerprint != forced.fingerprint
    assert header_of(forced)["judge"]["answer"] == "forced"
    assert "answer" not in header_of(plain)["judge"]


def test_what_cannot_be_forced_is_said_in_one_line():
    class Unheld(Writer):
        can = Capabilities(prefix=True)

    class Unstarted(Writer):
        can = Capabilities(constrained=True)

    with pytest.raises(RecipeError, match=r"^think: the engine writer cannot be held to the form of an answer; leave"):
        ForcedEngine(Unheld())
    with pytest.raises(RecipeError, match=r"^think: the engine writer cannot go on with a started turn; leave it out$"):
        ForcedEngine(Unstarted())
    with pytest.raises(RecipeError, match=r"^think: the engine scripted cannot be held"):
        open_judge(parse_recipe({"model": "scripted:longer", "engine": "scripted", "think": 5}, "judge.yaml"))
    with pytest.raises(RecipeError, match=r"judge\.yaml: think: .*greater than or equal to 1, found 0"):
        parse_recipe({"model": "scripted:longer", "think": 0}, "judge.yaml")


async def test_a_prompt_without_a_form_or_with_one_that_nobody_forces_is_refused():
    with pytest.raises(RefusedError, match="give the prompt the answer of its template"):
        await replies(ForcedEngine(Writer()), prompt=Prompt(system="", user="x"))
    with pytest.raises(RefusedError, match="the engine forces no answer"):
        ScriptedEngine(lambda prompt: "x").can.check(PROMPT)


# With a model whose every token is noise: nothing it writes could be read without being held to it.


@pytest.fixture(scope="module")
def noise(checkpoint):
    from flexreward.engines.transformers import TransformersEngine

    engine = TransformersEngine(checkpoint)
    yield engine
    asyncio.run(engine.close())


TEMPLATES = {
    1: ("score", "rubric-score", "score-answer-first", "score-direct"),
    2: ("pair-direct", "gen"),
    4: ("batch",),
}


def short(name: str) -> Template:
    """The template with a system text that leaves room in a context of 512 tokens, most of which are bytes."""
    if name == "gen":
        return replace(load_template("gen-image"), system="Which?", user="{completion_1} {completion_2}")
    rubric = "Is it right?" if name.startswith("rubric") else None
    return replace(load_template(name, rubric=rubric), system="Score it." + (" {rubric}" if rubric else ""))


@pytest.mark.parametrize("name", [name for names in TEMPLATES.values() for name in names])
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    budget=st.one_of(st.integers(1, 12), st.integers(1, 1000)),
    votes=st.integers(1, 3),
    seed=st.integers(0, 2**31),
    waits=st.integers(0, 4),
    prefill=st.booleans(),
)
def test_every_reply_is_read_at_any_budget(noise, name, budget, votes, seed, waits, prefill):
    template = short(name)
    count = next(count for count, names in TEMPLATES.items() if name in names)
    engine = WaitingEngine(noise, waits) if waits and template.reasoning == "first" else noise
    sampling = Sampling(temperature=1.0, max_tokens=budget, seed=seed)
    judge = Judge(ForcedEngine(engine), template, sampling=sampling, votes=votes, prefill=prefill)
    (judgment,) = judge.judge_now([JudgeRequest(prompt="2+2?", completions=("4",) * count)])
    for order in judgment.orders:
        assert len(order.votes) == votes
        for vote in order.votes:
            assert isinstance(vote.outcome, Verdict)
            assert vote.reply.finish_reason == "stop"
            if template.reasoning != "none":
                assert vote.reply.thought_cut or vote.reply.text.count("</think>") >= 1


def test_the_context_keeps_room_for_the_answer_and_says_when_there_is_none(noise):
    template = short("score")
    judge = Judge(ForcedEngine(noise), template, sampling=Sampling(temperature=1.0, max_tokens=1000), votes=2)
    base = noise.count_tokens(template.render(ONE))
    found = judge.judge_now(
        [JudgeRequest(prompt="2+2?" + "x" * more, completions=("4",)) for more in range(460 - base, 512 - base, 3)]
    )
    reasons = [one.outcome.reason if isinstance(one.outcome, Unscored) else None for one in found]
    assert set(reasons) == {None, Reason.CONTEXT}
    assert reasons == sorted(reasons, key=lambda reason: reason is not None)
    assert "tokens and its answer up to 21, the model reads 512" in found[-1].orders[0].votes[0].outcome.detail


def test_expected_scores_and_stops_go_with_forced_answers(noise):
    template = short("score")
    sampling = Sampling(temperature=1.0, max_tokens=6, seed=3)
    (one,) = Judge(ForcedEngine(noise), template, sampling=sampling, votes=3, aggregate="expected").judge_now([ONE])
    assert isinstance(one.outcome, Verdict)
    assert all(1 <= vote.outcome.scores[0] <= 5 for vote in one.orders[0].votes)
    judge = Judge(ForcedEngine(noise), short("gen"), sampling=sampling, votes=7, aggregate="majority", stop=0)
    (two,) = judge.judge_now([TWO])
    assert isinstance(two.outcome, Verdict)


@pytest.mark.parametrize("waits", range(5))
async def test_the_bundled_judge_is_read_at_any_budget_and_with_any_number_of_waits(waits):
    recipe = load_recipe(TINY).model_copy(update={"waits": waits})
    request = JudgeRequest(id="q", prompt="Sort from small to large: 7, 3, 9.", completions=("3, 7, 9", "9, 7, 3"))
    engine = None
    for think in (1, 7, 30, 400):
        judge = open_judge(recipe.model_copy(update={"think": think}), template="pair", engine=engine)
        if engine is None:
            engine = judge.engine._engine._engine if waits else judge.engine._engine
        judgment = await judge.judge(request)
        assert isinstance(judgment.outcome, Verdict)
        for order in judgment.orders:
            reply = order.votes[0].reply
            assert reply.thought_cut or reply.text.count("Wait") == waits
            assert think > 7 or reply.thought_cut
    await engine.close()


async def test_the_bundled_judges_expected_scores_differ_where_its_answers_are_forced():
    recipe = load_recipe(TINY).model_copy(update={"think": 3, "aggregate": "expected"})
    judge = open_judge(recipe, template="pair")
    judgment = await judge.judge(TWO)
    assert isinstance(judgment.outcome, Verdict)
    for order in judgment.orders:
        assert order.votes[0].reply.thought_cut
        assert any(score != int(score) for score in order.outcome.scores)
    await judge.engine.close()


def test_the_flag_limits_the_thought_and_the_line_says_what_was_cut(tmp_path, capsys):
    row = {"id": "q", "prompt": "Sort from small to large: 7, 3, 9.", "completions": ["3, 7, 9", "9, 7, 3"]}
    (tmp_path / "s.jsonl").write_text(json.dumps(row) + "\n")
    out = tmp_path / "o.jsonl"
    assert run(["judge", str(tmp_path / "s.jsonl"), "--out", str(out), "--think", "5", "--no-store"]) == 0
    header, line = map(json.loads, out.read_text().splitlines())
    assert (header["judge"]["answer"], header["judge"]["sampling"]["max_tokens"]) == ("forced", 5)
    assert line["status"] == "scored"
    assert all(vote["thought_cut"] for order in line["orders"] for vote in order["votes"])
    assert "2 of 2 replies have a thought that was cut short\n" in capsys.readouterr().out
    assert (
        run(["judge", str(tmp_path / "s.jsonl"), "--out", str(out), "--judge", "scripted:longer", "--think", "5"]) == 2
    )
    assert "think: the engine scripted cannot be held to the form of an answer" in capsys.readouterr().err
