"""A model folder or hub id, loaded and named by the digest of its files. No code that a checkpoint brings is run."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import is_flash_attn_2_available, logging

from flexreward.engines.families import family_of
from flexreward.engines.weights import FILES, digest
from flexreward.errors import JudgeError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
ATTENTIONS = ("auto", "eager", "sdpa", "flash_attention_2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A model ready to run."""

    model: Any
    config: Any
    """Of the checkpoint: its model's own may be a part of it."""
    folder: Path
    tokenizer: Any
    name: str
    digest: str
    dtype: str
    attention: str


def load(name: str | Path, *, device: str, dtype: str, attention: str) -> Loaded:
    """Load weights and tokenizer.

    Raises:
        JudgeError: It is not there, no causal language model, or at odds with its tokenizer; one line, with the remedy.
    """
    if attention not in ATTENTIONS:
        raise JudgeError(f"unknown attention '{attention}', expected one of {', '.join(ATTENTIONS)}")
    where = _device(device)
    precision = _dtype(dtype, where)
    folder = find_folder(str(name))
    with _quiet():
        tokenizer = from_pretrained(AutoTokenizer, folder, name)
        config = read_config(folder, name)
        loader, named = _loader(config)
        model, report = from_pretrained(
            loader,
            folder,
            name,
            **named,
            use_safetensors=True,
            dtype=precision,
            attn_implementation=_attention(attention, where, precision),
            output_loading_info=True,
        )
    if missing := sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"]):
        raise JudgeError(
            f"{name}: {len(missing)} weights do not fit its config.json, {missing[0]} first; download it again"
        )
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise JudgeError(
            f"{name}: its tokenizer has {len(tokenizer)} tokens, its model {rows}; they belong to two models"
        )
    return Loaded(
        model=model.to(where).eval(),
        config=config,
        folder=folder,
        tokenizer=tokenizer,
        name=folder.name if Path(name).exists() else str(name),
        digest=digest(folder),
        dtype=str(precision).removeprefix("torch."),
        attention=model.config._attn_implementation,
    )


def read_config(folder: Path, name: str | Path) -> Any:
    """The config of a checkpoint, a thinker's alone included."""
    return from_pretrained(AutoConfig, folder, name)


def _loader(config: Any) -> tuple[Any, dict[str, Any]]:
    """What loads a model of this config, and how its keys are called in a checkpoint of whichever layout."""
    if (family := family_of(config)) is None:
        return AutoModelForCausalLM, {}
    named: dict[str, Any] = {"config": family.thinker(config)}
    if named["config"] is not config or config.model_type.endswith("_thinker"):
        named["key_mapping"] = {r"^thinker\.": ""}
    return getattr(transformers, family.model_class), named


def find_folder(name: str) -> Path:
    """The local folder of a model, fetched from the hub if it has to be."""
    folder = Path(name).expanduser()
    if not folder.exists():
        folder = _fetch(name)
    if not folder.is_dir():
        raise JudgeError(f"{name}: a judge is a folder with config.json, model.safetensors and a tokenizer, not a file")
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            raise JudgeError(f"{name}: this is an adapter; merge it into its base model first (peft: merge_and_unload)")
        raise JudgeError(
            f"{name}: no config.json, so this is no model folder; name the folder that save_pretrained wrote"
        )
    if not any(folder.glob("*.safetensors")):
        found = next((p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".gguf")), "no weights")
        raise JudgeError(f"{name}: {found} where *.safetensors is needed; save it again with save_pretrained")
    return folder


def _fetch(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise JudgeError(f"{name}: no such folder; name a model's folder, or a hub id such as owner/model")
    try:
        return Path(snapshot_download(name, allow_patterns=list(FILES)))
    except HFValidationError as error:
        raise JudgeError(f"{name}: neither a folder here nor a hub id") from error
    except LocalEntryNotFoundError as error:
        raise JudgeError(f"{name}: no such folder here, and the hub cannot be reached; download it first") from error
    except (HfHubHTTPError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise JudgeError(f"{name}: no such folder here, and the hub does not give it: {reason}") from error


def from_pretrained(loader: Any, folder: Path, name: str | Path, **options: Any) -> Any:
    try:
        return loader.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, json.JSONDecodeError) as error:
        line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        what = "tokenizer" if loader is AutoTokenizer else "causal language model"
        raise JudgeError(f"{name}: no {what} that transformers can load from there: {line[:300]}") from error


def _device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise JudgeError(f"unknown device '{device}', expected auto, cpu, cuda or cuda:N") from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise JudgeError("device 'cuda': torch sees no GPU here; leave the device on auto, or see flexreward doctor")
    return found


def _dtype(dtype: str, device: torch.device) -> torch.dtype:
    if dtype == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if dtype not in DTYPES:
        raise JudgeError(f"unknown dtype '{dtype}', expected auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]


def _attention(attention: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """``None`` leaves the choice to transformers: SDPA where the model has it."""
    if attention != "auto":
        return attention
    flash = device.type == "cuda" and dtype != torch.float32 and is_flash_attn_2_available()
    return "flash_attention_2" if flash else None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars of transformers while loading, and no table of keys left unused: commands have their own lines,
    and what is missing is said by ``load``."""
    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
