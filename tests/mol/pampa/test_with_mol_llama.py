import json

from mol.pampa.prepared import prepare
from mol.pampa.recipe import parse_recipe
from mol.pampa.run import evaluate


def test_a_mol_llama_answers_and_judges_by_its_recipe_alone(fields, mol_folder):
    run = {"model": str(mol_folder), "engine": "mol.engine:MolLlamaEngine", "options": {"workers": 1}}
    fields["models"] = {"m": run | {"best_of_n": True}}
    fields["answers"] = {"max_tokens": 4}
    fields["best_of_n"] |= {"candidates": 2, "n": [2], "judge": run}
    fields["best_of_n"]["judging"]["max_tokens"] = 4
    recipe = parse_recipe(fields, "toy.yaml")
    table = evaluate(prepare(recipe, limit=1))["tasks"]["toy"]
    rows = {row["method"]: row for row in table["rows"]}
    assert rows["greedy"]["figures"]["parse_rate"]["value"] == 0  # four random tokens
    assert rows["best of 2"]["candidates"] == 8
    lines = (recipe.out / "candidates.jsonl").read_text().splitlines()
    assert len([json.loads(line)["reply"] for line in lines]) == 8
