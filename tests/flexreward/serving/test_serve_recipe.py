"""What a serve recipe says, and what is said of a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from flexreward.cli import run
from flexreward.errors import RecipeError
from flexreward.serving.recipe import Scaling, is_serve_recipe, load_serve_recipe, parse_serve_recipe

TINY = Path(__file__).parents[3] / "recipes/serve/tiny.yaml"


def parsed(**fields):
    return parse_serve_recipe(fields, "r.yaml")


def test_one_judge_is_named_in_a_line():
    recipe = load_serve_recipe(TINY)
    assert list(recipe.judges) == ["judge"]
    assert recipe.judges["judge"].judge.engine == "transformers"
    assert (recipe.host, recipe.port) == ("127.0.0.1", 8000)


def test_several_judges_have_copies_of_their_own():
    recipe = parsed(judges={"a": {"judge": "tiny", "replicas": {"max": 4}}, "b": {"model": "x/y", "engine": "vllm"}})
    assert recipe.judges["a"].replicas == Scaling(max=4)
    assert recipe.judges["a"].max_replicas == 4
    assert recipe.judges["b"].judge.model == "x/y"
    assert recipe.judges["b"].replicas == 1


def test_files_of_a_recipe_begin_at_its_folder(tmp_path):
    (tmp_path / "keys.txt").write_text("# ours\nabcdefghijklmnop\n")
    (tmp_path / "judge.yaml").write_text("model: scripted:longer\nengine: scripted\n")
    (tmp_path / "r.yaml").write_text("judge: judge.yaml\nreward_keys: {file: keys.txt}\nstore: s.sqlite\n")
    recipe = load_serve_recipe(tmp_path / "r.yaml")
    assert recipe.judges["judge"].judge.model == "scripted:longer"
    assert recipe.keys() == (("abcdefghijklmnop",), ())
    assert recipe.store == str(tmp_path / "s.sqlite")


def test_keys_come_from_the_environment_too(monkeypatch):
    monkeypatch.setenv("KEYS", "abcdefghijklmnop qrstuvwxyzabcdef")
    recipe = parsed(judge="tiny", reward_keys={"env": "KEYS"}, host="0.0.0.0")
    assert recipe.keys()[0] == ("abcdefghijklmnop", "qrstuvwxyzabcdef")


def test_a_key_is_for_rewards_or_for_everything_and_not_for_both(monkeypatch):
    monkeypatch.setenv("KEYS", "abcdefghijklmnop")
    with pytest.raises(RecipeError, match="admin_keys: one of them is a reward key too"):
        parsed(judge="tiny", reward_keys={"env": "KEYS"}, admin_keys={"env": "KEYS"}).keys()


def test_equal_recipes_have_one_version_and_others_another():
    assert parsed(judge="tiny").version == parsed(judge="tiny").version
    assert parsed(judge="tiny").version != parsed(judge="tiny", deadline_s=5.0).version


def test_a_recipe_of_a_judge_is_none_of_a_server():
    assert is_serve_recipe(TINY)
    assert not is_serve_recipe(TINY.parents[2] / "flexreward/bundled/tiny-judge.yaml")
    assert not is_serve_recipe("tiny")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"judge": "tiny", "prot": 1}, "r.yaml: unknown field 'prot', did you mean 'port'?"),
        (
            {"judge": {"judge": "tiny", "replica": 2}},
            "r.yaml: judge: unknown field 'replica', did you mean 'replicas'?",
        ),
        ({"judge": {"model": "x", "egnine": "vllm"}}, "r.yaml: judge: unknown field 'egnine', did you mean 'engine'?"),
        (
            {"judge": {"judge": "tiny", "replicas": {"mx": 2}}},
            "judge.replicas: unknown field 'mx', did you mean 'max'?",
        ),
        ({"judge": {"judge": "tiny", "replicas": 0}}, "r.yaml: judge: replicas: Input should be greater than"),
        ({"judge": {"judge": "tiny", "replicas": {"min": 3, "max": 2}}}, "max is 2, below min, which is 3"),
        ({"judges": {}}, "judges: Dictionary should have at least 1 item"),
        ({"port": 8000}, "judges: expected names, each with a judge"),
        ({"judges": {"a": {"replicas": 1}}}, "r.yaml: judges.a: the field judge is missing"),
        ({"judges": {"a b": "tiny"}}, "the name 'a b' is no word"),
        ({"judge": "tinny"}, "judge: tinny: expected tiny, .*did you mean 'tiny'"),
        ({"judge": "tiny", "judges": {"a": "tiny"}}, "judge and judges exclude each other"),
        ({"judge": "tiny", "host": "0.0.0.0"}, "host: 0.0.0.0 can be reached from elsewhere; set reward_keys"),
        ({"judge": "tiny", "port": "8000"}, "r.yaml: port: Input should be a valid integer, found '8000'"),
        ({"judge": "tiny", "reward_keys": {"path": "k"}}, "reward_keys: unknown field 'path'"),
        ({"judge": "tiny", "reward_keys": {}}, r"expected \{file: PATH\} or \{env: NAME\}"),
        ({"judge": "tiny", "group_reward": "elo"}, "group_reward: Input should be 'score', 'win_rate'"),
    ],
)
def test_a_wrong_field_is_named_in_one_line(fields, message):
    with pytest.raises(RecipeError, match=message) as raised:
        parse_serve_recipe(fields, "r.yaml")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no key"),
        ("short", "key 1 in .*: expected 16 or more of"),
        ("a key/with a slash in it", "key 1 in .*: expected 16 or more of"),
    ],
)
def test_a_file_of_keys_that_cannot_be_used_is_refused(tmp_path, text, message):
    (tmp_path / "keys").write_text(text)
    with pytest.raises(RecipeError, match=message):
        parsed(judge="tiny", reward_keys={"file": str(tmp_path / "keys")}).keys()


def test_check_says_what_a_server_would_start(capsys):
    assert run(["check", str(TINY)]) == 0
    said = capsys.readouterr().out
    assert "serves http://127.0.0.1:8000 without a key" in said
    assert "judge: 1 copy of" in said


def test_check_says_all_else_before_a_key_that_is_not_there(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("FLEXREWARD_NOT_SET", raising=False)
    (tmp_path / "r.yaml").write_text("judge: tiny\nreward_keys: {env: FLEXREWARD_NOT_SET}\n")
    assert run(["check", str(tmp_path / "r.yaml")]) == 2
    told = capsys.readouterr()
    assert "judge: 1 copy of" in told.out
    assert told.err == (
        "flexreward: reward_keys: the environment variable FLEXREWARD_NOT_SET holds no key; "
        "python -c 'import secrets; print(secrets.token_urlsafe())'\n"
    )


def test_check_explains_a_wrong_server_in_one_line(tmp_path, capsys):
    (tmp_path / "r.yaml").write_text("judge: tiny\nreplicsa: 2\n")
    assert run(["check", str(tmp_path / "r.yaml")]) == 2
    assert "unknown field 'replicsa'" in capsys.readouterr().err
