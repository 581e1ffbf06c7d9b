"""What every published tensor is called here, row by row, and which of them have no place here.

Placeholders, each standing for every value it can take: ``{W}`` weight and bias, ``{S}`` a BatchNorm's five tensors,
``{L}`` layers of the LLaMA, ``{q}`` of the Q-Former, ``{e}`` those of them with cross-attention, ``{b}`` blending
blocks, ``{g}`` layers of MoleculeSTM, ``{u}`` of Uni-Mol, ``{a}`` atom features, ``{f}`` bond features.

Source: DongkiKim95/Mol-LLaMA at 8544da0 (its module names), chao1224/MoleculeSTM, dptech/Uni-Mol-Models.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import product
from string import Formatter

from mol.config import MolLlamaConfig
from mol.encoders.moleculestm import ATOM_ROWS, BOND_ROWS

UNITS = {
    "self_attn_block_2D": "two",
    "self_attn_block_3D": "three",
    # "3D to 2D" in the published name is 2D that reads 3D.
    "cross_attn_block_3Dto2D": "two_from_three",
    "cross_attn_block_2Dto3D": "three_from_two",
}
_UNIT = {
    "attn.in_proj_weight": "attention.in_proj_weight",
    "attn.in_proj_bias": "attention.in_proj_bias",
    "attn.out_proj.{W}": "attention.out_proj.{W}",
    "mlp.0.{W}": "mlp.0.{W}",
    "mlp.2.{W}": "mlp.2.{W}",
    "ln_q.{W}": "norm_query.{W}",
    "ln_k.{W}": "norm_key.{W}",
    "ln_v.{W}": "norm_value.{W}",
    "ln.{W}": "norm_mlp.{W}",
}
_BERT, _BLIP = "encoder.Qformer.bert.encoder.layer", "qformer.encoder.layer"
MOLECULES = {
    "encoder.query_tokens": "queries",
    "encoder.ln_graph.unimol.{W}": "norms.unimol.{W}",
    "encoder.ln_graph.moleculestm.{W}": "norms.moleculestm.{W}",
    "encoder.blending_module.mlp.unimol.0.{W}": "blending.inputs.unimol.{W}",
    "encoder.blending_module.mlp.moleculestm.0.{W}": "blending.inputs.moleculestm.{W}",
    **{
        f"encoder.blending_module.cross_attn_blocks.{{b}}.{theirs}.{name}": f"blending.blocks.{{b}}.{ours}.{renamed}"
        for theirs, ours in UNITS.items()
        for name, renamed in _UNIT.items()
    },
    "encoder.Qformer.bert.embeddings.LayerNorm.{W}": "qformer.layernorm.{W}",
    **{
        f"{_BERT}.{layer}.{block}.{name}.{{W}}": f"{_BLIP}.{layer}.{block}.{renamed}.{{W}}"
        for layer, block in (("{q}", "attention"), ("{e}", "crossattention"))
        for name, renamed in (
            ("self.query", "attention.query"),
            ("self.key", "attention.key"),
            ("self.value", "attention.value"),
            ("output.dense", "output.dense"),
            ("output.LayerNorm", "output.LayerNorm"),
        )
    },
    **{
        f"{_BERT}.{{q}}.{name}.{{W}}": f"{_BLIP}.{{q}}.{name}.{{W}}"
        for name in ("intermediate_query.dense", "output_query.dense", "output_query.LayerNorm")
    },
    "llm_proj.{W}": "projection.{W}",
}
"""Everything of the molecule part that was trained."""
MOLECULESTM = {
    "molecule_node_model.atom_encoder.atom_embedding_list.{a}.weight": "atoms.{a}.weight",
    "molecule_node_model.gnns.{g}.eps": "layers.{g}.eps",
    "molecule_node_model.gnns.{g}.mlp.0.{W}": "layers.{g}.mlp.0.{W}",
    "molecule_node_model.gnns.{g}.mlp.1.{S}": "layers.{g}.mlp.1.{S}",
    "molecule_node_model.gnns.{g}.mlp.3.{W}": "layers.{g}.mlp.3.{W}",
    "molecule_node_model.gnns.{g}.bond_encoder.bond_embedding_list.{f}.weight": "layers.{g}.bonds.{f}.weight",
    "molecule_node_model.batch_norms.{g}.{S}": "layers.{g}.norm.{S}",
}
UNIMOL = {
    "embed_tokens.weight": "embedding.weight",
    "encoder.emb_layer_norm.{W}": "norm_in.{W}",
    "encoder.final_layer_norm.{W}": "norm_out.{W}",
    "encoder.layers.{u}.self_attn.in_proj.{W}": "layers.{u}.qkv.{W}",
    "encoder.layers.{u}.self_attn.out_proj.{W}": "layers.{u}.out.{W}",
    "encoder.layers.{u}.self_attn_layer_norm.{W}": "layers.{u}.norm_attention.{W}",
    "encoder.layers.{u}.fc1.{W}": "layers.{u}.up.{W}",
    "encoder.layers.{u}.fc2.{W}": "layers.{u}.down.{W}",
    "encoder.layers.{u}.final_layer_norm.{W}": "layers.{u}.norm_mlp.{W}",
    "gbf.means.weight": "pairs.means",
    "gbf.stds.weight": "pairs.stds",
    "gbf.mul.weight": "pairs.scale",
    "gbf.bias.weight": "pairs.shift",
    "gbf_proj.linear1.{W}": "pairs.hidden.{W}",
    "gbf_proj.linear2.{W}": "pairs.head.{W}",
}
_ATTENTION, _MLP = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")
_LINEAR = tuple(f"self_attn.{name}" for name in _ATTENTION) + tuple(f"mlp.{name}" for name in _MLP)
_LLM = "llm.base_model.model"
LORA = {
    f"{_LLM}.model.layers.{{L}}.{name}.{side}.default.weight": (
        f"base_model.model.model.layers.{{L}}.{name}.{side}.weight"
    )
    for name in _LINEAR
    for side in ("lora_A", "lora_B")
}
"""Into the names of PEFT's file."""
LLAMA = {
    f"{_LLM}.model.embed_tokens.weight": "model.embed_tokens.weight",
    **{f"{_LLM}.model.layers.{{L}}.{name}.base_layer.weight": f"model.layers.{{L}}.{name}.weight" for name in _LINEAR},
    **{
        f"{_LLM}.model.layers.{{L}}.{name}.weight": f"model.layers.{{L}}.{name}.weight"
        for name in ("input_layernorm", "post_attention_layernorm")
    },
    f"{_LLM}.model.norm.weight": "model.norm.weight",
    f"{_LLM}.lm_head.weight": "lm_head.weight",
}
"""Base weights, where a file holds them."""

