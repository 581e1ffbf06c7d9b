import pytest

from flexreward.errors import JudgeError
from mol import frame
from mol.frame import stretches
from tests.mol.conftest import llama_tokenizer

TALK = [
    {"role": "system", "content": "S"},
    {"role": "user", "content": "U <mol>."},
    {"role": "assistant", "content": "A"},
    {"role": "user", "content": "V"},
]
RENDERED = (
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nU <mol>.<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    "A<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nV<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
)


def test_the_chat_template_renders_the_published_frame():
    tokenizer = frame.prepare(llama_tokenizer())
    assert tokenizer.apply_chat_template(TALK, tokenize=False) == RENDERED


def test_the_stretches_of_a_conversation_are_what_the_template_renders():
    assert "".join(part.text for message in stretches(TALK) for part in message) == RENDERED


def test_without_a_system_text_there_is_no_begin_of_text():
    tokenizer = frame.prepare(llama_tokenizer())
    text = tokenizer.apply_chat_template(TALK[1:2], tokenize=False)
    assert text.startswith("<|start_header_id|>user")


def test_the_template_marks_what_the_assistant_writes():
    tokenizer = frame.prepare(llama_tokenizer())
    found = tokenizer.apply_chat_template(TALK[:3], return_dict=True, return_assistant_tokens_mask=True)
    written = [i for i, mark in zip(found["input_ids"], found["assistant_masks"], strict=True) if mark]
    assert tokenizer.decode(written) == "A<|eot_id|>"


def test_pad_and_mol_are_the_last_two_tokens_in_this_order():
    tokenizer = frame.prepare(llama_tokenizer())
    assert tokenizer.convert_ids_to_tokens([len(tokenizer) - 2, len(tokenizer) - 1]) == ["[PAD]", "<mol>"]


def test_a_tokenizer_that_is_ready_stays_as_it_is():
    tokenizer = frame.prepare(llama_tokenizer())
    size = len(tokenizer)
    assert len(frame.prepare(tokenizer)) == size


def test_another_tokenizer_is_refused(tokenizer):
    with pytest.raises(JudgeError, match=r"no token <\|begin_of_text\|>; take that of Llama-3\.1-8B-Instruct"):
        frame.prepare(tokenizer)


def test_an_unknown_role_is_named():
    with pytest.raises(ValueError, match="role 'tool', expected system, user or assistant"):
        stretches([{"role": "tool", "content": ""}])
