"""A LoRA adapter over a judge's weights, as peft saves it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from flexreward.errors import JudgeError


class Adapter:
    """The folder of one.

    Raises:
        JudgeError: It is none; names the file that is not there.
    """

    def __init__(self, folder: Path) -> None:
        config, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
        for path in (config, weights):
            if not path.is_file():
                raise JudgeError(f"{folder}: no {path.name}; name the folder that peft's save_pretrained wrote")
        self.folder = folder
        told = json.loads(config.read_text())
        self.rank = max(int(told["r"]), *(told.get("rank_pattern") or {}).values(), 0)
        """The largest of any layer."""
        self.digest = hashlib.sha256(config.read_bytes() + weights.read_bytes()).hexdigest()

    @property
    def layers(self) -> list[str]:
        """The last names of the layers that it adapts, such as ``q_proj``."""
        from safetensors import safe_open

        with safe_open(self.folder / "adapter_model.safetensors", framework="numpy") as file:
            names = [name.partition(".lora_")[0] for name in file.keys() if ".lora_" in name]  # noqa: SIM118
        return sorted({name.rpartition(".")[2] for name in names})

    def request(self) -> Any:
        """What vLLM is told with each prompt."""
        from vllm.lora.request import LoRARequest

        return LoRARequest(lora_name="judge", lora_int_id=1, lora_path=str(self.folder.absolute()))

    def merged(self, model: Any) -> Any:
        """The model with the adapter in its weights.

        Raises:
            JudgeError: peft is not installed, or the adapter is of another model.
        """
        try:
            from peft import PeftModel
        except ImportError as error:
            from flexreward.health import extra_command

            raise JudgeError(f"{self.folder}: an adapter needs peft; {extra_command('train')}") from error
        try:
            return PeftModel.from_pretrained(model, self.folder).merge_and_unload()
        except (ValueError, RuntimeError, KeyError) as error:
            line = str(error).strip().splitlines()[0][:200]
            raise JudgeError(f"{self.folder}: this adapter is of another model ({line})") from error
