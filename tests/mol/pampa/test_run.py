import json
from dataclasses import replace

import pytest

from flexreward.errors import EngineError, JudgeError, RecipeError
from mol.chem.identity import LeakError
from mol.pampa.prepared import prepare
from mol.pampa.recipe import Known
from mol.pampa.run import evaluate
from mol.pampa.told import report_lines, write_report


def knows(smiles: str) -> bool:
    """Whether a molecule is high in truth."""
    return "n" not in smiles.lower()


@pytest.fixture
def engines(molecular, smiles_shown):
    """A model that says high of everything unless it draws, and a judge that knows."""

    class Opened(dict):
        def __call__(self, recipe):
            return self[recipe.model]

    def answers(prompt):
        return ["Thus high.\nFinal answer: High", "Thus low.\nFinal answer: Low", "?", "Thus high.\nFinal answer: High"]

    def judges(prompt):
        says = "Thus high" if knows(smiles_shown(prompt)) else "Thus low"
        right = says in prompt.user
        return f"<think>so</think><answer>{8 if right else 3}</answer>"

    # What the model thinks of a molecule is worth more than its answer, which is always the same.
    chance = {True: 0.9, False: 0.6}
    return Opened(
        m=molecular(answers, chance=lambda smiles: chance[knows(smiles)]), j=molecular(judges, name="the judge")
    )


def rows_of(results):
    return {row["method"]: row for row in results["tasks"]["toy"]["rows"]}


def test_every_method_stands_beside_the_constant_and_the_forest(recipe, engines):
    rows = rows_of(evaluate(prepare(recipe), opens=engines))
    assert list(rows) == ["constant", "forest", "forest, threshold", "greedy", "threshold", "best of 4"]
    assert rows["constant"]["figures"]["accuracy"]["value"] == pytest.approx(28 / 40)
    assert rows["greedy"]["figures"]["accuracy"]["value"] == pytest.approx(28 / 40)
    assert rows["greedy"]["figures"]["balanced_accuracy"]["value"] == 0.5
    assert rows["greedy"]["figures"]["auroc"]["value"] == 1
    assert rows["threshold"]["figures"]["accuracy"]["value"] == 1
    assert rows["best of 4"]["figures"]["accuracy"]["value"] == 1
    assert rows["best of 4"]["unread"] == {"no_answer": 40}
    assert (rows["greedy"]["published"], rows["best of 4"]["published"]) == (60.0, 70.0)


def test_differences_are_paired_and_the_judge_is_looked_at_within_a_label(recipe, engines):
    table = evaluate(prepare(recipe), opens=engines)["tasks"]["toy"]
    found = {(one["first"], one["second"], one["figure"]): one for one in table["differences"]}
    gain = found["m, greedy, plain", "m, best of 4, plain", "balanced_accuracy"]
    assert gain["difference"] == 0.5
    assert gain["low"] > 0
    high, low = table["judge"]
    assert (high["label"], high["right"], high["count"], high["auroc"]["value"]) == ("high", 56, 80, 1)
    assert (low["label"], low["right"], low["count"]) == ("low", 12, 40)
    assert [one["n"] for one in table["curve"]] == [2, 4]


def test_a_rerun_buys_nothing_and_ends_in_the_same_bytes(recipe, engines):
    evaluate(prepare(recipe), opens=engines)
    names = ("results.json", "answers.jsonl", "candidates.jsonl")
    before = [(recipe.out / name).read_bytes() for name in names]
    bought = {name: engine.num_calls for name, engine in engines.items()}
    evaluate(prepare(recipe), opens=engines)
    assert [(recipe.out / name).read_bytes() for name in names] == before
    assert {name: engine.num_calls for name, engine in engines.items()} == bought


