"""What vLLM must be told of checkpoints that it does not know: the thinker of Qwen2.5-Omni alone, and folders without
processor files. Weights are never copied."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from flexreward.engines.checkpoint import Checkpoint

THINKER = "FlexRewardOmniThinker"
PLUGIN, GROUP = "flexreward-models", "vllm.general_plugins"
"""As pyproject.toml names ``register`` to vLLM."""
WHOLE, ALONE = "qwen2_5_omni", "qwen2_5_omni_thinker"


def register() -> None:
    """Tell vLLM of our model classes, none of which is imported by that. vLLM calls it in each of its processes."""
    from vllm import ModelRegistry

    ModelRegistry.register_model(THINKER, "flexreward.engines.vllm_thinker:OmniThinker")


def installed() -> bool:
    """Whether vLLM will find ``register``. Not so where flexreward runs from a folder that was never installed."""
    return any(point.name == PLUGIN for point in entry_points(group=GROUP))


@contextlib.contextmanager
def allowed() -> Iterator[None]:
    """What is started inside calls ``register``, also where VLLM_PLUGINS names all plug-ins that are to be loaded."""
    before = os.environ.get("VLLM_PLUGINS")
    if before is not None:
        os.environ["VLLM_PLUGINS"] = ",".join(filter(None, (*before.split(","), PLUGIN)))
    try:
        yield
    finally:
        if before is not None:
            os.environ["VLLM_PLUGINS"] = before


class View:
    """A checkpoint as vLLM can load it: its own folder, or one of links, with the files that it came without."""

    def __init__(self, checkpoint: Checkpoint, processor: Path) -> None:
        alone = checkpoint.config.model_type == ALONE
        self._made: tempfile.TemporaryDirectory[str] | None = None
        self.folder = checkpoint.folder
        if processor == checkpoint.folder and not alone:
            return
        self._made = tempfile.TemporaryDirectory(prefix="flexreward-")
        self.folder = Path(self._made.name)
        for source in (processor, checkpoint.folder):  # of two files of one name the checkpoint's own stays
            for path in source.iterdir():
                target = self.folder / path.name
                target.unlink(missing_ok=True)
                target.symlink_to(path.absolute())
        if alone:
            (self.folder / "config.json").unlink()
            (self.folder / "config.json").write_text(json.dumps(_whole(checkpoint.folder)))

    def close(self) -> None:
        """Remove the links."""
        if self._made is not None:
            self._made.cleanup()


def _whole(folder: Path) -> dict[str, Any]:
    """The config of a whole model around a thinker's own, as vLLM reads it."""
    thinker = json.loads((folder / "config.json").read_bytes())
    return {
        "architectures": [THINKER],
        "model_type": WHOLE,
        "enable_audio_output": False,
        "thinker_config": thinker,
    }
