"""Make a Mol-LLaMA folder from the published files: python -m mol.weights OUT --mol ... --llm ... (see --help)."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

from flexreward.engines.loading import from_pretrained
from flexreward.errors import JudgeError, OutputError, UserError, WeightsError
from mol.config import MolLlamaConfig
from mol.frame import MOL, prepare
from mol.model import WEIGHTS, MoleculeEncoder, lora_config
from mol.weights.load import Found, Place, find
from mol.weights.stream import Whole, folder_pieces, joined, llama_shapes, write_folder

TABLES = ("model.embed_tokens.weight", "lm_head.weight")
TEACHES = """\
MOL is the hub folder DongkiKim/Mol-Llama-3.1-8B-Instruct, or a checkpoint of its training (dpo_mol_llama.ckpt, stages 2
and 3; with --fresh also stage 1). The encoders stand in files of their own:

  chao1224/MoleculeSTM    demo/demo_checkpoints_Graph/molecule_model.pth
  dptech/Uni-Mol-Models   mol_pre_no_h_220816.pt

Nothing that stands in a file is run. Every tensor is used, or named as one that has no place here, and a missing one is
an error. The folder is what mol.model, the engines and python -m mol.swap read.

example: python -m mol.weights models/mol-llama --mol hub/Mol-Llama-3.1-8B-Instruct --llm hub/Llama-3.1-8B-Instruct \\
           --moleculestm hub/molecule_model.pth --unimol hub/mol_pre_no_h_220816.pt"""


def make(
    out: Path,
    *,
    mol: Path,
    llm: Path,
    moleculestm: Path | None = None,
    unimol: Path | None = None,
    config: MolLlamaConfig | None = None,
    fresh: bool = False,
) -> Found:
    """Write the folder ``out``; where its tensors came from. All of it or nothing is there.

    Args:
        llm: Folder of the LLaMA that Mol-LLaMA was built on. Its weights count where ``mol`` holds none.
        config: Sizes of the molecule part and of LoRA; by default the published ones. The LLaMA's are its folder's.
        fresh: Begin projection and LoRA anew where ``mol`` has none, as stage 2 does.

    Raises:
        JudgeError: ``llm`` is no LLaMA folder, or its tokenizer another's.
        WeightsError: Files do not hold what they should.
        OutputError: ``out`` is there already, or cannot be written.
    """
    if out.exists():
        raise OutputError(f"{out}: is there already; name a folder that is not")
    if not (llm / "config.json").is_file():
        raise JudgeError(f"{llm}: no config.json; --llm is the folder of Llama-3.1-8B-Instruct")
    tokenizer = prepare(from_pretrained(AutoTokenizer, llm, llm))
    config = _sized(config or MolLlamaConfig(), llm, tokenizer)
    found = find(config, mol=mol, moleculestm=moleculestm, unimol=unimol, fresh=fresh)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error.strerror}); name another folder") from error
    try:
        (made / "llm").mkdir()
        _write_llama(made / "llm", found, llm, config)
        _write_molecules(made, found, config)
        config.architectures = ["MolLlama"]
        config.save_pretrained(made)
        tokenizer.save_pretrained(made / "llm")
        made.chmod(0o755)
        made.rename(out)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error.strerror}); make room or name another folder") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return found


def _sized(config: MolLlamaConfig, llm: Path, tokenizer: Any) -> MolLlamaConfig:
    """The config with the LLaMA of this folder and the two rows more."""
    told = json.loads((llm / "config.json").read_text())
    if told.get("model_type") != "llama":
        raise JudgeError(
            f"{llm}: a model of type {told.get('model_type')}; --llm is the folder of Llama-3.1-8B-Instruct"
        )
    rows = len(tokenizer)
    pad, mark = int(tokenizer.pad_token_id), int(tokenizer.convert_tokens_to_ids(MOL))
    if (pad, mark) != (rows - 2, rows - 1) or told["vocab_size"] not in (rows - 2, rows):
        raise JudgeError(
            f"{llm}: a tokenizer of {rows - 2} tokens and weights of {told['vocab_size']} rows; take one folder's"
        )
    sizes = config.to_dict()
    sizes |= {"llm": told | {"vocab_size": rows, "pad_token_id": pad}, "pad_token_id": pad, "mol_token_id": mark}
    return MolLlamaConfig.from_dict(sizes)


def _write_llama(folder: Path, found: Found, llm: Path, config: MolLlamaConfig) -> None:
    """Config, generation config and weights. New rows are 0: neither is read nor written."""
    shapes = llama_shapes(config.llm)
    tensors: dict[str, Whole]
    if found.llama:
        tensors = {name: Whole(parts=(_Lazy(place),)) for name, place in found.llama.items()}
        files = dict.fromkeys(tensors, WEIGHTS)
    else:
        stored = folder_pieces(llm)
        if missing := sorted(shapes.keys() - stored.keys()):
            raise WeightsError(f"{llm}: {len(missing)} tensors are missing, {missing[0]} first; fetch it again")
        tensors, files = {}, {}
        for name, shape in shapes.items():
            piece = stored[name]
            lacking = shape[0] - piece.shape[0] if name in TABLES else 0
            rest = [torch.zeros(lacking, *shape[1:], dtype=piece.dtype)] if lacking else []
            tensors[name], files[name] = joined(piece, *rest), piece.path.name
            if tensors[name].shape != shape:
                raise WeightsError(f"{llm}: {name} is {piece.shape}, expected {shape}; fetch it again")
    write_folder(folder, tensors, files)
    told = LlamaConfig.from_dict(config.llm.to_dict())
    told.architectures = ["LlamaForCausalLM"]
    told.dtype = str(tensors[TABLES[0]].dtype).removeprefix("torch.")
    told.save_pretrained(folder)
    ends = [told.eos_token_id] if isinstance(told.eos_token_id, int) else told.eos_token_id
    GenerationConfig(
        bos_token_id=told.bos_token_id,
        eos_token_id=ends,
        pad_token_id=config.pad_token_id,
        suppress_tokens=list(config.silenced),
    ).save_pretrained(folder)


class _Lazy:
    """A tensor of a checkpoint as a part of one that is written: read when its turn comes."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.shape = place.checkpoint.shape(place.name)
        self.dtype = place.checkpoint.dtype(place.name)

    def to(self, dtype: torch.dtype) -> Tensor:
        return self._place.read().to(dtype)