def test_what_was_bought_before_a_failure_is_not_bought_again(recipe, engines, molecular):
    working = engines["j"]
    count = 0

    def dies(prompt):
        nonlocal count
        count += 1
        if count > 10:
            raise EngineError("gone")
        return "<think>so</think><answer>5</answer>"

    recipe = recipe.model_copy(
        update={
            "best_of_n": recipe.best_of_n.model_copy(
                update={"judge": recipe.best_of_n.judge.model_copy(update={"max_in_flight": 1})}
            )
        }
    )
    engines["j"] = molecular(dies, name="the judge")
    with pytest.raises(JudgeError, match=r"best_of_n\.judge: j failed: gone"):
        evaluate(prepare(recipe), opens=engines)
    answered = engines["m"].num_calls
    engines["j"] = working
    evaluate(prepare(recipe), opens=engines)
    assert engines["m"].num_calls == answered
    assert working.num_calls == 3 * 40 - 10  # candidates 1 and 4 say the same, and are judged once


def test_a_test_molecule_that_was_trained_on_stops_everything(recipe, tmp_path):
    (tmp_path / "sft.jsonl").write_text(json.dumps({"smiles": "c1ccccc1C"}) + "\n")
    leaking = recipe.model_copy(update={"trained_on": [Known(path=tmp_path / "sft.jsonl")]})
    with pytest.raises(LeakError, match=r"sft\.jsonl: holds c1ccccc1C .* which is the test molecule Cc1ccccc1"):
        prepare(leaking)


def test_an_unknown_task_or_style_is_refused(recipe):
    with pytest.raises(RecipeError, match="--style loud: the recipe has plain"):
        prepare(recipe, styles=["loud"])


def test_a_limit_asks_of_few(recipe, engines):
    prepared = prepare(recipe, limit=1)
    assert (len(prepared.tested), len(prepared.asked)) == (4, 4)
    assert evaluate(prepared, opens=engines)["tasks"]["toy"]["n"] == 4


def test_the_forest_is_kept_until_something_it_follows_from_changes(recipe, monkeypatch):
    from mol.pampa import run

    made = []

    def counted(*parts, **more):
        made.append(parts)
        return run_forest(*parts, **more)

    run_forest = run.forest_scores
    monkeypatch.setattr(run, "forest_scores", counted)
    first = evaluate(prepare(recipe), models=False)
    assert evaluate(prepare(recipe), models=False) == first
    assert len(made) == 1
    evaluate(prepare(recipe.model_copy(update={"seed": 1})), models=False)
    assert len(made) == 2


def test_the_forest_never_sees_what_it_is_asked(recipe):
    from mol.pampa.forest import forest_scores
    from mol.pampa.sources import labels_of

    prepared = prepare(recipe)
    truth = labels_of(prepared.source, "toy", recipe.tasks["toy"])
    fold = prepared.folds[0]
    turned = truth.copy()
    turned[[*fold.test, *fold.valid]] = 1 - turned[[*fold.test, *fold.valid]]
    scores = [
        forest_scores(prepared.source.rows, labels, [fold], recipe.forest, seed=0)[0, list(fold.test)]
        for labels in (truth, turned)
    ]
    assert (scores[0] == scores[1]).all()


def test_the_report_says_what_to_know_and_has_a_picture(recipe, engines):
    prepared = prepare(recipe)
    results = evaluate(prepared, opens=engines)
    text = "\n".join(report_lines(results))
    for part in ("40 test molecules, 30.0 % low", "m, best of 4, plain", "70.00", "40 no_answer", "5 to 10"):
        assert part in text
    write_report(results, recipe.out)
    assert (recipe.out / "toy.png").read_bytes().startswith(b"\x89PNG")
    assert "![toy](toy.png)" in (recipe.out / "report.md").read_text()


def test_folds_that_share_a_molecule_are_asked_once(recipe, engines):
    prepared = prepare(recipe)
    evaluate(replace(prepared, folds=prepared.folds[:2]), opens=engines)
    lines = (recipe.out / "answers.jsonl").read_text().splitlines()
    assert len({json.loads(line)["smiles"] for line in lines}) == len(lines) == 30
