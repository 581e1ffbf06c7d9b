"""How Mol-LLaMA's text is framed: a chat template of its own (not Llama 3.1's), and the system texts that it knows.

    system      <|begin_of_text|><|start_header_id|>system<|end_header_id|>\\n\\n{content}<|eot_id|>
    user        <|start_header_id|>user<|end_header_id|>\\n\\n{content}<|eot_id|>
                <|start_header_id|>assistant<|end_header_id|>\\n\\n
    assistant   {content}<|eot_id|>

The begin of text comes with a system text alone, and the assistant's header with the user's turn.

Source: DongkiKim95/Mol-LLaMA at 8544da0, tokenization_utils.py:40-74; system texts from the Mol-LLaMA paper, Tables 33
to 36.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from flexreward.errors import JudgeError

MOL, PAD = "<mol>", "[PAD]"
BEGIN, HEADER, END_HEADER, END = "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"
SPECIAL = (BEGIN, HEADER, END_HEADER, END, PAD, MOL)

CHAT_TEMPLATE = (
    "{% for m in messages %}"
    "{% if m['role'] == 'system' %}"
    "{{ '<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n' + m['content'] + '<|eot_id|>' }}"
    "{% elif m['role'] == 'user' %}"
    "{{ '<|start_header_id|>user<|end_header_id|>\n\n' + m['content'] + '<|eot_id|>'"
    " + '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
    "{% elif m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] + '<|eot_id|>' }}{% endgeneration %}"
    "{% else %}{{ raise_exception('a role is system, user or assistant, not ' + m['role']) }}"
    "{% endif %}{% endfor %}"
)

_BOTH = (
    "You are a helpful assistant specializing in chemistry and biology. "
    "The instruction that describes a task is given, paired with molecules. "
)
CONVERSATION = _BOTH + "Write a response that appropriately completes the request."
"""With conversation data."""
DESCRIPTION = _BOTH + "Provide a comprehensive response that appropriately completes the request."
"""With structural, chemical and biological data."""
DEMONSTRATION = _BOTH + "Provide a response that appropriately completes the request."
"""Of the published playground."""


class Stretch(NamedTuple):
    """A piece of a conversation: one special token, or text without any."""

    text: str
    kind: Literal["special", "frame", "content"]
    trained: bool
    """Whether the assistant writes it."""


def stretches(messages: list[dict[str, str]]) -> list[list[Stretch]]:
    """The conversation in the frame, a list a message. Joined, it is what the chat template renders.

    Raises:
        ValueError: A role is none of the three.
    """
    return [list(_message(message["role"], message["content"])) for message in messages]


def _message(role: str, content: str) -> tuple[Stretch, ...]:
    if role == "assistant":
        return (Stretch(content, "content", True), Stretch(END, "special", True))
    if role not in ("system", "user"):
        raise ValueError(f"role '{role}', expected system, user or assistant")
    begin = (Stretch(BEGIN, "special", False),) if role == "system" else ()
    turn = (*_header(role), Stretch(content, "content", False), Stretch(END, "special", False))
    return begin + turn + (_header("assistant") if role == "user" else ())


def _header(role: str) -> tuple[Stretch, ...]:
    return (
        Stretch(HEADER, "special", False),
        Stretch(role, "frame", False),
        Stretch(END_HEADER, "special", False),
        Stretch("\n\n", "frame", False),
    )


def prepare(tokenizer: Any) -> Any:
    """A LLaMA-3 tokenizer with ``[PAD]`` and then ``<mol>`` added where they lack, in this frame; changed in place.

    Raises:
        JudgeError: It has not the frame's special tokens.
    """
    known = tokenizer.get_added_vocab()
    if lacking := [token for token in SPECIAL[:4] if token not in known]:
        raise JudgeError(f"the tokenizer has no token {lacking[0]}; take that of Llama-3.1-8B-Instruct")
    for token in (PAD, MOL):
        if token not in known:
            tokenizer.add_tokens([token], special_tokens=True)
    tokenizer.pad_token = PAD
    tokenizer.eos_token = END
    tokenizer.padding_side = "left"
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
