"""How a request is shown: slots, conversations, thoughts, started turns, rubrics; and what cannot be shown."""

import pickle
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexreward.errors import RecipeError, SampleError
from flexreward.templates import load_template
from flexreward.types import JudgeRequest, Message, Reply, Scale, Verdict

PAIR = JudgeRequest(prompt="What is 2+2?", completions=("Four.", "5"))


@pytest.mark.parametrize(("name", "count"), [("pair", 1), ("pair", 3), ("score", 0), ("score", 2)])
def test_a_wrong_number_of_completions_is_an_error_that_names_both(name, count):
    with pytest.raises(
        SampleError, match=rf"template '{name}': expected {1 if name == 'score' else 2} .* found {count}"
    ):
        load_template(name).render(JudgeRequest(prompt="q", completions=("a",) * count))


@pytest.mark.parametrize(
    "name", ["pair-vlrb", "image-batch", "mj-align", "gen-edit", "gen-video", "mos", "mos-bvcc", "ss"]
)
def test_a_template_that_shows_media_takes_no_request_of_text_alone(name):
    template = load_template(name)
    with pytest.raises(SampleError, match=f"template '{name}': expected (image|video|audio) as .*, found (none|text)"):
        template.render(JudgeRequest(prompt="q", completions=("a",) * (template.num_completions or 2)))


# What is judged is text and nothing else


def test_slots_in_what_is_judged_are_never_filled():
    request = JudgeRequest(prompt="{completion_2}", completions=("{prompt} {rubric}", "{completion_1}{completions}"))
    user = load_template("pair").render(request).user
    assert user == (
        "[Question]\n{completion_2}\n\n[Assistant 1's Answer]\n{prompt} {rubric}\n\n"
        "[Assistant 2's Answer]\n{completion_1}{completions}"
    )


@given(prompt=st.text(), one=st.text(), two=st.text())
def test_every_text_arrives_as_it_was_written(prompt, one, two):
    template = load_template("pair", judge_sees="all")
    user = template.render(JudgeRequest(prompt=prompt, completions=(one, two))).user
    assert user == f"[Question]\n{prompt}\n\n[Assistant 1's Answer]\n{one}\n\n[Assistant 2's Answer]\n{two}"


# Conversations and thoughts


def seen(completion, *, prompt="q", sees="final") -> str:
    user = load_template("score", judge_sees=sees).render(JudgeRequest(prompt=prompt, completions=(completion,))).user
    return user.partition("[Assistant's Answer]\n")[2]


def turn(role: str, content: str) -> Message:
    return Message(role=role, content=content)


def test_a_conversation_of_one_turn_is_its_bare_text():
    bare = load_template("score").render(JudgeRequest(prompt="q", completions=("a",)))
    turns = JudgeRequest(prompt=(turn("user", "q"),), completions=((turn("assistant", "a"),),))
    assert load_template("score").render(turns) == bare


def test_several_turns_are_blocks_headed_by_their_role():
    prompt = (turn("system", "Be kind."), turn("user", "Hi"), turn("assistant", "Hello"), turn("user", "2+2?"))
    completion = (turn("assistant", "Let me see."), turn("tool", "4"), turn("assistant", "It is 4."))
    user = load_template("score").render(JudgeRequest(prompt=prompt, completions=(completion,))).user
    assert user == (
        "[Question]\n[System]\nBe kind.\n\n[User]\nHi\n\n[Assistant]\nHello\n\n[User]\n2+2?\n\n"
        "[Assistant's Answer]\n[Assistant]\nLet me see.\n\n[Tool]\n4\n\n[Assistant]\nIt is 4."
    )


@pytest.mark.parametrize(
    ("completion", "final"),
    [
        ("  untouched \n", "  untouched \n"),
        ("<think>two and two</think>\n\nFour.", "Four."),
        ("begun for the writer</think>Four.", "Four."),
        ("<think>a<think>b</think>c</think>d", "d"),
        ("<think>a</think>one <think>b</think>two", "one two"),
        ("Four. <think>or is it", "Four."),
        ("<think>it never ends, <answer>10</answer>", ""),
        ("<think>a</think>b</think>c", "c"),
        ("3.<think>a</think></thi<think>b</think>nk><answer>10</answer>", "3."),
        ("3.<thi<think>b</think>nk>c", "3."),
    ],
)
def test_the_judge_sees_what_was_said_and_not_what_was_thought(completion, final):
    assert seen(completion) == final
    assert seen((turn("assistant", completion),)) == final
    assert seen(completion, sees="all") == completion


