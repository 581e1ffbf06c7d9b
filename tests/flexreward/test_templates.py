import pickle
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexreward.errors import RecipeError, RefusedError, SampleError
from flexreward.templates import Template, load_template, question, template_ids
from flexreward.templates.text import fill, numbered, pieces_of
from flexreward.types import JudgeRequest, Message, Reply, Scale, Verdict

PROMPT = " What is\n2+2? "
COMPLETIONS = ("Four.\n", " 5", "six \n")
PAIR = JudgeRequest(prompt=PROMPT, completions=COMPLETIONS[:2])

# First 16 hex digits of the sha256 of each system prompt, and of its user turn filled with the texts above.
PUBLISHED = {
    "pair": ("9a936631952d98a8", "2e04bdc669e4ff69"),
    "pair-sp": ("83ea16d598c008ec", "2e04bdc669e4ff69"),
    "pair-vlrb": ("a10b7c9d94686205", "0cb47a1250db6266"),
    "score": ("4cdd1dea69659814", "fa14ed4b59c0cca0"),
    "batch": ("7a2830b61f78936d", "e87af8024826dc98"),
    "image-pair": ("9a936631952d98a8", "0cb47a1250db6266"),
    "image-score": ("4cdd1dea69659814", "082a4cdc6934254b"),
    "image-batch": ("7a2830b61f78936d", "c749cf037c1b209d"),
    "mj-align": ("4cef0b5a458dd7f7", "cd86936eab84dfb0"),
    "mj-safe": ("a9f2d08b5f70187d", "cd86936eab84dfb0"),
    "mj-qual": ("18c88e2703b32427", "cd86936eab84dfb0"),
    "gen-video": ("6789e87b1470c413", "067782f59bfa2a9f"),
    "gen-edit": ("774ee37298f8e9d1", "61ad111693cad4f2"),
    "gen-image": ("96af1f3d4be40f5a", "2aa9ccde6a34ae2a"),
    "mos": ("f09e1e3b33010f4b", "404bdc6cd3cb599c"),
    "mos-bvcc": ("d1705bbe308d99fe", "04ef95be902997f0"),
    "ss": ("aa6dd7e882e83531", "ae625d008ab60005"),
}
VARIANTS = {
    "pair-answer-first": ("0f42a23d744ee42c", "2e04bdc669e4ff69"),
    "pair-direct": ("6ac4716c8bdcdec4", "2e04bdc669e4ff69"),
    "paper-batch": ("6f74fe69c6b34553", "e87af8024826dc98"),
    "paper-genai": ("7434325ca9c68fb0", "067782f59bfa2a9f"),
    "paper-mos": ("4d17e14c95331c90", "404bdc6cd3cb599c"),
    "paper-pair": ("83ea16d598c008ec", "2e04bdc669e4ff69"),
    "paper-score": ("e5545e88b336791c", "fa14ed4b59c0cca0"),
    "rubric-batch": ("44ddf301ae2d1c82", "e87af8024826dc98"),
    "rubric-pair": ("447a56c30d3c1cee", "2e04bdc669e4ff69"),
    "rubric-score": ("8fdd27cf73a8d7cb", "fa14ed4b59c0cca0"),
    "score-answer-first": ("ed989d454f49baeb", "fa14ed4b59c0cca0"),
    "score-direct": ("8d84302d7734436f", "fa14ed4b59c0cca0"),
}
LISTWISE = {"batch", "image-batch", "paper-batch", "rubric-batch"}
POINTWISE = {"score", "image-score", "paper-score", "rubric-score", "score-answer-first", "score-direct"}
POINTWISE |= {"mos", "mos-bvcc", "paper-mos", "ss"}


def short(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]


def shown(name: str) -> tuple[str, str]:
    """System prompt and user turn of the fixed texts; media slots stay as they are named."""
    template = load_template(name, rubric="Be brief." if name.startswith("rubric") else None)
    prompt = question("gen-edit", source_prompt="s", target_prompt="t", instruct_prompt="i")
    prompt = prompt if name == "gen-edit" else PROMPT
    request = JudgeRequest(prompt=prompt, completions=COMPLETIONS[: template.num_completions or 3])
    if template.media:
        one, two, _ = COMPLETIONS
        slots = {"prompt": prompt, "completion_1": one, "completion_2": two, "completions": numbered([*COMPLETIONS])}
        user = fill(pieces_of(template.user), slots)
        return template.system, user.strip() if name in LISTWISE else user
    rendered = template.render(request)
    return rendered.system, rendered.user


@pytest.mark.parametrize("name", [*PUBLISHED, *VARIANTS])
def test_what_the_judge_is_shown_is_the_same_to_the_byte(name):
    system, user = shown(name)
    assert (short(system), short(user)) == {**PUBLISHED, **VARIANTS}[name]


def test_every_template_that_ships_has_a_digest_held_here():
    assert set(template_ids()) == PUBLISHED.keys() | VARIANTS.keys()


@pytest.mark.parametrize("name", [*PUBLISHED, *VARIANTS])
def test_the_user_turn_says_how_many_completions_are_judged(name):
    expected = None if name in LISTWISE else 1 if name in POINTWISE else 2
    assert load_template(name).num_completions == expected


def test_scales_and_readers_are_the_published_ones():
    scales = {name: load_template(name).scale for name in PUBLISHED}
    fives = {"score", "image-score", "mos", "mos-bvcc", "ss"}
    labels = {"gen-image", "gen-edit", "gen-video"}
    assert {name for name, scale in scales.items() if scale == Scale(low=1, high=5)} == fives
    assert {name for name, scale in scales.items() if scale == Scale(low=0, high=1)} == labels
    assert {name for name in PUBLISHED if load_template(name).reader == "genai"} == labels
    assert all(load_template(name).reasoning == "first" for name in PUBLISHED)


