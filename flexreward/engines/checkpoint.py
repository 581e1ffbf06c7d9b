"""What an engine must know of a checkpoint whose weights another program loads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, GenerationConfig

from flexreward.engines.loading import find_folder, from_pretrained, read_config
from flexreward.engines.weights import digest
from flexreward.errors import JudgeError


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A model's folder, read but not loaded."""

    folder: Path
    name: str
    config: Any
    """transformers' own."""
    digest: str
    """sha256 over names and bytes of its files."""
    tokenizer: Any
    ends: frozenset[int]
    """The tokens that end a turn: what the generation config, the model's and the tokenizer each call so."""
    silenced: tuple[int, ...]
    """Tokens that are never written, and that log-probabilities leave out: the generation config's ``suppress_tokens``.
    """
    max_context: int
    """Tokens of prompt and reply together."""


def read_checkpoint(name: str | Path) -> Checkpoint:
    """Read the folder or hub id that ``name`` is.

    Raises:
        JudgeError: It is not there, or model and tokenizer do not fit each other; one line, with the remedy.
    """
    folder = find_folder(str(name))
    tokenizer = from_pretrained(AutoTokenizer, folder, name)
    config = read_config(folder, name)
    text = config.get_text_config()
    rows = text.vocab_size
    if len(tokenizer) > rows:
        raise JudgeError(
            f"{name}: its tokenizer has {len(tokenizer)} tokens, its model {rows}; they belong to two models"
        )
    found = [text.eos_token_id, tokenizer.eos_token_id]
    silenced = None
    if (folder / "generation_config.json").is_file():
        generation = GenerationConfig.from_pretrained(folder, local_files_only=True)
        found.append(generation.eos_token_id)
        silenced = generation.suppress_tokens
    return Checkpoint(
        folder=folder,
        name=folder.name if Path(name).exists() else str(name),
        config=config,
        digest=digest(folder),
        tokenizer=tokenizer,
        ends=frozenset(i for ids in found if ids is not None for i in (ids if isinstance(ids, list) else [ids])),
        silenced=tuple(silenced or ()),
        max_context=getattr(text, "max_position_embeddings", None) or 2**15,
    )
