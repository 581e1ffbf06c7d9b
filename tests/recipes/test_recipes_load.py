from pathlib import Path

import pytest
import yaml

from flexreward.config import load_recipe
from flexreward.serving.recipe import load_serve_recipe
from mol.pampa.recipe import load_recipe as load_task
from training.recipe import DpoRecipe, GrpoRecipe, RoundsRecipe, SftRecipe, load

ROOT = Path(__file__).parents[2]
MANIFESTS = {"rayservice.yaml"}
"""For Kubernetes; they have tests of their own."""
RECIPES = sorted(path for path in (ROOT / "recipes").rglob("*.yaml") if path.name not in MANIFESTS)
TASKS = {"pampa.yaml", "bbbp.yaml", "herg.yaml"}
"""Of ``mol.pampa``."""
PROGRAMS = {"sft": SftRecipe, "dpo": DpoRecipe, "rounds": RoundsRecipe, "grpo": GrpoRecipe}
"""Training recipes by the first word of their name, or by their folder. Every other recipe describes a judge."""


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_recipe_loads(path):
    if path.parent.name == "serve":
        assert load_serve_recipe(path).judges
        return
    if path.name in TASKS:
        assert load_task(path).styles
        return
    kind = PROGRAMS.get(path.stem.partition("_")[0]) or PROGRAMS.get(path.parent.name)
    recipe = load(path, kind) if kind else load_recipe(path)
    asked = yaml.safe_load(path.read_text())
    assert asked.keys() <= recipe.model_dump().keys()
    if asked.get("deepspeed"):
        assert (ROOT / asked["deepspeed"]).is_file()


def test_there_are_recipes_to_load():
    assert {"qwen2.5-7b_4gpu.yaml", "llama-3.1-8b_lora.yaml"} <= {path.name for path in RECIPES}
