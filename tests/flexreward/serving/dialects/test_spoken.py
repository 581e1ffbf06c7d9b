import time

import pytest

from flexreward.serving.dialects.spoken import completion_after, last_turn, prompt_of, without_end
from flexreward.types import Message

CHATML = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n"
LLAMA = (
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n2+2?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
)
GEMMA = "<bos><start_of_turn>user\n2+2?<end_of_turn>\n<start_of_turn>model\n"
ASKED = (Message(role="system", content="Be brief."), Message(role="user", content="2+2?"))


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("4<|im_end|>", "4"),
        ("4<|eot_id|>\n", "4"),
        ("4</s><pad><pad>", "4"),
        ("4 <|im_end|>\n<|endoftext|><|endoftext|>", "4"),
        ("4\n", "4\n"),
        ("<|im_end|> is a token", "<|im_end|> is a token"),
        ("<|im_end|>", ""),
        ("", ""),
    ],
)
def test_special_tokens_at_the_end_are_no_part_of_a_completion(text, bare):
    assert without_end(text).rstrip(" ") == bare


@pytest.mark.parametrize("text", [CHATML, LLAMA])
def test_a_prompt_that_a_chat_template_wrote_is_shown_as_its_turns(text):
    assert prompt_of(text) == ASKED


def test_the_role_that_gemma_calls_model_is_the_assistant():
    assert prompt_of(GEMMA) == (Message(role="user", content="2+2?"),)
    assert last_turn(GEMMA + "4<end_of_turn>\n") == ((Message(role="user", content="2+2?"),), "4")


def test_an_opened_thought_is_no_turn_yet_and_an_opened_text_is():
    assert prompt_of(CHATML + "<think>\n") == ASKED
    assert prompt_of(CHATML + "It is") == (*ASKED, Message(role="assistant", content="It is"))


@pytest.mark.parametrize("text", ["2+2?", "", "What is <|im_start|>user\n for?", "<|im_start|>wizard\nhi<|im_end|>"])
def test_any_other_prompt_stays_as_it_is(text):
    assert prompt_of(text) == text


@pytest.mark.parametrize(
    ("query", "prompt", "completion"),
    [
        ("2+2?4", "2+2?", "4"),
        (CHATML + "4<|im_end|>", CHATML, "4"),
        ("<|endoftext|><|endoftext|>" + CHATML + "4<|im_end|>\n", CHATML, "4"),
        ("<s> 2+2? 4</s>", "<s> 2+2?", " 4"),
        (LLAMA.removeprefix("<|begin_of_text|>") + "4<|eot_id|>", LLAMA, "4"),
        ("2+2?", "2+2?", ""),
        ("4", "2+2?", None),
        ("so 2+2?4", "2+2?", None),
    ],
)
def test_a_completion_is_what_follows_its_prompt(query, prompt, completion):
    assert completion_after(query, prompt) == completion


def test_the_last_turn_of_a_conversation_is_its_completion():
    assert last_turn(CHATML + "4<|im_end|>\n") == (ASKED, "4")
    longer = CHATML + "4<|im_end|>\n<|im_start|>user\nand 3+3?<|im_end|>\n<|im_start|>assistant\n6<|im_end|>"
    prompt, completion = last_turn(longer)
    assert [turn.role for turn in prompt] == ["system", "user", "assistant", "user"]
    assert completion == "6"


@pytest.mark.parametrize("text", ["", "4", "<|im_start|>user\n2+2?<|im_end|>\n", "<|im_start|>assistant\n4<|im_end|>"])
def test_what_does_not_end_with_an_answer_has_no_last_turn(text):
    assert last_turn(text) is None


@pytest.mark.parametrize("piece", [" ", "\n", "<pad>", "<|im_start|>user\n", "<|", "<|im_end|> x"])
def test_long_texts_take_no_longer_than_their_length(piece):
    text = piece * (1_000_000 // len(piece))
    began = time.perf_counter()
    without_end(text + "x")
    without_end(text)
    prompt_of(text)
    last_turn(text)
    completion_after(text, "x" + text)
    assert time.perf_counter() - began < 10.0
