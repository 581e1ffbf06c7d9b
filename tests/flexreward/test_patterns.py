import pytest
import torch
from transformers import AutoTokenizer

from flexreward.config import BUNDLED
from flexreward.engines.encoding import Encoder
from flexreward.engines.patterns import Patterns
from flexreward.errors import RefusedError

ANSWER = "<answer>(?:10|[1-9])</answer>"


def patterns_of(tokenizer) -> Patterns:
    return Patterns(tokenizer, Encoder(tokenizer), num_tokens=len(tokenizer) + 7, ends={tokenizer.eos_token_id})


def allowed(progress, tokenizer) -> set[int]:
    mask_V = progress.allowed_V(len(tokenizer) + 7, torch.device("cpu"))
    return set(mask_V.nonzero()[:, 0].tolist())


@pytest.fixture(scope="module")
def judges_tokenizer():
    return AutoTokenizer.from_pretrained(BUNDLED / "tiny-judge")


def test_the_end_of_the_turn_is_allowed_exactly_when_the_pattern_is_complete(tokenizer):
    progress = patterns_of(tokenizer).begin("a?b*")
    end = tokenizer.eos_token_id
    a, b = tokenizer.convert_tokens_to_ids(["a", "b"])
    assert allowed(progress, tokenizer) == {a, b, end}
    progress.add(a)
    assert allowed(progress, tokenizer) == {b, end}
    progress = patterns_of(tokenizer).begin("a+b")
    assert allowed(progress, tokenizer) == {a}
    progress.add(a)
    assert allowed(progress, tokenizer) == {a, b}
    progress.add(b)
    assert allowed(progress, tokenizer) == {end}


def test_a_character_may_be_written_byte_by_byte(tokenizer):
    progress = patterns_of(tokenizer).begin("🙂")
    pieces = tokenizer.encode("🙂", add_special_tokens=False)
    assert len(pieces) == 4
    for piece in pieces:
        assert allowed(progress, tokenizer) == {piece}
        progress.add(piece)
    assert allowed(progress, tokenizer) == {tokenizer.eos_token_id}


def test_tags_that_are_tokens_of_the_model_are_let_in_as_what_they_spell(judges_tokenizer):
    progress = patterns_of(judges_tokenizer).begin(ANSWER)
    written = judges_tokenizer.encode("<answer>10</answer>", add_special_tokens=False)
    assert len(written) == 4
    for token in written:
        assert token in allowed(progress, judges_tokenizer)
        progress.add(token)
    assert allowed(progress, judges_tokenizer) == {judges_tokenizer.eos_token_id}


def test_no_special_token_stands_for_the_text_that_it_spells(judges_tokenizer):
    progress = patterns_of(judges_tokenizer).begin(r"<\|im_start\|>")
    assert judges_tokenizer.convert_tokens_to_ids("<|im_start|>") not in allowed(progress, judges_tokenizer)


def test_a_reply_does_not_move_another_one_on(tokenizer):
    patterns = patterns_of(tokenizer)
    first, second = patterns.begin("ab"), patterns.begin("ab")
    before = allowed(second, tokenizer)
    first.add(tokenizer.convert_tokens_to_ids("a"))
    assert allowed(second, tokenizer) == before != allowed(first, tokenizer)


def test_a_pattern_is_refused_in_one_line(tokenizer):
    with pytest.raises(RefusedError, match="is no regular expression") as caught:
        patterns_of(tokenizer).check("[")
    assert "\n" not in str(caught.value)
    with pytest.raises(RefusedError, match="cannot be held to") as caught:
        patterns_of(tokenizer).check("(?=a)")
    assert "\n" not in str(caught.value)
