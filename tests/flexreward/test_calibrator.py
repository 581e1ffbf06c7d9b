import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexreward.calibrator import Calibrator, load_calibrator, refuse_other, save_calibrator
from flexreward.cli import run as command
from flexreward.config import JudgeRecipe, load_recipe, open_judge
from flexreward.engines.base import Sampling
from flexreward.engines.scripted import ScriptedEngine
from flexreward.engines.scripts import longer
from flexreward.errors import OutputError, RecipeError
from flexreward.files.outcome_file import OutcomeFile
from flexreward.files.outcomes import Item, header_of, read_outcomes
from flexreward.jobs.run import judge_to_file
from flexreward.judge import Judge
from flexreward.reward import reward, rewards
from flexreward.templates import load_template
from flexreward.types import JudgeRequest

STEPS = Calibrator(over="margin", kind="isotonic", knots=((-4.0, 0.1), (-1.0, 0.4), (1.0, 0.6), (4.0, 0.9)))
CURVE = Calibrator(over="margin", kind="platt", slope=0.5)
RATING = Calibrator(over="score", kind="isotonic", knots=((2.0, 0.25), (8.0, 1.0)))
PAIR = JudgeRequest(id="q", prompt="2+2?", completions=("four, of course", "5"))
MARGIN = st.floats(-20, 20)


@pytest.mark.parametrize("curve", [STEPS, CURVE, RATING], ids=["steps", "logistic", "rating"])
@given(one=MARGIN, other=MARGIN)
def test_a_higher_score_never_means_a_lower_probability(curve, one, other):
    assert 0 <= curve(one) <= 1
    assert one > other or curve(one) <= curve(other)


@pytest.mark.parametrize("curve", [STEPS, CURVE], ids=["steps", "logistic"])
@given(st.lists(st.floats(1, 10), min_size=2, max_size=5))
def test_the_odds_of_all_completions_sum_to_an_even_match(curve, scores):
    found = curve.rewards(scores)
    assert sum(found) == pytest.approx(len(scores) / 2)
    best = max(zip(scores, found, strict=True))
    assert best[1] == max(found)


def test_between_knots_it_is_straight_and_outside_level():
    assert [STEPS(x) for x in (-9, -4, 0, 2.5, 4, 9)] == pytest.approx([0.1, 0.1, 0.5, 0.75, 0.9, 0.9])
    assert RATING.rewards([5]) == (0.625,)


def test_a_great_margin_overflows_nothing():
    assert (CURVE(1e6), CURVE(-1e6)) == (1.0, 0.0)


