"""Where the settings of a checkpoint's image, video and sound processors are: beside it, or beside its base model.

Tuning programs often save the model and its tokenizer alone; Flex-Judge's own is one.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from flexreward.engines.families import family_of
from flexreward.errors import JudgeError

FILES = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")


def find_processor(folder: Path, config: Any, given: str | Path | None = None) -> Path:
    """The folder with the settings that go with a checkpoint.

    Args:
        folder: The checkpoint's.
        config: transformers' config of it.
        given: Folder or hub id to take them from instead.

    Raises:
        JudgeError: They are nowhere; one line, with the remedy.
    """
    family = family_of(config)
    if family is None:
        if given is not None:
            raise JudgeError(f"processor: {folder} is a model of text and needs none; leave it out")
        return folder
    if given is None and any((folder / name).is_file() for name in FILES):
        return folder
    found = Path(given or family.base).expanduser()
    if not found.is_dir():
        found = _fetched(str(given or family.base), folder)
    if not any((found / name).is_file() for name in FILES):
        raise JudgeError(f"processor: {found} holds no {FILES[0]}; name the folder or hub id of the base model")
    return found


def processor_identity(folder: Path, processor: Path) -> dict[str, str]:
    """What names settings that are not the checkpoint's own, whose digest would hold them."""
    if processor == folder:
        return {}
    whole = hashlib.sha256()
    for path in (processor / name for name in FILES):
        if path.is_file():
            whole.update(path.name.encode() + path.read_bytes())
    return {"processor": whole.hexdigest()}


def _fetched(name: str, folder: Path) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(FILES)))
    except (LocalEntryNotFoundError, HFValidationError, HfHubHTTPError, OSError) as error:
        raise JudgeError(
            f"{folder}: has no {FILES[0]}, and {name} cannot be fetched; set processor to the folder of the base model"
        ) from error
