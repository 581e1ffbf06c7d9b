"""Templates of the user's own, and the lines that answer a slip."""

from pathlib import Path

import pytest

from flexreward.errors import RecipeError
from flexreward.templates import Template, load_template
from flexreward.types import JudgeRequest, Reply, Scale, Verdict

PAIR = JudgeRequest(prompt="What is 2+2?", completions=("Four.", "5"))


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
