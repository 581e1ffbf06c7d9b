"""Flex-Mol-LLaMA: Mol-LLaMA with nothing but its LLaMA exchanged for a text judge's.

    python -m mol.swap MOL JUDGE OUT

What comes from the judge: every projection, every norm, the LM head and the embeddings. What stays Mol-LLaMA's:
encoders, blending, Q-Former, projection, LoRA (attached and unmerged, so that each targeted matrix is W_judge + 4 B A),
and the rows of ``[PAD]`` and ``<mol>``. The reference has those two rows of the LM head from a random resize; here they
are Mol-LLaMA's, so that the same swap gives the same bytes. They are never written in either.

Source: Flex-Judge (arXiv 2505.18601), appendix B.4; jongwooko/flex-judge at 0e34d5f, lines 90 to 117 of
    example/models/mol_llama.py.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import LlamaConfig

from flexreward.errors import JudgeError, OutputError, UserError, WeightsError
from mol.config import MolLlamaConfig
from mol.model import WEIGHTS, read_config
from mol.weights.stream import Piece, Whole, digest, folder_pieces, joined, llama_shapes, pieces, write_folder

SAME = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "rms_norm_eps",
    "attention_bias",
    "mlp_bias",
    "tie_word_embeddings",
    "rope_parameters",
)
"""Fields in which both LLaMAs must agree: the rest of Mol-LLaMA was trained against them."""
KEPT = ("encoders.moleculestm.", "encoders.unimol.", "norms.", "blending.", "queries", "qformer.", "projection.")
"""The molecule part, by the beginnings of its names."""
ADAPTER = "adapter/adapter_model.safetensors"
TABLES = ("model.embed_tokens.weight", "lm_head.weight")
RECORD = "swap.json"
TEACHES = f"""\
The judge must have been trained (python -m training.judge_sft) from the LLaMA that Mol-LLaMA was built on, and best in
Mol-LLaMA's own chat template, which stands in MOL/llm. Encoders, blending, Q-Former, projection, LoRA and the rows of
[PAD] and <mol> stay Mol-LLaMA's; their digests are compared and written to OUT/{RECORD}. It needs room on the disk for
OUT, and hardly any memory.

