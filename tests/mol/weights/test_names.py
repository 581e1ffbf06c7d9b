"""Names and shapes against the tables of the reference (sections 2.1 and 2.2), on full-size modules without memory."""

import pytest
import torch
from peft import get_peft_model_state_dict

from mol.config import MolLlamaConfig
from mol.model import MolLlama
from mol.weights import names

CONFIG = MolLlamaConfig()
UNITS = ("self_attn_block_2D", "self_attn_block_3D", "cross_attn_block_2Dto3D", "cross_attn_block_3Dto2D")
BLOCK = "encoder.blending_module.cross_attn_blocks"
LAYER = "encoder.Qformer.bert.encoder.layer"
LLM = "llm.base_model.model.model.layers"
NODE = "molecule_node_model"


def both(name, weight, bias=None):
    return {f"{name}.weight": weight, f"{name}.bias": bias or weight[:1]}


def batch_norm(name, width):
    rows = {f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}
    return {**rows, f"{name}.num_batches_tracked": ()}


def merged(*rows):
    return {name: shape for row in rows for name, shape in row.items()}


UNIT = merged(
    {"attn.in_proj_weight": (1536, 512), "attn.in_proj_bias": (1536,)},
    both("attn.out_proj", (512, 512)),
    both("mlp.0", (2048, 512)),
    both("mlp.2", (512, 2048)),
    *(both(name, (512,)) for name in ("ln_q", "ln_k", "ln_v", "ln")),
)
MOLECULES = [
    {"encoder.query_tokens": (1, 8, 768)},
    both("encoder.ln_graph.unimol", (512,)),
    both("encoder.ln_graph.moleculestm", (300,)),
    both("encoder.blending_module.mlp.unimol.0", (512, 512)),
    both("encoder.blending_module.mlp.moleculestm.0", (512, 300)),
    *({f"{BLOCK}.{b}.{u}.{name}": shape for name, shape in UNIT.items()} for b in range(4) for u in UNITS),
    both("encoder.Qformer.bert.embeddings.LayerNorm", (768,)),
    *(both(f"{LAYER}.{q}.attention.self.{x}", (768, 768)) for q in range(12) for x in ("query", "key", "value")),
    *(both(f"{LAYER}.{q}.attention.output.dense", (768, 768)) for q in range(12)),
    *(both(f"{LAYER}.{q}.attention.output.LayerNorm", (768,)) for q in range(12)),
    *(both(f"{LAYER}.{e}.crossattention.self.query", (768, 768)) for e in range(0, 12, 2)),
    *(both(f"{LAYER}.{e}.crossattention.self.{x}", (768, 512)) for e in range(0, 12, 2) for x in ("key", "value")),
    *(both(f"{LAYER}.{e}.crossattention.output.dense", (768, 768)) for e in range(0, 12, 2)),
    *(both(f"{LAYER}.{e}.crossattention.output.LayerNorm", (768,)) for e in range(0, 12, 2)),
    *(both(f"{LAYER}.{q}.intermediate_query.dense", (3072, 768)) for q in range(12)),
    *(both(f"{LAYER}.{q}.output_query.dense", (768, 3072)) for q in range(12)),
    *(both(f"{LAYER}.{q}.output_query.LayerNorm", (768,)) for q in range(12)),
    both("llm_proj", (4096, 768)),
]
WIDTHS = {
    "self_attn.q_proj": (4096, 4096),
    "self_attn.o_proj": (4096, 4096),
    "self_attn.k_proj": (1024, 4096),
    "self_attn.v_proj": (1024, 4096),
    "mlp.gate_proj": (14336, 4096),
    "mlp.up_proj": (14336, 4096),
    "mlp.down_proj": (4096, 14336),
}
LORA = [
    {
        f"{LLM}.{i}.{name}.lora_A.default.weight": (8, inside),
        f"{LLM}.{i}.{name}.lora_B.default.weight": (out, 8),
    }
    for i in range(32)
    for name, (out, inside) in WIDTHS.items()
]
LLAMA = [
    *({f"{LLM}.{i}.{name}.base_layer.weight": shape} for i in range(32) for name, shape in WIDTHS.items()),
    *({f"{LLM}.{i}.input_layernorm.weight": (4096,)} for i in range(32)),
    *({f"{LLM}.{i}.post_attention_layernorm.weight": (4096,)} for i in range(32)),
    {"llm.base_model.model.model.embed_tokens.weight": (128258, 4096)},
    {"llm.base_model.model.model.norm.weight": (4096,)},
    {"llm.base_model.model.lm_head.weight": (128258, 4096)},
]
MOLECULESTM = [
    *(
        {f"{NODE}.atom_encoder.atom_embedding_list.{i}.weight": (rows, 300)}
        for i, rows in enumerate((119, 4, 12, 12, 10, 6, 6, 2, 2))
    ),
    *({f"{NODE}.gnns.{g}.eps": (1,)} for g in range(5)),
    *(both(f"{NODE}.gnns.{g}.mlp.0", (600, 300)) for g in range(5)),
    *(batch_norm(f"{NODE}.gnns.{g}.mlp.1", 600) for g in range(5)),
    *(both(f"{NODE}.gnns.{g}.mlp.3", (300, 600)) for g in range(5)),
    *(
        {f"{NODE}.gnns.{g}.bond_encoder.bond_embedding_list.{i}.weight": (rows, 300)}
        for g in range(5)
        for i, rows in enumerate((5, 6, 2))
    ),
    *(batch_norm(f"{NODE}.batch_norms.{g}", 300) for g in range(5)),
]
UNIMOL = [
    {"embed_tokens.weight": (31, 512)},
    both("encoder.emb_layer_norm", (512,)),
    both("encoder.final_layer_norm", (512,)),
    *(both(f"encoder.layers.{i}.self_attn.in_proj", (1536, 512)) for i in range(15)),
    *(both(f"encoder.layers.{i}.self_attn.out_proj", (512, 512)) for i in range(15)),
    *(both(f"encoder.layers.{i}.self_attn_layer_norm", (512,)) for i in range(15)),
    *(both(f"encoder.layers.{i}.fc1", (2048, 512)) for i in range(15)),
    *(both(f"encoder.layers.{i}.fc2", (512, 2048)) for i in range(15)),
    *(both(f"encoder.layers.{i}.final_layer_norm", (512,)) for i in range(15)),
    {"gbf.means.weight": (1, 128), "gbf.stds.weight": (1, 128)},
    {"gbf.mul.weight": (961, 1), "gbf.bias.weight": (961, 1)},
    both("gbf_proj.linear1", (128, 128)),
    both("gbf_proj.linear2", (64, 128)),
]


