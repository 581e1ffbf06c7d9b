"""The query path of the published Q-Former, written out, against transformers' with the mapped names."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from mol.config import MolLlamaConfig
from mol.qformer import build_qformer
from mol.weights.names import MOLECULES, expand

CONFIG = MolLlamaConfig.tiny()
BERT = "encoder.Qformer.bert"


@pytest.fixture(scope="module")
def qformer():
    torch.manual_seed(0)
    qformer = build_qformer(CONFIG.qformer).eval()
    for parameter in qformer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return qformer


def published(qformer):
    """Its tensors under their published names."""
    ours = qformer.state_dict()
    names = expand(MOLECULES, CONFIG)
    return {
        theirs: ours[name.removeprefix("qformer.")] for theirs, name in names.items() if name.startswith("qformer.")
    }


def by_the_book(tensors, queries, tokens, mask):
    """Reference section 1.4. Source of the arithmetic: BERT (arXiv 1810.04805), post-LN."""

    def linear(x, name):
        return F.linear(x, tensors[f"{BERT}.{name}.weight"], tensors[f"{BERT}.{name}.bias"])

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], tensors[f"{BERT}.{name}.weight"], tensors[f"{BERT}.{name}.bias"], 1e-12)

    def attention(x, y, name, seen=None):
        heads = CONFIG.qformer.num_attention_heads
        parts = (linear(x, f"{name}.self.query"), linear(y, f"{name}.self.key"), linear(y, f"{name}.self.value"))
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in parts)
        logits = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
        if seen is not None:
            logits = logits.masked_fill(~seen[:, None, None], float("-inf"))
        read = (logits.softmax(-1) @ v).transpose(1, 2).flatten(2)
        return norm(linear(read, f"{name}.output.dense") + x, f"{name}.output.LayerNorm")

    x = norm(queries, "embeddings.LayerNorm")
    for i in range(CONFIG.qformer.num_hidden_layers):
        layer = f"encoder.layer.{i}"
        x = attention(x, x, f"{layer}.attention")
        if i % 2 == 0:
            x = attention(x, tokens, f"{layer}.crossattention", mask)
        inner = F.gelu(linear(x, f"{layer}.intermediate_query.dense"))
        x = norm(linear(inner, f"{layer}.output_query.dense") + x, f"{layer}.output_query.LayerNorm")
    return x


def test_it_is_numerically_the_published_query_path(qformer):
    queries = torch.randn(2, 8, CONFIG.qformer.hidden_size)
    tokens = torch.randn(2, 7, CONFIG.blending.hidden_size)
    mask = torch.arange(7) < torch.tensor([[7], [4]])
    with torch.no_grad():
        ours = qformer(query_embeds=queries, encoder_hidden_states=tokens, encoder_attention_mask=mask)
        book = by_the_book(published(qformer), queries, tokens, mask)
    assert_close(ours.last_hidden_state, book, atol=1e-5, rtol=0)


def test_every_second_layer_has_cross_attention_and_none_has_a_path_for_text(qformer):
    assert [layer.has_cross_attention for layer in qformer.encoder.layer] == [True, False, True]
    assert not any(hasattr(layer, "intermediate") for layer in qformer.encoder.layer)
