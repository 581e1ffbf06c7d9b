"""The files of a checkpoint, and the digest that names them. Needs no torch: a server tells weights apart by it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from flexreward.errors import JudgeError

FILES = (
    *("config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json"),
    *("tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt"),
    *("tokenizer.model", "chat_template*"),
    *("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json"),
)
"""What a checkpoint is made of. Nothing else is fetched, read or counted in its digest."""


def digest(folder: Path) -> str:
    """sha256 over the names and bytes of the checkpoint's files."""
    whole = hashlib.sha256()
    for path in sorted({path for pattern in FILES for path in folder.glob(pattern)}):
        with path.open("rb") as file:
            part = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f"{path.name} {part}\n".encode())
    return whole.hexdigest()


def check_whole(folder: Path) -> None:
    """Refuse weights that were cut or are still being written.

    Raises:
        JudgeError: Names the file.
    """
    from safetensors import SafetensorError, safe_open

    if not (folder / "config.json").is_file():
        raise JudgeError(f"{folder.name}: the folder holds no config.json, so it is no saved model")
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="numpy"):
                pass
        except (OSError, SafetensorError) as error:
            raise JudgeError(f"{folder.name}: {path.name} cannot be read ({error}); save it again") from error
