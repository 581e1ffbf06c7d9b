import re

import pytest

from flexreward.config import (
    JudgeRecipe,
    engine_part,
    load_recipe,
    open_engine,
    open_judge,
    resolve_judge,
    vllm_options,
)
from flexreward.errors import RecipeError


def write(tmp_path, text):
    path = tmp_path / "judge.yaml"
    path.write_text(text)
    return path


def refused(call, *arguments):
    with pytest.raises(RecipeError) as error:
        call(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


BAD = {
    "model: m\ntempurature: 1\n": "unknown field 'tempurature', did you mean 'temperature'? (fields: model, engine, ",
    "model: m\nfoo: 1\n": "unknown field 'foo' (fields: ",
    "template: pair\n": "model: Field required",
    "model: m\ntemperature: -1\n": "temperature: Input should be greater than or equal to 0, found -1",
    "model: m\ntemperature: .nan\n": "temperature: ",
    'model: m\ntemperature: "0.5"\n': "temperature: Input should be a valid number, found '0.5'",
    "model: m\nvotes: 1.5\n": "votes: ",
    "model: m\nvotes: true\n": "votes: Input should be a valid integer, found True",
    "model: m\nvotes: 3\n": "votes is 3 at temperature 0, which draws the same reply each time; set a temperature",
    "model: m\naggregate: max\n": "aggregate: Input should be 'mean', 'median', 'majority' or 'expected', found 'max'",
    "model: m\nstop: lossless\n": "stop: mean needs every vote; leave it out, or set aggregate: majority",
    "model: m\naggregate: majority\nstop: {error: 0.9}\n": "stop: expected none, lossless or {error: RATE}, a rate ",
    "model: m\naggregate: majority\nstop: soon\n": "and at most 0.25, found 'soon'",
    "model: m\ntop_p: 0\n": "top_p: Input should be greater than 0",
    "model: m\nmodel: n\n": "line 2: the field 'model' stands twice",
    "model: m\nengine: openai\nlora: a\n": "lora is of the engines transformers and vllm, found openai; leave it out",
    "model: m\nlora: a\noptions: {lora: b}\n": "lora stands in options too; leave it out there",
    "model: [\n": "line 2: not YAML",
    "model: !!python/object/apply:os.system [ls]\n": "line 1: not YAML",
    "- model\n": "expected fields such as 'model: NAME', found list",
    "": "expected fields such as 'model: NAME', found NoneType",
}


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_a_recipe_that_is_wrong_names_file_and_field(tmp_path, text):
    path = write(tmp_path, text)
    message = refused(load_recipe, path)
    assert message.startswith(f"{path}: ")
    assert BAD[text] in message


def test_a_recipe_that_is_not_there_is_named(tmp_path):
    assert "nothing.yaml: cannot be read: No such file" in refused(load_recipe, tmp_path / "nothing.yaml")


def test_a_model_folder_is_seen_from_the_recipe_and_a_hub_id_stays_one(tmp_path):
    (tmp_path / "weights").mkdir()
    assert load_recipe(write(tmp_path, "model: weights\n")).model == str(tmp_path / "weights")
    assert load_recipe(write(tmp_path, "model: org/judge-7b\nvotes: 3\ntemperature: 1\n")).model == "org/judge-7b"


def test_an_adapters_folder_is_seen_from_the_recipe_and_goes_to_the_engine_that_applies_it(tmp_path):
    (tmp_path / "adapter").mkdir()
    recipe = load_recipe(write(tmp_path, "model: org/judge-7b\nlora: adapter\nengine: vllm\n"))
    assert recipe.lora == vllm_options(recipe)["lora"] == str(tmp_path / "adapter")
    assert engine_part(recipe).lora == recipe.lora


def test_a_judge_is_named_in_each_of_its_ways(tmp_path, monkeypatch):
    monkeypatch.delenv("FLEXREWARD_RECIPE", raising=False)
    (tmp_path / "config.json").write_text("{}")
    recipe = write(tmp_path, "model: org/a\ntemplate: score\n")
    assert resolve_judge(str(tmp_path)).model == str(tmp_path)
    assert resolve_judge("org/name-7B").engine == "transformers"
    assert resolve_judge(recipe).template == "score"
    assert resolve_judge("scripted:longer").engine == "scripted"
    assert resolve_judge("http://localhost:8000/v1").engine == "openai"
    assert resolve_judge("http://localhost:8000#strict").engine == "served"
    assert resolve_judge("tiny").max_tokens == 192
    assert resolve_judge() == resolve_judge("tiny")
    monkeypatch.setenv("FLEXREWARD_RECIPE", str(recipe))
    assert resolve_judge().model == "org/a"


def test_what_names_no_judge_is_said(tmp_path, monkeypatch):
    assert "did you mean 'tiny'?" in refused(resolve_judge, "tinny")
    assert "holds no config.json" in refused(resolve_judge, tmp_path)
    monkeypatch.setenv("FLEXREWARD_RECIPE", "nothing at all")
    assert refused(resolve_judge, None).startswith("FLEXREWARD_RECIPE nothing at all: expected tiny")


def test_a_judge_opens_with_what_its_recipe_says(tmp_path):
    text = "model: scripted:longer\nengine: scripted\ntemplate: score\nvotes: 3\nseed: 7\nboth_orders: false\n"
    judge = open_judge(load_recipe(write(tmp_path, text)))
    assert (judge.template.id, judge.sampling.n, judge.sampling.seed, judge.both_orders) == ("score", 3, 7, False)
    assert open_judge(resolve_judge("scripted:longer"), template="batch").template.id == "batch"
    assert "scripted:shorter" in refused(open_judge, JudgeRecipe(model="scripted:shorter", engine="scripted"))


def test_a_vote_stops_as_its_recipe_says(tmp_path):
    text = "model: scripted:longer\nengine: scripted\nvotes: 3\naggregate: majority\n"
    stops = {"": None, "stop: none\n": None, "stop: lossless\n": 0.0, "stop: {error: 0.05}\n": 0.05}
    found = {stop: open_judge(load_recipe(write(tmp_path, text + stop))) for stop in stops}
    assert {stop: judge.stop for stop, judge in found.items()} == stops
    assert found[""].fingerprint == found["stop: none\n"].fingerprint
    with pytest.raises(RecipeError, match="one completion alone"):
        open_judge(load_recipe(write(tmp_path, text + "stop: lossless\n")), template="score")


def test_an_engine_of_ones_own_is_named_by_its_class(tmp_path, monkeypatch):
    (tmp_path / "own_engine.py").write_text(
        "from flexreward.engines.scripted import ScriptedEngine\n"
        "class Own(ScriptedEngine):\n"
        "    def __init__(self, *, model, tone='calm'):\n"
        "        super().__init__(lambda prompt: '', name=f'{model} {tone}')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    path = write(tmp_path, "model: m\nengine: own_engine:Own\noptions: {tone: loud}\n")
    assert open_engine(load_recipe(path)).identity["model"] == "m loud"
    message = refused(open_engine, JudgeRecipe(model="m", engine="nowhere_at_all:Own"))
    assert re.search("nowhere_at_all:Own cannot be imported", message)