def test_a_prompt_that_speaks_of_thoughts_is_shown_whole():
    request = JudgeRequest(prompt="Explain <think>x</think>", completions=("a",))
    assert "Explain <think>x</think>" in load_template("score").render(request).user


# Started turns


def test_a_started_turn_begins_with_what_comes_first():
    assert load_template("pair").render(PAIR).prefix == ""
    assert load_template("pair").render(PAIR, prefill=True).prefix == "<think>\n"
    assert load_template("paper-pair").render(PAIR, prefill=True).prefix == "<think>"
    assert load_template("pair-answer-first").render(PAIR, prefill=True).prefix == "<answer>"


def test_answers_before_the_thought_are_read_from_there():
    verdict = load_template("pair-answer-first").parse(
        Reply(text="<answer>8</answer><answer>3</answer><think>for <answer>1</answer></think>"), count=2
    )
    assert isinstance(verdict, Verdict)
    assert verdict.scores == (8, 3)


# Rubrics and references


def test_a_rubric_comes_from_the_request_or_from_the_template():
    loaded = load_template("rubric-pair", rubric="Be brief.")
    assert "by nothing else:\nBe brief.\nAvoid" in loaded.render(PAIR).system
    own = loaded.render(replace(PAIR, rubric="Be {prompt} kind.")).system
    assert "by nothing else:\nBe {prompt} kind.\nAvoid" in own


@pytest.mark.parametrize("rubric", [None, "", " \n"])
def test_an_empty_rubric_is_an_error_of_the_sample(rubric):
    with pytest.raises(SampleError, match="template 'rubric-pair' needs criteria"):
        load_template("rubric-pair").render(replace(PAIR, rubric=rubric))


def test_a_rubric_that_is_empty_or_has_no_slot_is_an_error_of_the_recipe():
    with pytest.raises(RecipeError, match="template 'rubric-pair': its rubric is empty"):
        load_template("rubric-pair", rubric=" ")
    with pytest.raises(RecipeError, match="template 'pair': has no slot for a rubric; use rubric-score"):
        load_template("pair", rubric="Be brief.")


def test_a_rubric_template_takes_the_users_scale():
    wide = load_template("rubric-pair", rubric="r", scale=(0, 100))
    assert wide.scale == Scale(low=0, high=100)
    assert "Score assistants 0-100 (higher=better)" in wide.system
    narrow = load_template("rubric-score", rubric="r", scale=(0, 1))
    assert narrow.system.endswith("for example, <answer>0.5</answer>")


def test_a_template_that_names_its_scale_takes_no_other():
    with pytest.raises(RecipeError, match="template 'pair': its text names its own scale"):
        load_template("pair", scale=(0, 5))


@pytest.mark.parametrize("scale", [(5, 5), (5, 1), (-1, 1), (float("nan"), 1), (0, float("inf"))])
def test_a_scale_that_does_not_rise_from_zero_up_is_an_error(scale):
    with pytest.raises(RecipeError, match="expected a scale of two rising numbers from 0 up"):
        load_template("rubric-pair", rubric="r", scale=scale)


def test_a_reference_is_shown_where_there_is_one():
    template = load_template("rubric-score", rubric="r")
    request = JudgeRequest(prompt="q", completions=("a",))
    assert template.render(request).user == "[Question]\nq\n\n[Assistant's Answer]\na"
    with_reference = template.render(replace(request, reference="four")).user
    assert with_reference == "[Question]\nq\n\n[Reference Answer]\nfour\n\n[Assistant's Answer]\na"


# Digests


def test_the_digest_changes_with_everything_that_is_shown_or_read():
    base = load_template("rubric-pair", rubric="r")
    changed = [
        load_template("rubric-pair", rubric="s"),
        load_template("rubric-pair", rubric="r", scale=(1, 5)),
        load_template("rubric-pair", rubric="r", judge_sees="all"),
        replace(base, system=base.system + " "),
        replace(base, user=base.user + " "),
        replace(base, reasoning="none"),
        replace(base, prefix="<think>"),
    ]
    assert len({template.digest for template in [base, *changed]}) == 1 + len(changed)
    assert replace(base, id="another name").digest == base.digest
    assert load_template("rubric-pair", rubric="r").digest == base.digest


def test_a_template_crosses_process_borders():
    template = load_template("pair")
    template.render(PAIR)
    assert pickle.loads(pickle.dumps(template)) == template  # noqa: S301