example: python -m mol.swap models/mol-llama runs/judge models/flex-mol-llama"""


def swap(mol: str | Path, judge: str | Path, out: str | Path) -> dict[str, Any]:
    """Write the folder ``out``; what was kept, by digest, and whose weights came in. All of it or nothing is there.

    Peak memory is a few megabytes: tensors are copied as bytes.

    Raises:
        JudgeError: A folder is none of those that this needs, or the judge is of another architecture or vocabulary.
        WeightsError: A tensor is missing, too many, of another shape, or changed on the way.
        OutputError: ``out`` is there already, or cannot be written.
    """
    mol, judge, out = (Path(folder).expanduser() for folder in (mol, judge, out))
    config = _mol_config(mol)
    _check_judge(judge, config)
    ours, theirs = folder_pieces(mol / "llm"), _checked(folder_pieces(judge), judge, config)
    _check_tokens(mol, judge, config)
    tensors = {name: _exchanged(name, ours, piece, config) for name, piece in theirs.items()}
    if out.exists():
        raise OutputError(f"{out}: is there already; name a folder that is not")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error.strerror}); name another folder") from error
    try:
        _copy_all_but_the_weights(mol, made)
        write_folder(made / "llm", tensors, {name: piece.path.name for name, piece in theirs.items()})
        _tell_dtype(made / "llm", theirs[TABLES[0]].dtype)
        kept = digests(mol)
        if (after := digests(made)) != kept:
            changed = next(name for name in kept if after.get(name) != kept[name])
            raise WeightsError(f"{out}: {changed} changed on its way from {mol}; check the disk and run it again")
        record = {
            "kept": kept,
            "scale": None if config.lora is None else config.lora.scale,
            "mol_llama": mol.resolve().name,
            "judge": judge.resolve().name,
            "judge_digest": digest(theirs.items()),
        }
        (made / RECORD).write_text(json.dumps(record, indent=2) + "\n")
        made.chmod(0o755)
        made.rename(out)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error.strerror}); make room or name another folder") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return record


def digests(mol: Path) -> dict[str, str]:
    """sha256 of every part of a Mol-LLaMA folder that the swap must not touch."""
    molecules = pieces(mol / WEIGHTS)
    found = {
        part.rstrip("."): digest((name, piece) for name, piece in molecules.items() if name.startswith(part))
        for part in KEPT
    }
    if (mol / ADAPTER).is_file():
        found["lora"] = digest(pieces(mol / ADAPTER).items())
    return found


def _exchanged(name: str, ours: Mapping[str, Piece], judges: Piece, config: MolLlamaConfig) -> Whole:
    if name not in TABLES:
        return joined(judges)
    rows = config.llm.vocab_size
    return joined(judges.rows(0, rows - 2), ours[name].rows(rows - 2, rows))


def _mol_config(mol: Path) -> MolLlamaConfig:
    if not mol.is_dir():
        raise JudgeError(f"{mol}: no folder; MOL is a Mol-LLaMA folder, which python -m mol.weights makes")
    config = read_config(mol)
    for path in (WEIGHTS, "llm/config.json", *(() if config.lora is None else (ADAPTER,))):
        if not (mol / path).is_file():
            raise JudgeError(f"{mol}: no {path}, so this is no whole Mol-LLaMA folder; make it again")
    rows = config.llm.vocab_size
    if config.silenced != (rows - 2, rows - 1):
        raise JudgeError(f"{mol}: [PAD] and <mol> are not the last two of its {rows} tokens; make the folder again")
    return config


def _check_judge(judge: Path, config: MolLlamaConfig) -> None:
    """Raises JudgeError: The judge is no LLaMA of the same architecture and vocabulary."""
    if not judge.is_dir():
        raise JudgeError(f"{judge}: no folder; JUDGE is the folder of a LLaMA that training.judge_sft wrote")
    if (judge / "adapter_config.json").is_file() and not (judge / "config.json").is_file():
        raise JudgeError(f"{judge}: this is an adapter; merge it into its base model first (peft: merge_and_unload)")
    if not (judge / "config.json").is_file():
        raise JudgeError(f"{judge}: no config.json; JUDGE is the folder of a LLaMA that training.judge_sft wrote")
    told = json.loads((judge / "config.json").read_text())
    if told.get("model_type") != "llama":
        raise JudgeError(f"{judge}: a model of type {told.get('model_type')}, expected llama; train the judge from one")
    theirs = LlamaConfig.from_dict(told)
    for field in SAME:
        found, wanted = getattr(theirs, field), getattr(config.llm, field)
        if found != wanted:
            raise JudgeError(
                f"{judge}: {field} is {found}, Mol-LLaMA's is {wanted}; train the judge from the same LLaMA"
            )


def _checked(theirs: dict[str, Piece], judge: Path, config: MolLlamaConfig) -> dict[str, Piece]:
    """The judge's tensors that come in.

    Raises:
        JudgeError: Its vocabulary is another.
        WeightsError: They are not those of such a LLaMA.
    """
    expected = llama_shapes(config.llm)
    found = {name: piece for name, piece in theirs.items() if not name.endswith("rotary_emb.inv_freq")}
    if config.llm.tie_word_embeddings:
        found.pop("lm_head.weight", None)  # the embeddings once more
    if missing := sorted(expected.keys() - found.keys()):
        raise WeightsError(f"{judge}: {len(missing)} tensors are missing, {missing[0]} first; save the whole LLaMA")
    if extra := sorted(found.keys() - expected.keys()):
        raise WeightsError(f"{judge}: {len(extra)} tensors belong to no LLaMA, {extra[0]} first; save the LLaMA alone")
    for name, piece in found.items():
        if name in TABLES:
            _check_rows(name, piece, judge, config)
        elif piece.shape != expected[name]:
            raise WeightsError(f"{judge}: {name} is {piece.shape}, expected {expected[name]}; save the LLaMA again")
    return found


def _check_rows(name: str, piece: Piece, judge: Path, config: MolLlamaConfig) -> None:
    rows, width = config.llm.vocab_size, config.llm.hidden_size
    if piece.shape not in ((rows, width), (rows - 2, width)):
        raise JudgeError(
            f"{judge}: {name} is {piece.shape}, expected {rows} rows as in Mol-LLaMA, or {rows - 2} without [PAD] and "
            "<mol>; train the judge from the same LLaMA, without tokens of its own"
        )


def _check_tokens(mol: Path, judge: Path, config: MolLlamaConfig) -> None:
    """Raises JudgeError: A token of the one is another of the other, so their rows mean different things."""
    from tokenizers import Tokenizer

    vocabularies = []
    for folder in (mol / "llm", judge):
        if not (folder / "tokenizer.json").is_file():
            raise JudgeError(f"{folder}: no tokenizer.json; save the tokenizer beside the weights")
        vocabularies.append(Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab())
    shared = config.llm.vocab_size - 2
    ours, theirs = ({i: token for token, i in one.items() if i < shared} for one in vocabularies)
    for i in sorted(ours.keys() | theirs.keys()):
        if ours.get(i) != theirs.get(i):
            raise JudgeError(
                f"{judge}: token {i} is {theirs.get(i)!r}, Mol-LLaMA's is {ours.get(i)!r}; train the judge from the "
                "same LLaMA, with its tokenizer"
            )


def _tell_dtype(llm: Path, dtype: Any) -> None:
    """Let the config say what the weights are, since transformers loads them as it says."""
    told = json.loads((llm / "config.json").read_text())
    told.pop("torch_dtype", None)
    told["dtype"] = str(dtype).removeprefix("torch.")
    (llm / "config.json").write_text(json.dumps(told, indent=2, sort_keys=True) + "\n")


def _copy_all_but_the_weights(mol: Path, made: Path) -> None:
    def weights(folder: str, names: Sequence[str]) -> set[str]:
        inside = Path(folder) == mol / "llm"
        return {name for name in names if inside and ".safetensors" in name} | ({RECORD} & set(names))

    shutil.copytree(mol, made, ignore=weights, dirs_exist_ok=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. 0 done, 2 the user's mistake, in one line."""
    parser = argparse.ArgumentParser(
        prog="python -m mol.swap",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Make a molecular judge: exchange the LLaMA of a Mol-LLaMA for that of a text judge.",
        epilog=TEACHES,
    )
    parser.add_argument("mol", type=Path, metavar="MOL", help="Mol-LLaMA folder, as python -m mol.weights writes it")
    parser.add_argument("judge", type=Path, metavar="JUDGE", help="folder of the text judge: a LLaMA in safetensors")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write; must not be there yet")
    given = parser.parse_args(arguments)
    try:
        record = swap(given.mol, given.judge, given.out)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    for part, name in record["kept"].items():
        print(f"kept {part:22} sha256 {name[:16]}")
    print(f"LLaMA of {record['judge']:13} sha256 {record['judge_digest'][:16]}")
    print(f"wrote {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
