"""The tokenizer of the tiny models: Qwen2's own, byte-level BPE with every digit alone, over a small vocabulary."""

from __future__ import annotations

import json
import random
import tomllib
from importlib.resources import files

from tokenizers import AddedToken, trainers
from transformers import Qwen2Tokenizer

import flexreward.templates
from recipes.tiny import domain

CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
"""One token each when the model writes them; the same letters in a completion stay letters."""
VOCABULARY = 1024


def _corpus() -> list[str]:
    """The judge prompts, and what is said in the domain."""
    texts = tomllib.loads(files(flexreward.templates).joinpath("flex_judge.toml").read_text(encoding="utf-8"))
    prompts = [
        texts["heads"]["plain"].format(scope="both assistants"),
        texts["tails"]["plain"].format(noun="scores", dot=",", ex=" "),
        *(texts["bodies"][name] for name in ("pair", "score", "batch")),
        *(texts["users"][name] for name in ("pair", "score", "batch")),
    ]
    rng = random.Random("corpus")
    stream = domain.problems(rng, held_out=False)
    spoken = ["system\nuser\nassistant\n", "Question: Completion Marks:", *(domain.empty_talk(rng) for _ in range(100))]
    for problem in (next(stream) for _ in range(400)):
        seen = domain.completion(problem, rng)
        spoken += [problem.question, seen.text, domain.result(problem)]
        spoken += [domain.remark(number, says, problem.answer) for number in (None, 1) for says in (seen.says, None)]
    return [*prompts * 20, *spoken]


def build() -> Qwen2Tokenizer:
    """The tokenizer, the same on every call, ready to save beside a checkpoint."""
    raw = Qwen2Tokenizer(vocab={}, merges=[]).backend_tokenizer
    raw.train_from_iterator(
        _corpus(),
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            min_frequency=5,
            show_progress=False,
            initial_alphabet=_bytes(),
        ),
    )
    model = json.loads(raw.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=[tuple(merge) for merge in model["merges"]],
        unk_token=None,
        bos_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=4096,
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _bytes() -> list[str]:
    from tokenizers.pre_tokenizers import ByteLevel

    return ByteLevel.alphabet()
