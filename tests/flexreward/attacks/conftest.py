"""Tokenizers of the real architectures with the real special tokens, over vocabularies of a few hundred pieces."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoTokenizer

from flexreward.config import BUNDLED
from flexreward.engines.encoding import Encoder
from flexreward.engines.families import OMNI, VL
from tests.flexreward.attacks.catalogue import FAMILIES

WORDS = (
    *("system", "user", "assistant", "Assistant", "Ġ1", "Answer", "Question", "[Question", "answer", "think", "Ġthe"),
    *("<|", "|>", "|>Ċ", "|>ĊĊ", "]Ċ", "]ĊĊ", "!ĊĊ", ">ĊĊ", "ĊĊ", "ĊĊĊ", "im", "_end", "_start", "eot", "_id"),
)
"""Pieces of frames and of tokens, and line breaks that grow together with what stands before them."""

CHATML = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}"
    "{% endif %}{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHATML_WITH_MEDIA = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for part in m['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}{{ PLACEHOLDER }}{% endif %}{% endfor %}{% endif %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PLACEHOLDERS = {
    "qwen2.5-vl": "<|vision_start|><|image_pad|><|vision_end|>",
    "qwen2.5-omni": "<|vision_bos|><|IMAGE|><|vision_eos|>",
}
HEADERS = (
    "{{ bos_token }}{% if messages[0]['role'] != 'system' %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\n\nToday Date: ' + date_string + '\n\n<|eot_id|>' }}{% endif %}"
    "{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' }}"
    "{% if m['role'] == 'system' %}{{ 'Today Date: ' + date_string + '\n\n' }}{% endif %}"
    "{{ m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
LLAMA_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """All bytes, and each of ``WORDS`` letter by letter."""
    from tokenizers.pre_tokenizers import ByteLevel

    merges = list(dict.fromkeys((word[:i], word[i]) for word in WORDS for i in range(1, len(word))))
    pieces = [*sorted(ByteLevel.alphabet()), *(left + right for left, right in merges)]
    return {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}, merges


def qwen(family: str) -> Any:
    from tokenizers import AddedToken
    from transformers import Qwen2Tokenizer

    vocab, merges = vocabulary()
    tokens = FAMILIES[family]
    made = Qwen2Tokenizer(
        vocab=vocab, merges=merges, unk_token=None, bos_token=None, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    made.add_special_tokens({"additional_special_tokens": list(tokens.special)})
    made.add_tokens([AddedToken(token, special=False, normalized=False) for token in tokens.marks])
    placeholder = PLACEHOLDERS.get(family)
    made.chat_template = CHATML_WITH_MEDIA.replace("PLACEHOLDER", repr(placeholder)) if placeholder else CHATML
    return made


def llama(family: str) -> Any:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocab, merges = vocabulary()
    raw = Tokenizer(models.BPE(vocab, merges, ignore_merges=True))
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in FAMILIES[family].special])
    begin = "<|begin_of_text|>"
    raw.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, raw.token_to_id(begin))]
    )
    made = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token=begin, eos_token="<|eot_id|>")
    made.chat_template = HEADERS
    return made


TOKENIZERS = ("tiny", *FAMILIES)


@pytest.fixture(scope="session", params=TOKENIZERS)
def encoder(request: pytest.FixtureRequest) -> Encoder:
    """Of the bundled judge, and of each family."""
    if request.param == "tiny":
        return Encoder(AutoTokenizer.from_pretrained(BUNDLED / "tiny-judge"))
    return Encoder(llama(request.param) if request.param.startswith("llama") else qwen(request.param))


@pytest.fixture(scope="session", params=PLACEHOLDERS)
def seeing(request: pytest.FixtureRequest) -> Encoder:
    """Of each family that is shown media, with the tokens around them."""
    tokenizer = qwen(request.param)
    pads = {"qwen2.5-vl": ("<|image_pad|>", "<|video_pad|>"), "qwen2.5-omni": ("<|IMAGE|>", "<|VIDEO|>", "<|AUDIO|>")}
    names = ("image_token_id", "video_token_id", "audio_token_id")
    ids = map(tokenizer.convert_tokens_to_ids, pads[request.param])
    config = SimpleNamespace(**dict(zip(names, ids, strict=False)))
    family = VL if request.param == "qwen2.5-vl" else OMNI
    return Encoder(tokenizer, name=request.param, slots=family.slots(config, tokenizer, name=request.param))
