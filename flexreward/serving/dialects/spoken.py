"""Texts as a policy's tokenizer writes them: special tokens, turns of a chat template, a prompt before what follows it.

Turns are told apart in the forms of ChatML (Qwen and many more), Llama 3, Gemma and Phi; any other text stays as it is.
Pure, and linear in the length of a text: it comes from outside.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from flexreward.types import Message, Text

ENDS = (
    *("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>"),
    *("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<pad>", "<|pad|>", "[PAD]", "<|finetune_right_pad_id|>"),
)
"""What ends a turn or a text, or pads it."""
BEGIN = re.compile(r"\A(?:\s*(?:<\|begin_of_text\|>|<s>|<bos>|<\|endoftext\|>|<pad>|<\|pad\|>|\[PAD\]|</s>))+")
FORMS = (
    re.compile(r"<\|im_start\|>(?P<role>[a-z]+)\n"),
    re.compile(r"<\|start_header_id\|>(?P<role>[a-z]+)<\|end_header_id\|>\n\n"),
    re.compile(r"<start_of_turn>(?P<role>[a-z]+)\n"),
    re.compile(r"<\|(?P<role>system|user|assistant|tool)\|>\n"),
)
ROLES = {"model": "assistant", "ipython": "tool", "developer": "system"}
KNOWN = ("system", "user", "assistant", "tool")


def without_end(text: str) -> str:
    """A completion without the special tokens that end and pad it, if any do."""
    end = len(text)
    while True:
        at = end
        while at and text[at - 1].isspace():
            at -= 1
        token = next((token for token in ENDS if text.endswith(token, 0, at)), None)
        if token is None:
            return text[:end]
        end = at - len(token)


def prompt_of(text: str) -> Text:
    """A prompt as turns, where it was written by a chat template; else as it is.

    The opened turn of the policy, in which nothing stands yet, is left out.
    """
    turns = list(_turns(text))
    if turns and turns[-1].role == "assistant" and not _opened(turns[-1]):
        turns.pop()
    return tuple(turns) or text


def completion_after(query: str, prompt: str) -> str | None:
    """What follows the prompt in a text that holds both; ``None`` where the prompt is not found at its start.

    Decoding puts special tokens before the prompt, or leaves them out of it.
    """
    if query.startswith(prompt):
        return without_end(query.removeprefix(prompt))
    bare, query = BEGIN.sub("", prompt), BEGIN.sub("", query)
    return without_end(query.removeprefix(bare)) if query.startswith(bare) else None


def last_turn(text: str) -> tuple[Text, str] | None:
    """A whole conversation as prompt and completion, its last assistant turn; ``None`` where it has no such end.

    Nothing tells a turn that the completion itself spells from one of the prompt, so a policy may write what looks like
    a new turn and be judged by that alone. Where prompt and completion can be had apart, have them apart.
    """
    turns = list(_turns(text))
    if len(turns) < 2 or turns[-1].role != "assistant":
        return None
    *asked, made = turns
    assert isinstance(made.content, str)
    return tuple(asked), made.content


def _turns(text: str) -> Iterator[Message]:
    """Nothing for a text that is not turns from its start."""
    text = BEGIN.sub("", text)
    for form in FORMS:
        heads = list(form.finditer(text))
        if not heads or text[: heads[0].start()].strip():
            continue
        ends = [head.start() for head in heads[1:]] + [len(text)]
        turns = [(head["role"], text[head.end() : end]) for head, end in zip(heads, ends, strict=True)]
        if all(ROLES.get(role, role) in KNOWN for role, _ in turns):
            yield from (Message(role=ROLES.get(role, role), content=without_end(said)) for role, said in turns)
            return


def _opened(turn: Message) -> bool:
    """Whether the policy's turn has been begun for it, by more than an opened thought."""
    return isinstance(turn.content, str) and turn.content.strip() not in ("", "<think>")
