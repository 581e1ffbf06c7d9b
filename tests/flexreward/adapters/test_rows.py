import PIL.Image
import pytest

from flexreward.adapters.rows import final_part, group_name, item_of
from flexreward.errors import SampleError
from flexreward.types import Media, Message

RED = PIL.Image.new("RGB", (2, 2), "red")
BLUE = PIL.Image.new("RGB", (2, 2), "blue")


def user(*parts):
    return [{"role": "user", "content": parts[0] if len(parts) == 1 else list(parts)}]


def text(words):
    return {"type": "text", "text": words}


def test_plain_texts_stay_plain():
    item = item_of("What?", "This.", {})
    assert (item.prompt, item.completion) == ("What?", "This.")


def test_a_conversation_keeps_its_turns_and_a_single_answer_is_its_text():
    item = item_of(
        [{"role": "system", "content": "Be kind."}, *user("What?")], [{"role": "assistant", "content": "A"}], {}
    )
    assert item.prompt == (Message(role="system", content="Be kind."), Message(role="user", content="What?"))
    assert item.completion == "A"


def test_an_answer_in_parts_is_its_text():
    assert item_of("p", [{"role": "assistant", "content": [text("a"), text("b")]}], {}).completion == "ab"


def test_tool_calls_and_their_results_are_shown_as_text():
    turns = [
        {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": {"name": "add"}}]},
        {"role": "tool", "name": "add", "content": "3"},
        {"role": "assistant", "content": "It is 3.", "reasoning_content": "hm"},
    ]
    found = item_of("1 + 2?", turns, {}).completion
    assert [turn.content for turn in found] == ['<tool_call>{"name": "add"}</tool_call>', "3", "It is 3."]


def test_columns_for_the_judge_are_taken_and_others_are_not():
    columns = {"rubric": "Be short.", "reference": 42, "molecules": ["CCO"], "source": "x"}
    item = item_of("p", "c", columns)
    assert (item.rubric, item.reference, item.molecules) == ("Be short.", "42", ("CCO",))


def test_images_of_a_column_belong_to_the_prompt():
    assert [one.kind for one in item_of(user("What?"), "c", {"images": [RED, BLUE]}).media] == ["image"] * 2
    assert [one.kind for one in item_of("What?", "c", {"image": RED}).media] == ["image"]


def test_an_image_that_the_trainer_put_into_the_messages_is_not_shown_twice():
    item = item_of(user({"type": "image", "image": RED}, text("What?")), "c", {"images": [RED]})
    assert item.media == ()
    assert isinstance(item.prompt[0].content[0], Media)


def test_an_empty_part_takes_the_image_of_the_column():
    item = item_of(user({"type": "image"}, text("What?")), "c", {"images": [RED, BLUE]})
    assert isinstance(item.prompt[0].content[0], Media)
    assert len(item.media) == 1


def test_parts_that_a_table_filled_with_nulls_are_empty():
    item = item_of(user({"type": "image", "text": None, "image": None}, text("What?")), "c", {"images": [RED]})
    assert item.media == ()


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("<think>hm</think>\nA", "A"),
        ("  <think>hm</think>A", "A"),
        ("hm</think>A", "A"),
        ("<think>hm", ""),
        ("<think>a</think>b</think>c", "b</think>c"),
        ("A, I think.", "A, I think."),
        ("Say <think>x", "Say <think>x"),
        ("", ""),
    ],
)
def test_a_policys_thought_is_hidden(written, shown):
    assert final_part(written) == shown
    assert item_of("p", written, {}).completion == shown
    assert item_of("p", [{"role": "assistant", "content": written}], {}).completion == shown


def test_a_thought_that_the_prompt_began_is_hidden_too():
    assert item_of("Go. <think>\n", "hm", {}).completion == ""
    assert item_of("Go. <think>\n", "hm</think>A", {}).completion == "A"


def test_a_judge_may_be_shown_the_thought():
    assert item_of("p", "<think>hm</think>A", {}, sees_thought=True).completion == "<think>hm</think>A"


@pytest.mark.parametrize(
    ("prompt", "completion", "columns"),
    [
        (3, "c", {}),
        ("p", None, {}),
        ("p", "c", {"rubric": ["x"]}),
        ("p", "c", {"images": [3]}),
        ("p", "c", {"molecules": "CCO"}),
        (user({"type": "image"}, text("x")), "c", {}),
        ([], "c", {}),
        ([3], "c", {}),
    ],
)
def test_what_cannot_be_shown_is_one_line(prompt, completion, columns):
    with pytest.raises(SampleError, match=r"^row 7: ") as error:
        item_of(prompt, completion, columns, where="row 7")
    assert "\n" not in str(error.value)


def test_equal_prompts_are_one_group_and_what_stands_beside_them_counts():
    def name(prompt, **columns):
        return group_name(item_of(prompt, "c", columns))

    assert name("p") == name("p") != name("q")
    assert name("p", rubric="r") != name("p")
    assert name("p", images=[RED]) == name("p", images=[RED]) != name("p", images=[BLUE])
