"""Conversations with molecules -> what the model reads.

Shapes: B conversations, L tokens of the longest.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from transformers import AutoTokenizer, BatchFeature

from flexreward.engines.loading import from_pretrained
from mol.config import MolLlamaConfig
from mol.frame import MOL, prepare, stretches
from mol.model import find_folder, read_config

if TYPE_CHECKING:
    from mol.batch import MoleculeBatch
    from mol.chem.molecule import Molecule

IGNORED = -100
"""The label of what the assistant did not write."""


class Inputs(BatchFeature):
    """What ``MolLlama`` takes by ``model(**inputs)`` and ``model.generate(**inputs)``."""

    def to(self, device: Any, **options: Any) -> Self:
        """On a device, molecules too; changed in place. Types stay: ids, and angstrom in float32."""
        for name, value in self.items():
            self[name] = value.to(device, **options)
        return self


class MolLlamaProcessor:
    """Tokenizer and molecules of one Mol-LLaMA.

    ``processor(messages, molecules)`` takes one conversation or several, and for each the molecules that it names, in
    reading order. In a user's text ``<mol>`` marks where a molecule stands. No other special token can arise from any
    content, whatever it spells, and ``<mol>`` not from another role's.

    Args:
        tokenizer: A LLaMA-3 tokenizer of transformers; made ready here (see ``mol.frame.prepare``).
        num_queries: Rows of the model's input for a molecule.
        featurise: SMILES or an SDF block to ``Molecule``; by default ``mol.chem.molecule.featurise``.
    """

    def __init__(self, tokenizer: Any, *, num_queries: int = 8, featurise: Any = None) -> None:
        self.tokenizer = prepare(tokenizer)
        self.num_queries = num_queries
        self._featurise = featurise
        self.mol_id = int(tokenizer.convert_tokens_to_ids(MOL))
        self.pad_id = int(tokenizer.pad_token_id)
        # A molecule's queries, as published data write them out in full.
        self._mark = re.compile(f"(?:{re.escape(MOL)}){{{num_queries}}}|{re.escape(MOL)}")

    def __call__(
        self,
        messages: Sequence[dict[str, str]] | Sequence[Sequence[dict[str, str]]],
        molecules: Sequence[Molecule | str] | Sequence[Sequence[Molecule | str]] = (),
        *,
        prefix: str = "",
        labels: bool = False,
    ) -> Inputs:
        """``input_ids`` and ``attention_mask`` (B, L) int64, padded on the left; ``molecules`` of all conversations.

        Args:
            molecules: ``Molecule`` or SMILES; one list a conversation.
            prefix: A started assistant turn, such as ``<think>``.
            labels: Whether to add ``labels`` (B, L) int64: the assistant's tokens, and -100 elsewhere.

        Raises:
            ValueError: A conversation has more or fewer ``<mol>`` than molecules, or a role is unknown.
            MoleculeError: A molecule cannot be read.
        """
        one = bool(messages) and isinstance(messages[0], dict)
        talks: Any = [messages] if one else messages
        shown: Any = [molecules] if one else molecules or [()] * len(talks)
        if len(talks) != len(shown):
            raise ValueError(f"molecules: {len(shown)} lists for {len(talks)} conversations, expected one for each")
        rows, marks = [], []
        for i, (talk, some) in enumerate(zip(talks, shown, strict=True)):
            row = [pair for message in talk for pair in self._encoded(message)]
            found = sum(token == self.mol_id for token, _ in row)
            if found != self.num_queries * len(some):
                raise ValueError(
                    f"conversation {i}: {found // self.num_queries} <mol> for {len(some)} molecules, expected as many"
                )
            row += [(token, False) for token in self._plain(prefix)] if prefix else []
            rows.append(row)
            marks += some
        return self._inputs(rows, self._batch(marks), labels=labels)

    def decode(self, ids: Any) -> list[str]:
        """The text of each row of new tokens, without special tokens."""
        texts: list[str] = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return texts

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the tokenizer where a Mol-LLaMA folder has it, in ``llm/``."""
        self.tokenizer.save_pretrained(Path(folder) / "llm")

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, featurise: Any = None) -> Self:
        """The processor of a Mol-LLaMA folder or hub id.

        Raises:
            JudgeError: It is none, or its tokenizer cannot be loaded.
        """
        found = find_folder(folder)
        config = read_config(found)
        tokenizer = from_pretrained(AutoTokenizer, found / "llm", folder)
        processor = cls(tokenizer, num_queries=config.num_queries, featurise=featurise)
        processor.check(config)
        return processor

    def check(self, config: MolLlamaConfig) -> None:
        """Raises ValueError: ``[PAD]`` or ``<mol>`` is another token for the model."""
        if (self.pad_id, self.mol_id) != config.silenced:
            raise ValueError(
                f"[PAD] and <mol> are tokens {self.pad_id} and {self.mol_id} of the tokenizer, and "
                f"{config.silenced[0]} and {config.silenced[1]} of the model; take the tokenizer in its llm/"
            )

    def _encoded(self, message: dict[str, str]) -> list[tuple[int, bool]]:
        """The message's ids, and whether the assistant writes them."""
        (parts,) = stretches([message])
        ids: list[tuple[int, bool]] = []
        text = ""
        for part in parts:
            if part.kind == "special":
                ids += [(token, part.trained) for token in self._plain(text)]
                ids.append((self.tokenizer.convert_tokens_to_ids(part.text), part.trained))
                text = ""
            elif part.kind == "content" and message["role"] == "user":
                # Text is encoded together with that of the frame which it touches, as the chat template has it.
                head, *rest = self._mark.split(part.text)
                text += head
                for piece in rest:
                    ids += [(token, False) for token in [*self._plain(text), *[self.mol_id] * self.num_queries]]
                    text = piece
            else:
                text += part.text
        return ids + [(token, False) for token in self._plain(text)]

    def _plain(self, text: str) -> list[int]:
        """Ids of text in which nothing is special."""
        if not text:
            return []
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return ids

    def _batch(self, molecules: Sequence[Any]) -> MoleculeBatch | None:
        if not molecules:
            return None
        from mol.batch import collate

        featurise = self._featurise
        if featurise is None:
            from mol.chem.molecule import featurise
        return collate([featurise(one) if isinstance(one, str) else one for one in molecules])

    def _inputs(self, rows: Sequence[list[tuple[int, bool]]], batch: MoleculeBatch | None, *, labels: bool) -> Inputs:
        longest = max(map(len, rows))
        shape = (len(rows), longest)
        ids = torch.full(shape, self.pad_id)
        mask, answers = torch.zeros(shape, dtype=torch.long), torch.full(shape, IGNORED)
        for i, row in enumerate(rows):
            start = longest - len(row)
            ids[i, start:] = torch.tensor([token for token, _ in row])
            mask[i, start:] = 1
            answers[i, start:] = torch.tensor([token if trained else IGNORED for token, trained in row])
        inputs = Inputs({"input_ids": ids, "attention_mask": mask})
        if batch is not None:
            inputs["molecules"] = batch
        if labels:
            inputs["labels"] = answers
        return inputs
