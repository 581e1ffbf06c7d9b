import pytest

from flexreward.adapters.recipe import recipe_of
from flexreward.config import ENV
from flexreward.errors import RecipeError


def test_arguments_name_the_judge_and_the_environment_is_not_asked(monkeypatch):
    monkeypatch.setenv(ENV, "tiny")
    assert recipe_of({"url": "http://h:8000"}, where="w").url == "http://h:8000"
    assert recipe_of({"judge": "org/model"}, where="w").judge == "org/model"


@pytest.mark.parametrize(
    ("named", "url", "judge"),
    [
        ("tiny", None, "tiny"),
        ("http://h:8000", "http://h:8000", ""),
        ("https://h/rewards", "https://h/rewards", ""),
        ("http://h:8000/v1", None, "http://h:8000/v1"),
    ],
)
def test_the_environment_names_a_judge_or_a_server(monkeypatch, named, url, judge):
    monkeypatch.setenv(ENV, named)
    recipe = recipe_of({"num_generations": 4}, where="w")
    assert (recipe.url, recipe.judge, recipe.num_generations) == (url, judge, 4)


def test_the_environment_names_a_recipe_of_rewards_or_of_a_judge(monkeypatch, tmp_path):
    path = tmp_path / "r.yaml"
    monkeypatch.setenv(ENV, str(path))
    path.write_text("url: http://h:8000\njudge: strict\nnum_generations: 8\n")
    assert recipe_of({}, where="w").model_dump(exclude_defaults=True) == {
        "url": "http://h:8000",
        "judge": "strict",
        "num_generations": 8,
    }
    path.write_text("model: org/model\ndeadline_s: 3\n")
    assert recipe_of({}, where="w").judge == str(path)
    assert recipe_of({}, where="w").deadline_s == 120
    (tmp_path / "judge.yaml").write_text("model: org/model\n")
    path.write_text("judge: judge.yaml\n")
    assert recipe_of({}, where="w").judge == str(tmp_path / "judge.yaml")


def test_without_a_judge_it_says_what_to_give(monkeypatch):
    monkeypatch.delenv(ENV, raising=False)
    with pytest.raises(RecipeError, match=f"give url= or judge=, or set {ENV}"):
        recipe_of({}, where="judge_reward")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": "http://h", "num_generation": 4}, "unknown field 'num_generation'"),
        ({"url": "http://h", "deadline_s": 0}, "deadline_s: "),
        ({"url": "http://h", "cut": "zero"}, "cut: "),
        ({"url": ["http://h", "http://h"]}, "column of that name"),
    ],
)
def test_a_wrong_option_is_one_line(options, said):
    with pytest.raises(RecipeError, match=r"^judge_reward: ") as error:
        recipe_of(options, where="judge_reward")
    assert said in str(error.value)
    assert "\n" not in str(error.value)
