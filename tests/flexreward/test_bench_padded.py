"""The bundled judge in larger heads is the same judge."""

import pytest
import torch
from transformers import Qwen2ForCausalLM

from flexreward.bench.padded import padded
from flexreward.config import resolve_judge


@pytest.mark.parametrize("head_size", [64, 80])
def test_a_judge_in_larger_heads_has_the_same_logits(tmp_path, head_size):
    tiny = resolve_judge("tiny").model
    old = Qwen2ForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    new = Qwen2ForCausalLM.from_pretrained(padded(tiny, tmp_path / "m", head_size=head_size), dtype=torch.float32)
    ids_BT = torch.randint(0, old.config.vocab_size, (2, 300), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(new(ids_BT).logits, old(ids_BT).logits, rtol=1e-4, atol=1e-3)
    assert new.config.hidden_size == head_size * old.config.num_attention_heads


def test_heads_that_share_keys_stay_with_their_own(tmp_path, make_checkpoint):
    shape = {"hidden_size": 192, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2}
    few = make_checkpoint("few", **shape)
    old = Qwen2ForCausalLM.from_pretrained(few, dtype=torch.float32)
    new = Qwen2ForCausalLM.from_pretrained(padded(few, tmp_path / "m"), dtype=torch.float32)
    ids_BT = torch.arange(1, 101)[None]
    with torch.inference_mode():
        torch.testing.assert_close(new(ids_BT).logits, old(ids_BT).logits, rtol=1e-4, atol=1e-3)