@pytest.fixture(scope="module")
def whole():
    with torch.device("meta"):
        return MolLlama(CONFIG)


def parts(whole):
    """Table of the reference, table of ours, and our tensors, by part."""
    molecules = whole.molecules.state_dict()
    llama = {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in whole.base.state_dict().items()
        if ".lora_" not in name
    }
    trained = {name: tensor for name, tensor in molecules.items() if not name.startswith("encoders.")}
    return {
        "molecules": (merged(*MOLECULES), names.MOLECULES, trained),
        "moleculestm": (merged(*MOLECULESTM), names.MOLECULESTM, whole.molecules.encoders["moleculestm"].state_dict()),
        "unimol": (merged(*UNIMOL), names.UNIMOL, whole.molecules.encoders["unimol"].state_dict()),
        "lora": (merged(*LORA), names.LORA, get_peft_model_state_dict(whole.llm)),
        "llama": (merged(*LLAMA), names.LLAMA, llama),
    }


@pytest.mark.parametrize("part", ["molecules", "moleculestm", "unimol", "lora", "llama"])
def test_every_published_tensor_has_a_place_of_its_shape_and_no_place_is_left_over(whole, part):
    published, rows, ours = parts(whole)[part]
    table = names.expand(rows, CONFIG)
    assert {name: tuple(ours[table[name]].shape) for name in table} == published
    assert sorted(table.values()) == sorted(ours)


def test_no_row_of_a_table_is_missing_and_no_name_is_given_twice():
    tables = (names.MOLECULES, names.MOLECULESTM, names.UNIMOL, names.LORA, names.LLAMA)
    for table in tables:
        found = names.expand(table, CONFIG)
        assert len(set(found.values())) == len(found)
        assert not any(names.is_left(name) for name in found)


def size(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameters_are_as_many_as_published(whole):
    molecules = whole.molecules
    lora = sum(p.numel() for name, p in whole.llm.named_parameters() if "lora_" in name)
    counts = {
        "blending": size(molecules.blending),
        "Q-Former": size(molecules.qformer),
        "queries": molecules.queries.numel(),
        "norms": size(molecules.norms),
        "projection": size(molecules.projection),
        "LoRA": lora,
    }
    assert counts == {
        "blending": 50_887_680,
        "Q-Former": 96_880_128,
        "queries": 6_144,
        "norms": 1_624,
        "projection": 3_149_824,
        "LoRA": 20_971_520,
    }
    assert sum(counts.values()) == 171_896_920
    assert sum(p.numel() for p in whole.parameters() if p.requires_grad) == 171_896_920
    assert size(molecules.encoders["unimol"]) == 47_330_626
    # The published count has the head of MoleculeSTM's own training in it (300 weights and a bias).
    assert size(molecules.encoders["moleculestm"]) + 301 == 1_885_206


@pytest.mark.parametrize(
    "name",
    [
        "encoder.Qformer.bert.embeddings.position_ids",
        "encoder.Qformer.cls.predictions.bias",
        "encoder.Qformer.bert.embeddings.word_embeddings.weight",
        "encoder.Qformer.bert.encoder.layer.3.intermediate.dense.weight",
        "encoder.Qformer.bert.encoder.layer.3.output.LayerNorm.bias",
        "encoder.graph_proj.weight",
        "graph_pred_linear.weight",
        "pair2coord_proj.linear1.weight",
        "encoder.final_head_layer_norm.weight",
    ],
)
def test_what_is_left_is_known_by_name(name):
    assert names.is_left(name)


@pytest.mark.parametrize("name", ["encoder.Qformer.bert.encoder.layer.3.output_query.dense.weight", "encoder.other"])
def test_nothing_else_is_left(name):
    assert not names.is_left(name)
