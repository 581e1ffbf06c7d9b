"""A task small enough for a script to answer, with an engine that is shown molecules."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from math import log
from pathlib import Path
from typing import Any

import pytest
import yaml

from flexreward.engines.base import Capabilities, Prompt, Sampling
from flexreward.engines.scripted import ScriptedEngine
from flexreward.types import Molecule, Reply, TokenLogprob
from mol.pampa.recipe import Recipe, parse_recipe

DATA = Path(__file__).parents[4] / "shared" / "data"
RINGS = (
    "c1ccccc1",
    "c1ccncc1",
    "C1CCCCC1",
    "c1ccoc1",
    "c1ccsc1",
    "C1CCNCC1",
    "C1CCOCC1",
    "c1cnccn1",
    "C1CC1",
    "C1CCC1",
)
MOLECULES = [f"{'C' * n}{ring}" for ring in RINGS for n in (1, 2, 3, 4)]


class Molecular(ScriptedEngine):
    """Shown molecules, continues a started turn, reports log-probabilities where they are asked for.

    ``chance`` is the probability of the positive label after ``Final answer:``.
    """

    can = Capabilities(token_ids=True, prefix=True, logprobs=True, modalities=frozenset({"text", "molecule"}))

    def __init__(self, script: Any, *, chance: Callable[[str], float] = lambda smiles: 0.5, name: str = "m") -> None:
        super().__init__(script, name=name)
        self.chance = chance
        self.prompts: list[Prompt] = []

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncIterator[Reply]:
        self.prompts.append(prompt)
        if sampling.logprobs:
            self.num_calls += 1
            high = self.chance(shown(prompt))
            pair = sorted(((" High", log(high)), (" Low", log(1 - high))), key=lambda one: -one[1])
            text, logprob = pair[0]
            token = TokenLogprob(text=text, logprob=logprob, top=tuple(pair))
            yield Reply(text=prompt.prefix + text, logprobs=(token,))
            return
        async for reply in super().generate(prompt, sampling):
            yield reply


def shown(prompt: Prompt) -> str:
    (placed,) = prompt.media
    assert isinstance(placed.media, Molecule)
    return placed.media.smiles


@pytest.fixture
def shared_data() -> Path:
    """Real files, which lie beside the repository only where they were copied."""
    if not DATA.exists():
        pytest.skip("the real data lies beside the repository only where copied")
    return DATA


@pytest.fixture
def molecular() -> type[Molecular]:
    return Molecular


@pytest.fixture
def smiles_shown() -> Callable[[Prompt], str]:
    return shown


@pytest.fixture
def fields(tmp_path: Path) -> dict[str, Any]:
    """A recipe of 40 molecules, those with a nitrogen low."""
    lines = [f"{smiles},{'low' if re.search('[nN]', smiles) else 'high'}" for smiles in MOLECULES]
    (tmp_path / "data.csv").write_text("\n".join(["smiles,label", *lines]) + "\n")
    return {
        "name": "toy",
        "data": {"path": str(tmp_path / "data.csv")},
        "tasks": {"toy": {"column": "label", "positive": ["high"], "negative": ["low"]}},
        "split": {"kind": "kfold", "folds": 4, "seed": 3},
        "labels": {
            "positive": {"name": "high", "text": "High", "published": ["high"]},
            "negative": {"name": "low", "text": "Low", "published": ["low"]},
        },
        "styles": {"plain": {"system": "You know.", "user": "How is it?\nMolecule <mol>."}},
        "models": {"m": {"model": "m", "engine": "scripted", "best_of_n": True, "published": "greedy"}},
        "best_of_n": {
            "candidates": 4,
            "n": [2, 4],
            "trials": 3,
            "judge": {"model": "j", "engine": "scripted"},
            "judging": {"system": "Judge.", "user": "Molecule <mol>.\n{completion}", "bins": [5.0]},
        },
        "forest": {"trees": 5, "bits": 64},
        "published": {"greedy": {"plain": 60.0}, "best_of_n": {"plain": 70.0}},
        "out": str(tmp_path / "out"),
    }


@pytest.fixture
def recipe(fields: dict[str, Any]) -> Recipe:
    return parse_recipe(fields, "toy.yaml")


@pytest.fixture
def recipe_file(fields: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump(fields))
    return path
