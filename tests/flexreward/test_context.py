import asyncio
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexreward.config import load_recipe, open_judge, parse_recipe
from flexreward.context import cut_head, fewest, most_cut, room_for_reply
from flexreward.engines.base import Answer, Capabilities, Sampling
from flexreward.engines.forced import ForcedEngine
from flexreward.engines.scripted import ScriptedEngine
from flexreward.engines.waiting import WaitingEngine
from flexreward.errors import RecipeError, RefusedError
from flexreward.files.outcomes import Item, header_of, outcome_row
from flexreward.judge import Judge
from flexreward.templates import load_template
from flexreward.types import JudgeRequest, Media, Message, Reason, Unscored, Verdict

TALK = (
    Message(role="user", content="first"),
    Message(role="assistant", content="second"),
    Message(role="user", content="third"),
    Message(role="assistant", content="fourth"),
)
PAIR = replace(load_template("pair"), system="Score both 1-10.")


class Counted(ScriptedEngine):
    """A character is a token; remembers what it was shown."""

    can = replace(ScriptedEngine.can, counts=True)

    def __init__(self, max_context: int = 300) -> None:
        super().__init__(self._answer)
        self.max_context = max_context
        self.shown: list[str] = []

    def _answer(self, prompt):
        self.shown.append(prompt.user)
        return "<think>a</think><answer>8</answer><answer>3</answer>"

    def count_tokens(self, prompt) -> int:
        return len(prompt.system) + len(prompt.user) + len(prompt.prefix)


def judge_of(engine, **options) -> Judge:
    return Judge(engine, PAIR, sampling=Sampling(max_tokens=50), **({"context": "cut"} | options))


def asked(prompt) -> JudgeRequest:
    return JudgeRequest(id="q", prompt=prompt, completions=("left", "right, and longer"))


async def test_a_prompt_that_fits_is_shown_whole_and_nothing_is_marked():
    engine = Counted()
    judgment = await judge_of(engine).judge(asked("x" * 20))
    assert judgment.prompt_cut == 0
    assert all("x" * 20 in shown for shown in engine.shown)
    assert "prompt_cut" not in outcome_row(judgment, Item(asked("x"), {}))


async def test_a_long_prompt_loses_as_few_characters_of_its_head_as_needed_in_both_orders_alike():
    engine = Counted()
    text = "".join(chr(97 + i % 26) for i in range(400))
    judgment = await judge_of(engine).judge(asked(text))
    assert isinstance(judgment.outcome, Verdict)
    assert {len(PAIR.system) + len(shown) for shown in engine.shown} == {300 - 50}
    assert len(engine.shown) == 2
    assert all(f"[Question]\n{text[judgment.prompt_cut :]}\n\n" in shown for shown in engine.shown)
    assert all("left" in shown and "right, and longer" in shown for shown in engine.shown)
    row = outcome_row(judgment, Item(asked(text), {}))
    assert row["prompt_cut"] == judgment.prompt_cut > 200


async def test_what_cutting_cannot_help_is_asked_as_it_is():
    engine = Counted()
    request = replace(asked("y" * 100), completions=("z" * 130, "z" * 130))
    judgment = await judge_of(engine).judge(request)
    assert judgment.prompt_cut == 0
    assert all("y" * 100 in shown for shown in engine.shown)


async def test_without_the_policy_nothing_is_cut():
    engine = Counted()
    judgment = await judge_of(engine, context="refuse").judge(asked("x" * 400))
    assert judgment.prompt_cut == 0
    assert all("x" * 400 in shown for shown in engine.shown)


async def test_what_cannot_be_counted_is_left_to_the_engine():
    class Refuses(Counted):
        def count_tokens(self, prompt) -> int:
            raise RefusedError("half a character")

    judgment = await judge_of(Refuses()).judge(asked("x" * 400))
    assert judgment.prompt_cut == 0


def test_a_conversation_loses_whole_turns_first_and_keeps_the_end_of_its_last_question():
    assert cut_head(TALK, 0) == TALK
    assert cut_head(TALK, 3) == (Message(role="user", content="st"), *TALK[1:])
    assert cut_head(TALK, 5) == TALK[1:]
    assert cut_head(TALK, 13) == (Message(role="user", content="ird"), TALK[3])
    assert most_cut(TALK) == 5 + 6 + 4
    assert cut_head(TALK, most_cut(TALK)) == (Message(role="user", content="d"), TALK[3])
    assert most_cut(TALK[1:2]) == 5
    assert most_cut("abc") == 2
    assert most_cut("") == 0


