"""The published prompts and our variants of them, to the byte."""

from dataclasses import replace
from hashlib import sha256

import pytest

from flexreward.errors import SampleError
from flexreward.templates import load_template, question, template_ids
from flexreward.templates.text import fill, numbered, pieces_of, text_of
from flexreward.types import JudgeRequest, Scale

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
MOLECULAR = {
    "mol-pair": ("761cb41fd52d9e49", "6021394d9fd2a704"),
    "mol-pampa": ("f3056437b84db206", "be0a1a7eb5d38cb0"),
}
HELD = {**PUBLISHED, **VARIANTS, **MOLECULAR}
LISTWISE = {"batch", "image-batch", "paper-batch", "rubric-batch"}
POINTWISE = {"score", "image-score", "paper-score", "rubric-score", "score-answer-first", "score-direct"}
POINTWISE |= {"mos", "mos-bvcc", "paper-mos", "ss", "mol-pampa"}


def short(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]


def shown(name: str) -> tuple[str, str]:
    """System prompt and user turn of the fixed texts; media slots stay as they are named."""
    template = load_template(name, rubric="Be brief." if name.startswith("rubric") else None)
    prompt = question("gen-edit", source_prompt="s", target_prompt="t", instruct_prompt="i")
    prompt = prompt if name == "gen-edit" else PROMPT
    request = JudgeRequest(prompt=prompt, completions=COMPLETIONS[: template.num_completions or 3])
    request = replace(request, molecules=("C",) if name == "mol-pampa" else ())
    if template.media:
        one, two, _ = COMPLETIONS
        slots = {"prompt": (prompt,), "completion_1": (one,), "completion_2": (two,)}
        slots["completions"] = numbered([(text,) for text in COMPLETIONS])
        user = text_of(fill(pieces_of(template.user), slots))
        return template.system, user.strip() if name in LISTWISE else user
    rendered = template.render(request)
    return rendered.system, rendered.user


@pytest.mark.parametrize("name", HELD)
def test_what_the_judge_is_shown_is_the_same_to_the_byte(name):
    system, user = shown(name)
    assert (short(system), short(user)) == HELD[name]


def test_every_template_that_ships_has_a_digest_held_here():
    assert set(template_ids()) == HELD.keys()


@pytest.mark.parametrize("name", HELD)
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


def test_the_questions_of_several_fields_are_the_published_ones():
    assert question("pandalm", instruction="Add.", input="") == "(Instruction:) Add. (Input:) "


def test_the_molecular_prompts_begin_with_two_newlines_and_keep_their_typos():
    assert all(load_template(name).system.startswith("\n\nYou are") for name in MOLECULAR)
    assert all(load_template(name).user.startswith("\n\n[Question]\n\n") for name in MOLECULAR)
    assert "score both assitants" in load_template("mol-pair").system
    assert "FISRT DECIMAL" in load_template("mol-pampa").system