LEFT = tuple(
    re.compile(pattern)
    for pattern in (
        r"encoder\.Qformer\.bert\.embeddings\.position_ids",
        # The text side of the Q-Former, which ends with stage 1.
        r"encoder\.Qformer\.cls\..*",
        r"encoder\.Qformer\.bert\.embeddings\.(word|position)_embeddings\..*",
        r"encoder\.Qformer\.bert\.encoder\.layer\.\d+\.(intermediate|output)\..*",
        r"(encoder\.)?(graph_proj|text_proj|gtm_head)\..*",
        # Heads of the encoders' own training.
        r"(encoder\.graph_encoder\.moleculestm\.)?graph_pred_linear\..*",
        r"(encoder\.graph_encoder\.unimol\.)?(lm_head|pair2coord_proj|dist_head|encoder\.final_head_layer_norm)\..*",
        # Computed, in files of older versions of transformers.
        r".*\.rotary_emb\.inv_freq",
    )
)
"""Published tensors that have no place here."""


def is_left(name: str) -> bool:
    """Whether a published tensor is known and has no place here."""
    return any(pattern.fullmatch(name) for pattern in LEFT)


def expand(rows: Mapping[str, str], config: MolLlamaConfig) -> dict[str, str]:
    """Rows of one of the tables above with every placeholder filled in: published name to ours."""
    num_q = config.qformer.num_hidden_layers
    values: dict[str, Iterable[object]] = {
        "W": ("weight", "bias"),
        "S": ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"),
        "L": range(config.llm.num_hidden_layers),
        "q": range(num_q),
        "e": range(0, num_q, config.qformer.cross_attention_frequency),
        "b": range(config.blending.num_hidden_layers),
        "g": range(config.moleculestm.num_hidden_layers),
        "u": range(config.unimol.num_hidden_layers),
        "a": range(len(ATOM_ROWS)),
        "f": range(len(BOND_ROWS)),
    }
    names: dict[str, str] = {}
    for theirs, ours in rows.items():
        letters = sorted({letter for _, letter, _, _ in Formatter().parse(theirs) if letter})
        for chosen in product(*(values[letter] for letter in letters)):
            filled = dict(zip(letters, chosen, strict=True))
            names[theirs.format(**filled)] = ours.format(**filled)
    return names