def test_the_typos_of_the_published_prompts_are_kept():
    assert "an AI assistants in response" in load_template("score").system
    assert "user withthe answer" in load_template("pair-vlrb").system
    assert "FISRT DECIMAL" in load_template("mos").system
    assert "editied images" in load_template("gen-edit").system
    assert "[Assistant Edited B's Image]" in load_template("gen-edit").user


def test_a_pair_is_shown_word_for_word():
    assert load_template("pair").render(PAIR).user == (
        "[Question]\n What is\n2+2? \n\n[Assistant 1's Answer]\nFour.\n\n\n[Assistant 2's Answer]\n 5"
    )


def test_the_listwise_turn_takes_any_number_from_two_and_is_stripped_as_a_whole():
    batch = load_template("batch")
    for count in (2, 5, 12):
        user = batch.render(JudgeRequest(prompt="q", completions=("a \n",) * count)).user
        assert user.endswith(f"[Assistant {count}'s Answer]\na")
    with pytest.raises(SampleError, match=r"'batch': expected 2 or more completion\(s\), found 1"):
        batch.render(JudgeRequest(prompt="q", completions=("a",)))


@pytest.mark.parametrize(("name", "count"), [("pair", 1), ("pair", 3), ("score", 0), ("score", 2)])
def test_a_wrong_number_of_completions_is_an_error_that_names_both(name, count):
    with pytest.raises(
        SampleError, match=rf"template '{name}': expected {1 if name == 'score' else 2} .* found {count}"
    ):
        load_template(name).render(JudgeRequest(prompt="q", completions=("a",) * count))


@pytest.mark.parametrize("name", [name for name in PUBLISHED if load_template(name).media])
def test_a_template_that_shows_media_is_refused_by_name(name):
    template = load_template(name)
    with pytest.raises(
        RefusedError, match=f"template '{name}' shows (images|videos|audios); the judge reads text only"
    ):
        template.render(JudgeRequest(prompt="q", completions=("a",) * (template.num_completions or 2)))


def test_the_questions_of_several_fields_are_the_published_ones():
    assert question("pandalm", instruction="Add.", input="") == "(Instruction:) Add. (Input:) "


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


# Templates of the user's own


def written(folder: Path, text: str, name: str = "mine.toml") -> str:
    path = folder / name
    path.write_text(text, "utf-8")
    return str(path)


OWN = """
system = "Rate the poem from {low} to {high}."
user = "Poem:\\n{completion_1}"
scale = [0, 3]
reasoning = "none"
"""


def test_a_template_of_the_users_own_is_a_file(tmp_path):
    template = load_template(written(tmp_path, OWN))
    assert (template.id, template.num_completions, template.scale) == ("mine", 1, Scale(low=0, high=3))
    prompt = template.render(JudgeRequest(prompt="q", completions=("Roses",)))
    assert (prompt.system, prompt.user) == ("Rate the poem from 0 to 3.", "Poem:\nRoses")
    verdict = template.parse(Reply(text="<answer>3</answer>"), count=1)
    assert isinstance(verdict, Verdict)
    assert load_template(written(tmp_path, OWN), scale=(0, 9)).system == "Rate the poem from 0 to 9."


def test_a_template_of_the_users_own_may_take_published_pieces(tmp_path):
    text = 'body = "pair"\nexample = [3, 5]\nuser = "pair"\nscale = [1, 10]'
    template = load_template(written(tmp_path, text))
    assert template.render(PAIR) == load_template("pair-sp").render(PAIR)
    assert template.digest == load_template("pair-sp").digest


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (OWN + "reasonning = 1", "unknown field 'reasonning', did you mean reasoning?"),
        (OWN.replace("scale = [0, 3]", ""), "field 'scale' is missing"),
        (OWN.replace("[0, 3]", '"low"'), "scale: Input should be a valid tuple, found 'low'"),
        (OWN.replace("none", "never"), "reasoning: Input should be 'first', 'last' or 'none', found 'never'"),
        (OWN.replace("completion_1", "answer"), "unknown slot {answer}, expected one of"),
        (OWN.replace("{completion_1}", "?"), "does not show every completion from {completion_1} on"),
        (OWN.replace("completion_1", "completion_2"), "does not show every completion from {completion_1} on"),
        (OWN + 'reader = "genai"', "reader genai compares two completions on the scale 0 to 1"),
        ('user = "pair"\nscale = [1, 10]', "expected a system or a body, found neither"),
        ('user = "piar"\nsystem = "s"\nscale = [1, 10]', "users has no 'piar', did you mean"),
        ('user = "pair"\nbody = "pairs"\nscale = [1, 10]', "bodies has no 'pairs', did you mean pair"),
        ("user = ", "is not TOML"),
    ],
)
def test_a_wrong_field_is_one_line_with_the_nearest_right_one(tmp_path, text, line):
    with pytest.raises(RecipeError) as caught:
        load_template(written(tmp_path, text))
    assert line in str(caught.value)
    assert "mine" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RecipeError, match=r"none\.toml: cannot be read: No such file"):
        load_template(str(tmp_path / "none.toml"))


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(RecipeError, match="unknown template 'piar', did you mean pair"):
        load_template("piar")
    with pytest.raises(RecipeError, match="unknown template 'zzz', expected one of batch, gen-edit"):
        load_template("zzz")


def test_a_template_can_be_written_in_code():
    template = Template(id="t", system="s", user="{completions}", scale=Scale(low=0, high=1))
    assert template.num_completions is None
    assert template.render(JudgeRequest(prompt="q", completions=("a", "b"))).user.startswith(
        "[Assistant 1's Answer]\na"
    )