async def test_turns_that_are_cut_away_leave_no_heading():
    talk = (Message(role="user", content="a" * 200), Message(role="assistant", content="b"), *TALK[2:])
    whole, rest = (Counted().count_tokens(PAIR.render(asked(some))) for some in (talk, talk[2:]))
    engine = Counted(whole - 100 + 50)
    judgment = await judge_of(engine).judge(asked(talk))
    assert judgment.prompt_cut == 100
    assert all(f"[User]\n{'a' * 100}\n\n[Assistant]\nb\n\n" in shown for shown in engine.shown)
    engine = Counted(rest + 50)
    judgment = await judge_of(engine).judge(asked(talk))
    assert judgment.prompt_cut == 201
    assert all("[Question]\n[User]\nthird\n\n[Assistant]\nfourth" in shown for shown in engine.shown)


@given(most=st.integers(0, 200), needed=st.integers(0, 250))
def test_the_fewest_that_fit_are_found(most, needed):
    assert fewest(lambda count: count >= needed, most) == (needed if needed <= most else None)


def test_room_is_kept_for_the_longest_reply_and_its_answer_but_never_more_than_half():
    answer = Answer("x", 20, "first")
    assert room_for_reply(Sampling(max_tokens=100), None, 4096) == 100
    assert room_for_reply(Sampling(max_tokens=100), answer, 4096) == 121
    assert room_for_reply(Sampling(max_tokens=1024), None, 1024) == 512


def test_the_policy_and_the_length_of_the_context_are_part_of_the_judge_where_it_cuts():
    prints = {
        judge_of(Counted(size), context=policy).fingerprint for size in (300, 400) for policy in ("refuse", "cut")
    }
    assert len(prints) == 3
    assert header_of(judge_of(Counted()))["judge"]["context"] == "cut"
    assert header_of(judge_of(Counted()))["judge"]["max_context"] == 300
    assert "context" not in header_of(judge_of(Counted(), context="refuse"))["judge"]


def test_an_engine_that_cannot_count_and_a_policy_that_nobody_knows_are_refused_in_one_line():
    with pytest.raises(
        RecipeError, match=r"^context: the engine scripted cannot count the tokens of a prompt; leave it"
    ):
        judge_of(ScriptedEngine(lambda prompt: ""))
    with pytest.raises(RecipeError, match=r"^context: 'trim' is unknown, expected one of refuse, cut$"):
        judge_of(Counted(), context="trim")
    with pytest.raises(RecipeError, match=r"judge\.yaml: context: Input should be 'refuse' or 'cut', found 'trim'"):
        parse_recipe({"model": "m", "context": "trim"}, "judge.yaml")
    with pytest.raises(RecipeError, match="context: the engine scripted cannot count"):
        open_judge(parse_recipe({"model": "scripted:longer", "engine": "scripted", "context": "cut"}, "judge.yaml"))
    assert not Capabilities().counts


def test_a_real_tokenizer_is_cut_for_votes_waits_and_forced_answers(checkpoint, tmp_path):
    path = tmp_path / "judge.yaml"
    path.write_text(
        json.dumps({"model": str(checkpoint), "context": "cut", "think": 40, "waits": 1, "temperature": 1.0})
    )
    recipe = load_recipe(path)
    judge = open_judge(recipe, template="score")
    judge = Judge(judge.engine, replace(judge.template, system="Score it."), sampling=judge.sampling, context="cut")
    assert isinstance(judge.engine, ForcedEngine)
    assert isinstance(judge.engine._engine, WaitingEngine)
    request = JudgeRequest(prompt="é漢🙂 and so on " * 60, completions=("4",))
    cut, short = judge.judge_now([request, replace(request, completions=("4" * 600,))])
    asyncio.run(judge.engine.close())
    assert isinstance(cut.outcome, Verdict)
    assert 0 < cut.prompt_cut < len(request.prompt)
    assert 512 - 61 - 4 <= cut.prompt_tokens <= 512 - 61
    assert isinstance(short.outcome, Unscored)
    assert short.outcome.reason is Reason.CONTEXT
    assert short.prompt_cut == 0


IMAGE = Media(kind="image", data=b"x")
LOOK = (
    Message(role="user", content=("old ", IMAGE, "image")),
    Message(role="user", content=("this ", IMAGE, " or that ", IMAGE)),
)


def test_a_turn_that_goes_takes_its_media_along_and_one_that_is_cut_keeps_them():
    assert most_cut(LOOK) == len("old image" + "this  or that ") - 1
    assert cut_head(LOOK, 2) == (Message(role="user", content=("d ", IMAGE, "image")), LOOK[1])
    assert cut_head(LOOK, len("old image")) == (LOOK[1],)
    assert cut_head(LOOK, len("old imagethis  or")) == (Message(role="user", content=("", IMAGE, " that ", IMAGE)),)
    assert cut_head(LOOK, most_cut(LOOK)) == (Message(role="user", content=("", IMAGE, " ", IMAGE)),)
