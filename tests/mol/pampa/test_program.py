import json
from pathlib import Path

import pytest
import yaml

from flexreward.templates import load_template
from mol.pampa.__main__ import run
from mol.pampa.asking import template_of
from mol.pampa.recipe import load_recipe

RECIPES = Path(__file__).parents[3] / "recipes" / "mol"


def test_the_controls_need_no_model(recipe_file, capsys):
    assert run([str(recipe_file), "--controls"]) == 0
    shown = capsys.readouterr().out
    assert "task toy: 40 test molecules, 30.0 % low" in shown
    assert "forest, threshold" in shown


def test_json_is_one_line_on_stdout(recipe_file, capsys):
    assert run([str(recipe_file), "--controls", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["tasks"]["toy"]["n"] == 40
    assert "task toy" in err


def test_a_check_says_what_would_be_asked(recipe_file, capsys):
    assert run([str(recipe_file), "--check"]) == 0
    assert "40 tested; 40 greedy answers, 160 candidates to draw and to judge; no leak" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modles": {}}, "unknown field 'modles', did you mean 'models'?"),
        ({"styles": {"plain": {"system": "", "user": "no molecule"}}}, "styles.plain.user: shows no molecule"),
        ({"best_of_n": None}, "best_of_n: a model asks for it, and it is missing"),
        ({"split": {"kind": "data"}}, "split: only data of kind json bring their own"),
        ({"published": {}}, "models.m.published: no row 'greedy' in published"),
    ],
)
def test_a_mistake_in_the_recipe_is_one_line_that_names_the_field(recipe_file, capsys, change, message):
    recipe_file.write_text(yaml.safe_dump(yaml.safe_load(recipe_file.read_text()) | change))
    assert run([str(recipe_file)]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1


def test_help_teaches(capsys):
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "--controls" in shown
    assert "paired bootstrap" in " ".join(shown.split())


def test_the_prompts_of_pampa_are_the_published_ones():
    recipe = load_recipe(RECIPES / "pampa.yaml")
    assert list(recipe.styles) == ["default", "rationale", "task_info"]
    assert recipe.styles["default"].system.endswith(
        "'Final answer: High permeability.' or 'Low-to-moderate permeability.'"
    )
    assert "Please provide a rationale for your answer." in recipe.styles["rationale"].user
    judging = recipe.best_of_n.judging
    shipped = load_template("mol-pampa")
    template = template_of("pampa", recipe.best_of_n)
    assert (template.system, template.user, template.scale) == (shipped.system, shipped.user, shipped.scale)
    for i in range(1, 9):
        assert f"\n{i}) " in judging.system
        assert f"\n{i}) " in recipe.styles["task_info"].system
    assert recipe.published["dpo"] == {"default": 76.41, "rationale": 75.92, "task_info": 80.10}
