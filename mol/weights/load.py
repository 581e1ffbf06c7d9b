"""Published containers -> our tensors, all accounted for: every key used, or named as left; nothing missing.

hub folder or file     ``encoder.*``, ``llm_proj.*``, ``llm.*``; base weights and graph encoders may stand in it too
DPO, stages 2 and 3    the same behind ``mol_llama.``, in the entry ``state_dict``
stage 1                ``encoder.*`` with the text side of the Q-Former, without projection and LoRA
MoleculeSTM, Uni-Mol   their own files; Uni-Mol's in the entry ``model``
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import get_peft_model, get_peft_model_state_dict
from torch import Tensor
from transformers import LlamaForCausalLM

from flexreward.errors import WeightsError
from mol.config import MolLlamaConfig
from mol.model import MoleculeEncoder, lora_config
from mol.weights import names
from mol.weights.stream import llama_shapes
from mol.weights.tensors import Checkpoint, read

WRAPPED = "mol_llama."
"""What trainers put before every name."""
GRAPH = {"moleculestm": "encoder.graph_encoder.moleculestm.", "unimol": "encoder.graph_encoder.unimol."}
FRESH = ("projection.", "base_model.")
"""Beginnings of our names that stage 1 has not yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a table of names is expected to fill."""

    table: Mapping[str, str]
    """Published name to ours."""
    shapes: Mapping[str, tuple[int, ...]]
    """By our name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one of our tensors is found."""

    checkpoint: Checkpoint
    name: str

    def read(self) -> Tensor:
        return self.checkpoint[self.name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Everything that the published files hold, by part and our name; nothing is in memory yet."""

    molecules: dict[str, Place]
    """Under the names of ``MoleculeEncoder``."""
    lora: dict[str, Place]
    """Under those of PEFT's file."""
    llama: dict[str, Place]
    """Under those of ``LlamaForCausalLM``; empty where the files hold no base weights."""
    fresh: tuple[str, ...]
    """Ours that are in no file, and may begin anew."""
    left: tuple[str, ...]
    """Published names that have no place here."""


def find(
    config: MolLlamaConfig, *, mol: Path, moleculestm: Path | None, unimol: Path | None, fresh: bool = False
) -> Found:
    """Where each of our tensors is, among these files.

    Args:
        mol: Hub folder, or a file of it, or a checkpoint.
        moleculestm: Its file; not needed where ``mol`` holds the encoder.
        unimol: The same.
        fresh: Whether projection and LoRA may be missing, as after stage 1.

    Raises:
        WeightsError: A key is unknown, a part is missing or a shape another; names file, key and remedy.
    """
    parts = _parts(config)
    taken: dict[str, dict[str, Place]] = {name: {} for name in parts}
    left: list[str] = []
    files = [(path, "") for path in _files(mol)]
    files += [(path, name) for path, name in ((moleculestm, "moleculestm"), (unimol, "unimol")) if path is not None]
    for path, only in files:
        _take(read(path), only, parts, taken, left)
    _check_whole(parts, taken, mol, fresh=fresh)
    molecules = {
        **taken["molecules"],
        **{f"encoders.{name}.{ours}": place for name in GRAPH for ours, place in taken[name].items()},
    }
    missing = [ours for part in ("molecules", "lora") for ours in parts[part].shapes if ours not in taken[part]]
    return Found(
        molecules=molecules, lora=taken["lora"], llama=taken["llama"], fresh=tuple(missing), left=tuple(sorted(left))
    )


def _take(
    checkpoint: Checkpoint,
    only: str,
    parts: Mapping[str, Part],
    taken: dict[str, dict[str, Place]],
    left: list[str],
) -> None:
    """Give every tensor of a file its place.

    Args:
        only: The part that the file is of; empty for one of Mol-LLaMA.
    """
    for name in checkpoint:
        part, published = _part_of(name, only)
        ours = parts[part].table.get(published)
        if ours is None:
            if not names.is_left(published) and not names.is_left(name):
                raise WeightsError(f"{checkpoint.path}: {name} has no place in Mol-LLaMA; is the file one of it?")
            left.append(name)
            continue
        shape = parts[part].shapes[ours]
        if checkpoint.shape(name) != shape:
            raise WeightsError(
                f"{checkpoint.path}: {name} is {checkpoint.shape(name)}, expected {shape}; give --config sizes that fit"
            )
        if ours in taken[part]:
            raise WeightsError(f"{checkpoint.path}: {name} is in {taken[part][ours].checkpoint.path} too; name one")
        taken[part][ours] = Place(checkpoint=checkpoint, name=name)


def _part_of(name: str, only: str) -> tuple[str, str]:
    """The part that a tensor is of, and its published name within that."""
    published = name.removeprefix(WRAPPED)
    if only:
        return only, published
    for part, prefix in GRAPH.items():
        if published.startswith(prefix):
            return part, published.removeprefix(prefix)
    if not published.startswith("llm."):
        return "molecules", published
    return ("lora" if ".lora_" in published else "llama"), published


def _check_whole(
    parts: Mapping[str, Part], taken: Mapping[str, Mapping[str, Place]], mol: Path, *, fresh: bool
) -> None:
    remedy = {
        "moleculestm": "give its file with --moleculestm",
        "unimol": "give its file with --unimol",
        "molecules": "fetch the file again, or give --fresh for one of stage 1",
        "lora": "fetch the file again, or give --fresh for one of stage 1",
        "llama": "fetch all files of the folder",
    }
    for part, wanted in parts.items():
        missing = [ours for ours in wanted.shapes if ours not in taken[part]]
        if part == "llama" and not taken[part]:
            continue
        if fresh and all(ours.startswith(FRESH) for ours in missing):
            continue
        if missing:
            theirs = {ours: published for published, ours in wanted.table.items()}
            raise WeightsError(
                f"{mol}: {len(missing)} tensors of {part} are missing, {theirs[missing[0]]} first; {remedy[part]}"
            )


def _files(mol: Path) -> list[Path]:
    """The weights of a hub folder, in safetensors where it has both; or the one file."""
    if mol.is_file():
        return [mol]
    if not mol.is_dir():
        raise WeightsError(f"{mol}: no such file or folder; fetch the hub's DongkiKim/Mol-Llama-3.1-8B-Instruct")
    for pattern in ("*.safetensors", "pytorch_model*.bin", "*.ckpt"):
        if found := sorted(mol.glob(pattern)):
            return found
    raise WeightsError(f"{mol}: no *.safetensors, pytorch_model*.bin or *.ckpt; fetch the hub folder again")


def _parts(config: MolLlamaConfig) -> dict[str, Part]:
    with torch.device("meta"):
        encoder = MoleculeEncoder(config)
        llm = LlamaForCausalLM(config.llm)
        lora = {} if config.lora is None else get_peft_model_state_dict(get_peft_model(llm, lora_config(config)))
    trained = {name: tensor for name, tensor in encoder.state_dict().items() if not name.startswith("encoders.")}
    tables = {
        "molecules": (names.MOLECULES, trained),
        "moleculestm": (names.MOLECULESTM, encoder.encoders["moleculestm"].state_dict()),
        "unimol": (names.UNIMOL, encoder.encoders["unimol"].state_dict()),
        "lora": (names.LORA if lora else {}, lora),
    }
    parts = {
        part: Part(
            table=names.expand(table, config), shapes={name: tuple(tensor.shape) for name, tensor in tensors.items()}
        )
        for part, (table, tensors) in tables.items()
    }
    parts["llama"] = Part(table=names.expand(names.LLAMA, config), shapes=llama_shapes(config.llm))
    return parts
