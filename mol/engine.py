"""Mol-LLaMA as an engine: its LLaMA on transformers or vLLM, and in front the encoders that turn molecules into rows.

    engine: mol.engine:MolLlamaEngine        # in a recipe; model: a folder that mol.weights, mol.swap or training wrote
    options: {llm: vllm}

A molecule enters the LLaMA as prompt embeddings, so that the engine behind needs no code of Mol-LLaMA: it runs ``llm/``
with the adapter in ``adapter/``, as any other LLaMA. torch and RDKit are imported when an engine is made.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

from flexreward.engines import Apart, load_engine
from flexreward.engines.base import CountingEngine, Embeddings, Engine, Placed, Prompt, Sampling
from flexreward.errors import JudgeError, RecipeError
from flexreward.types import Molecule, Reply

LLMS = ("transformers", "vllm")


class MolLlamaEngine:
    """Runs a Mol-LLaMA folder; see the Engine protocol. What an unreadable molecule stands in is refused by its name.

    Judges and policies of one process that have the same molecule part share its encoders and their queries, whatever
    their LLaMAs: a molecule that one of them was shown costs the others nothing.

    Args:
        model: Folder of a Mol-LLaMA, or its hub id.
        llm: What runs the LLaMA: ``transformers``, which merges the adapter into the weights, or ``vllm``, which
            applies it beside them.
        merged: With vLLM, merge the adapter into a copy of the LLaMA first (on disk, as large as the LLaMA), for a
            build of vLLM that serves no LoRA beside prompt embeddings.
        encoder_device: ``auto`` is the GPU where there is one; with vLLM on it leave the encoders some memory
            (``engine_args: {gpu_memory_utilization: 0.8}``).
        encoder_batch: Molecules in one forward of the encoders.
        conformers: Folder for the conformers that were made, shared by as many processes as like; by default none are
            kept on disk.
        workers: Processes that make conformers; by default one a core.
        seed: Of the conformers.
        behind: The engine that runs the LLaMA, where it runs elsewhere (see ``behind_it``).
        options: Of the engine that runs the LLaMA, such as ``dtype``, ``batch_size`` or ``engine_args``.

    Raises:
        JudgeError: It is no Mol-LLaMA folder, or a part of it cannot be loaded.
        RecipeError: An option is unknown, or ``llm`` is.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        llm: Literal["transformers", "vllm"] = "transformers",
        merged: bool = False,
        encoder_device: str = "auto",
        encoder_batch: int = 32,
        conformers: str | Path | None = None,
        workers: int | None = None,
        seed: int = 0,
        behind: Engine | None = None,
        **options: Any,
    ) -> None:
        from mol.model import find_folder
        from mol.queries import Hold

        self._folder = find_folder(model)
        name = self._folder.name if Path(model).exists() else str(model)
        self._hold = Hold(
            self._folder,
            device=encoder_device,
            batch_size=encoder_batch,
            cache=conformers,
            workers=workers,
            seed=seed,
        )
        self.queries = self._hold.queries
        self._made: tempfile.TemporaryDirectory[str] | None = None
        try:
            self._llm = behind or self._opened(llm, merged=merged, **options)
            if not self._llm.can.prompt_embeddings:
                raise RecipeError(f"llm: the engine {self._llm.identity['engine']} takes no prompt embeddings")
            self.queries.now(["C"])  # the first one starts processes
        except BaseException:
            self._hold.release()
            raise
        self.can = replace(self._llm.can, modalities=self._llm.can.modalities | {"molecule"})
        self.identity = {**self._llm.identity, "model": name, **self._hold.identity}

    @classmethod
    def behind_it(cls, model: str, *, llm: str = "transformers", merged: bool = False, **options: Any) -> Apart | None:
        """For a server, the encoders in front of copies of vLLM; ``None`` on transformers, where both are one.

        Raises:
            RecipeError: ``merged`` is set, which a server does not do.
        """
        if llm != "vllm":
            return None
        if merged:
            raise RecipeError("merged: a server runs the LLaMA as it lies on disk; merge the adapter into it first")
        from mol.model import find_folder

        folder = find_folder(model)
        own = {name: options.pop(name) for name in ENCODER_OPTIONS if name in options}
        fields: dict[str, Any] = {"model": str(folder / "llm"), "engine": "vllm"}
        if (adapter := _adapter(folder)) is not None:
            fields["lora"] = str(adapter)
        return Apart(fields | {"options": {**options, "prompt_embeddings": True}}, own)

    @property
    def max_context(self) -> int:
        """Tokens of prompt and reply together."""
        return cast(CountingEngine, self._llm).max_context

    def count_tokens(self, prompt: Prompt) -> int:
        """How many rows the LLaMA reads; a molecule has as many as there are queries, and is not looked at."""
        blank = tuple(one._replace(media=self._blank) if _is_molecule(one) else one for one in prompt.media)
        return cast(CountingEngine, self._llm).count_tokens(replace(prompt, media=blank))

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncIterator[Reply]:
        shown = await self._shown(prompt)
        async with aclosing(cast(Any, self._llm.generate(shown, sampling))) as replies:
            async for reply in replies:
                yield reply

    async def close(self) -> None:
        await self._llm.close()
        await asyncio.to_thread(self._hold.release)
        if self._made is not None:
            self._made.cleanup()

    async def _shown(self, prompt: Prompt) -> Prompt:
        """The prompt with rows in place of molecules."""
        molecules = [one.media for one in prompt.media if isinstance(one.media, Molecule)]
        if not molecules:
            return prompt
        waiting = [asyncio.wrap_future(one) for one in self.queries.begin([one.smiles for one in molecules])]
        found = await asyncio.gather(*waiting, return_exceptions=True)
        for one in found:
            if isinstance(one, BaseException):
                # Raised anew: the same error may be raised to others who asked for this molecule.
                raise type(one)(*one.args)
        rows = iter(cast(list[Embeddings], found))
        return replace(
            prompt,
            media=tuple(one._replace(media=next(rows)) if _is_molecule(one) else one for one in prompt.media),
        )

    def _opened(self, llm: str, *, merged: bool, **options: Any) -> Engine:
        if llm not in LLMS:
            raise RecipeError(f"llm: {llm!r} is unknown, expected one of {', '.join(LLMS)}")
        for name in ("model", "lora", "prompt_embeddings"):
            if name in options:
                raise RecipeError(f"options: {name} is set by the folder's own llm/ and adapter/; leave it out")
        folder, adapter = self._folder / "llm", _adapter(self._folder)
        if not folder.is_dir():
            raise JudgeError(f"{self._folder}: no llm/, which holds the LLaMA")
        if llm == "vllm" and merged and adapter is not None:
            folder, adapter = self._merged(folder, adapter), None
        named = {} if adapter is None else {"lora": adapter}
        rows = {"prompt_embeddings": True} if llm == "vllm" else {}
        return load_engine(llm, model=folder, **named, **rows, **options)

    def _merged(self, llm: Path, adapter: Path) -> Path:
        """A folder of the LLaMA with the adapter in its weights."""
        from transformers import AutoModelForCausalLM

        from flexreward.engines.adapter import Adapter
        from flexreward.engines.weights import FILES

        self._made = tempfile.TemporaryDirectory(prefix="mol-llama-")
        folder = Path(self._made.name)
        model = AutoModelForCausalLM.from_pretrained(llm, dtype="auto", local_files_only=True)
        Adapter(adapter).merged(model).save_pretrained(folder)
        for path in {path for pattern in FILES for path in llm.glob(pattern)}:
            if not (folder / path.name).exists() and path.suffix != ".safetensors":
                (folder / path.name).symlink_to(path.absolute())
        return folder

    @cached_property
    def _blank(self) -> Embeddings:
        import numpy as np

        return Embeddings(rows_TD=np.zeros((self.queries.num_queries, self.queries.width), dtype=np.float32))


ENCODER_OPTIONS = ("encoder_device", "encoder_batch", "conformers", "workers", "seed")


def _adapter(folder: Path) -> Path | None:
    path = folder / "adapter"
    return path if (path / "adapter_config.json").is_file() else None


def _is_molecule(placed: Placed) -> bool:
    return isinstance(placed.media, Molecule)