def _write_molecules(folder: Path, found: Found, config: MolLlamaConfig) -> None:
    """The molecule part and the adapter, in float32 as they were trained; what is in no file is drawn with seed 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = MoleculeEncoder(config)
    state = encoder.state_dict()
    for name, place in found.molecules.items():
        state[name] = _full(place.read())
    encoder.save(folder, state_dict=state)
    if config.lora is None:
        return
    adapter = {name: _full(place.read()) for name, place in found.lora.items()} or _fresh_adapter(config)
    (folder / "adapter").mkdir()
    save_file({k: v.contiguous() for k, v in adapter.items()}, folder / "adapter" / "adapter_model.safetensors")
    told = lora_config(config)
    told.base_model_name_or_path, told.inference_mode = "llm", True
    told.save_pretrained(folder / "adapter")


def _full(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _fresh_adapter(config: MolLlamaConfig) -> Mapping[str, Tensor]:
    """As PEFT begins one, without the LLaMA in memory: A drawn, B 0."""
    with torch.device("meta"):
        empty = get_peft_model_state_dict(get_peft_model(LlamaForCausalLM(config.llm), lora_config(config)))
    rng = torch.Generator().manual_seed(0)
    made = {name: torch.zeros(tensor.shape) for name, tensor in empty.items()}
    for name, tensor in made.items():
        if ".lora_A." in name:
            bound = tensor.shape[1] ** -0.5
            tensor.uniform_(-bound, bound, generator=rng)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. 0 done, 2 the user's mistake, in one line."""
    parser = argparse.ArgumentParser(
        prog="python -m mol.weights",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Make a Mol-LLaMA folder from the published files.",
        epilog=TEACHES,
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write; must not be there yet")
    parser.add_argument("--mol", type=Path, required=True, help="hub folder, or a checkpoint file")
    parser.add_argument("--llm", type=Path, required=True, help="folder of Llama-3.1-8B-Instruct, with its tokenizer")
    parser.add_argument("--moleculestm", type=Path, help="molecule_model.pth; not needed where MOL holds the encoder")
    parser.add_argument("--unimol", type=Path, help="mol_pre_no_h_220816.pt; the same")
    parser.add_argument("--config", type=Path, help="folder with a config.json of MolLlamaConfig, for other sizes")
    parser.add_argument("--fresh", action="store_true", help="begin projection and LoRA anew where MOL has none")
    given = parser.parse_args(arguments)
    try:
        config = None if given.config is None else MolLlamaConfig.from_pretrained(given.config)
        found = make(
            given.out,
            mol=given.mol,
            llm=given.llm,
            moleculestm=given.moleculestm,
            unimol=given.unimol,
            config=config,
            fresh=given.fresh,
        )
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    used = len(found.molecules) + len(found.lora) + len(found.llama)
    print(f"used {used} tensors; left {len(found.left)}, which have no place: {', '.join(found.left) or 'none'}")
    if found.fresh:
        print(f"begun anew {len(found.fresh)} tensors, {found.fresh[0]} first")
    print(f"wrote {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