def test_what_is_saved_is_what_is_loaded(tmp_path):
    for curve in (STEPS, CURVE, replace(RATING, judge={"model": "m"}, benchmark="pandalm", n=7, date="2026-11-21")):
        save_calibrator(curve, tmp_path / "c.json")
        assert load_calibrator(tmp_path / "c.json") == curve
        assert load_calibrator(tmp_path / "c.json").digest == curve.digest


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("{", "is no JSON"),
        ("[]", "is no calibrator of this version"),
        ('{"flexreward_calibrator": 2}', "is no calibrator of this version"),
        ({"knots": [[1, 0.5], [1, 0.6]]}, "is damaged (its curve falls)"),
        ({"knots": [[1, 0.6], [2, 0.5]]}, "is damaged (its curve falls)"),
        ({"knots": [[1, 0.6], [2, 1.5]]}, "is damaged (its curve leaves [0, 1]"),
        ({"knots": []}, "is damaged (no knots)"),
        ({"knots": "x"}, "is damaged"),
        ({"kind": "pickle"}, "pickle over margin is unknown"),
        ({"kind": "platt", "slope": -1}, "is damaged"),
        ({"surprise": 1}, "is damaged"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path, change, found):
    path = tmp_path / "c.json"
    save_calibrator(STEPS, path)
    path.write_text(change if isinstance(change, str) else json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(RecipeError) as error:
        load_calibrator(path)
    assert found in str(error.value)
    assert str(error.value).startswith(f"calibrator {path}")
    assert "\n" not in str(error.value)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(RecipeError, match="No such file or directory; flexreward eval"):
        load_calibrator(tmp_path / "none.json")


async def test_rewards_of_a_calibrated_judge_are_probabilities_and_its_scores_stay():
    plain = await Judge(ScriptedEngine(longer), load_template("pair")).judge(PAIR)
    calibrated = await Judge(ScriptedEngine(longer), load_template("pair"), calibrator=CURVE).judge(PAIR)
    assert calibrated.outcome == plain.outcome
    assert calibrated.judge == plain.judge
    a, b = plain.outcome.scores
    assert rewards(calibrated) == (CURVE(a - b), CURVE(b - a))
    assert reward(calibrated, 0) + reward(calibrated, 1) == pytest.approx(1)
    assert rewards(plain) == ((a - 1) / 9, (b - 1) / 9)


async def test_the_header_says_which_calibrator_and_the_file_takes_no_other(tmp_path):
    out = tmp_path / "out.jsonl"
    judge = Judge(ScriptedEngine(longer), load_template("pair"), calibrator=CURVE)
    await judge_to_file(judge, [Item(PAIR, {})], out)
    (row,) = read_outcomes(out)
    assert row["rewards"] == list(CURVE.rewards(row["scores"]))
    assert header_of(judge)["judge"]["calibrator"] == CURVE.digest
    other = Judge(ScriptedEngine(longer), load_template("pair"))
    assert "calibrator" not in header_of(other)["judge"]
    with pytest.raises(OutputError), OutcomeFile(out, header_of(other)):
        pass


def recipe_with(tmp_path, calibrator: Calibrator, **fields) -> JudgeRecipe:
    save_calibrator(calibrator, tmp_path / "c.json")
    recipe = tmp_path / "judge.yaml"
    fixed = {"model": "scripted:longer", "engine": "scripted", "template": "pair", "calibrator": "c.json"}
    recipe.write_text(json.dumps(fixed | fields))
    return load_recipe(recipe)


def fitted(**options) -> Calibrator:
    """As a run of such a judge would fit it."""
    header = header_of(Judge(ScriptedEngine(longer, name="scripted:longer"), load_template("pair"), **options))
    return replace(CURVE, judge=header["judge"], template=header["template"])


def test_a_recipe_loads_the_calibrator_beside_it(tmp_path):
    judge = open_judge(recipe_with(tmp_path, fitted()))
    assert judge.calibrator == fitted()


def test_another_seed_or_version_is_the_same_judge(tmp_path):
    calibrator = fitted(sampling=Sampling(seed=5))
    newer = replace(calibrator, judge={**calibrator.judge, "version": "9", "torch": "9", "fingerprint": "other"})
    assert open_judge(recipe_with(tmp_path, newer)).calibrator == newer


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"votes": 3}, "whose votes is 3, not 1"),
        ({"both_orders": False}, "whose both_orders is false, not true"),
        ({"sampling": Sampling(temperature=0.5)}, "whose temperature is 0.5, not 0.0"),
        ({"aggregate": "median"}, 'whose aggregate is "median", not "mean"'),
    ],
)
def test_a_calibrator_of_another_judge_is_refused_in_one_line(tmp_path, options, found):
    with pytest.raises(RecipeError) as error:
        open_judge(recipe_with(tmp_path, fitted(**options)))
    assert f"fitted for a judge {found}; flexreward eval" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_calibrator_of_another_template_is_refused_in_one_line(tmp_path):
    with pytest.raises(RecipeError, match="fitted for the template pair, not for pair-sp; flexreward eval"):
        open_judge(recipe_with(tmp_path, fitted()), template="pair-sp")


def test_weights_tell_models_apart_and_folders_do_not():
    header = {"judge": {"engine": "e", "model": "here", "weights": "w"}, "template": {"id": "t", "digest": "d"}}
    calibrator = replace(CURVE, judge=header["judge"] | {"model": "there"}, template=header["template"])
    refuse_other(calibrator, header, where="c")
    with pytest.raises(RecipeError, match="weights"):
        refuse_other(replace(calibrator, judge=header["judge"] | {"weights": "v"}), header, where="c")


def test_check_reads_the_calibrator_and_says_how_often_a_thought_must_go_on(tmp_path, capsys):
    save_calibrator(replace(fitted(), benchmark="pandalm", n=999), tmp_path / "c.json")
    recipe = tmp_path / "judge.yaml"
    recipe.write_text("model: scripted:longer\nengine: scripted\ntemplate: pair\nwaits: 2\ncalibrator: c.json\n")
    assert command(["check", str(recipe)]) == 0
    assert "2 wait(s), rewards calibrated on 999 rows of pandalm (platt): ok" in capsys.readouterr().out
    (tmp_path / "c.json").write_text("{}")
    assert command(["check", str(recipe)]) == 2
    assert "is no calibrator of this version" in capsys.readouterr().err
