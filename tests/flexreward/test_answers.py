import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexreward.errors import RecipeError
from flexreward.parse import LABELS
from flexreward.templates import Template, load_template, template_ids
from flexreward.templates.answers import decimals_of, numbers
from flexreward.types import Reply, Scale, Verdict

SCALES = [(1, 10), (1, 5), (0, 1), (0, 100), (0.5, 4.5), (7, 23), (1, 1000), (0.25, 0.75), (99, 101), (0, 3)]


def texts_of(template: Template, count: int, prefill: bool):
    """Whole turns that end in an answer of the template's form, and what it promises of their length."""
    answer = template.answer(count, prefill=prefill)
    before = (template.prefix if prefill else "") + ("Hm.</think>" if template.reasoning == "first" else "")
    return before, answer, st.from_regex(answer.pattern, fullmatch=True)


@pytest.mark.parametrize("prefill", [False, True])
@pytest.mark.parametrize("name", template_ids())
@given(data=st.data(), more=st.integers(2, 9))
def test_every_text_of_the_form_is_read(name, prefill, data, more):
    template = load_template(name)
    count = template.num_completions or more
    before, answer, texts = texts_of(template, count, prefill)
    text = data.draw(texts)
    assert isinstance(template.parse(Reply(text=before + text), count=count), Verdict)
    assert len(text.encode()) <= answer.longest


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("decimals", [0, 1, 2])
def test_the_numbers_are_those_on_the_scale_and_no_others(scale, decimals):
    low, high = scale
    found = numbers(Scale(low=low, high=high), decimals)
    matches = re.compile(found).fullmatch if found else lambda text: None
    for n in range(0, 10**decimals * (int(high) + 12)):
        text = f"{Decimal(n).scaleb(-decimals):f}"
        assert bool(matches(text)) == (low <= float(text) <= high)
        assert not matches("0" + text)


def test_a_number_has_the_decimals_that_the_template_shows():
    assert decimals_of("<answer>3</answer><answer>5</answer>", Scale(low=1, high=10)) == 0
    assert decimals_of(" <answer>3.8</answer>.", Scale(low=1, high=5)) == 1
    assert decimals_of("no example", Scale(low=0, high=1)) == 2
    pair, mos = load_template("pair").answer(2).pattern, load_template("mos").answer(1).pattern
    assert re.fullmatch(pair, "\n\n<answer>10</answer> <answer>1</answer>")
    assert not re.fullmatch(pair, "<answer>9.5</answer><answer>1</answer>")
    assert re.fullmatch(mos, "<answer>3.8</answer>")
    assert re.fullmatch(mos, "<answer>4</answer>")
    assert not re.fullmatch(mos, "<answer>5.1</answer>")


def test_a_label_is_one_of_the_four_that_the_prompt_names():
    pattern = load_template("gen-image").answer(2).pattern
    spelled = [label for label in LABELS if re.fullmatch(pattern, f"<answer>{label}</answer>")]
    assert spelled == ["[[A>B]]", "[[B>A]]", "[[A=B=Good]]", "[[A=B=Bad]]"]


def test_a_started_answer_is_not_begun_again():
    template = load_template("pair-direct")
    assert template.prefix == "<answer>"
    assert re.fullmatch(template.answer(2, prefill=True).pattern, "8</answer><answer>3</answer>")
    assert not re.fullmatch(template.answer(2, prefill=True).pattern, "<answer>8</answer><answer>3</answer>")


def test_a_started_turn_that_answers_by_itself_is_refused():
    template = Template(
        id="mine",
        system="",
        user="{completion_1}",
        scale=Scale(low=1, high=5),
        reasoning="none",
        prefix="<answer>3</answer>",
    )
    with pytest.raises(RecipeError, match="template 'mine': its prefix '<answer>3</answer>' holds more of the answer"):
        template.answer(1, prefill=True)


def test_a_scale_without_a_number_is_refused():
    template = Template(id="mine", system="", user="{completion_1}", scale=Scale(low=0.001, high=0.002))
    with pytest.raises(RecipeError, match="template 'mine': no number of 2 decimals lies on its scale"):
        template.answer(1)
