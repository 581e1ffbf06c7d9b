import asyncio
from types import SimpleNamespace

import pytest

from flexreward.adapters import trl
from flexreward.adapters.trl import judge_reward
from flexreward.errors import UserError


@pytest.fixture(autouse=True)
def anew():
    trl._trainings.clear()


@pytest.fixture
def longer(tmp_path):
    """A judge that prefers the longer of two completions."""
    path = tmp_path / "judge.yaml"
    path.write_text("model: scripted:longer\nengine: scripted\ntemplate: pair\n")
    return str(path)


def rewards(prompts, completions, **options):
    state = SimpleNamespace(global_step=0)
    return asyncio.run(judge_reward(prompts, completions, trainer_state=state, **options))


def test_a_judge_in_the_process_compares_the_completions_of_a_prompt(longer):
    prompts = ["p", "q", "p", "p", "q"]
    found = rewards(prompts, ["x", "x", "xxx", "xx", "xxxx"], judge=longer, group_reward="win_rate")
    assert found == [0.0, 0.0, 1.0, 0.5, 1.0]


def test_it_answers_from_one_loop_after_another(longer):
    for _ in range(2):
        assert rewards(["p", "p"], ["x", "xx"], judge=longer, group_reward="win_rate") == [0.0, 1.0]


def test_a_prompt_that_cannot_be_judged_costs_its_own_group_only(longer):
    columns = {"images": [None, None, [b"no image"], [b"no image"], None, None]}
    prompts = ["p", "p", "q", "q", "r", "r"]
    found = rewards(prompts, ["x", "xx"] * 3, judge=longer, group_reward="win_rate", **columns)
    assert found == [0.0, 1.0, None, None, 0.0, 1.0]


def test_a_judge_that_cannot_be_found_stops_the_training():
    with pytest.raises(UserError, match="expected tiny, a model's folder"):
        rewards(["p"], ["x"], judge="no such judge")


def test_a_group_is_shown_at_once_by_the_template_that_fits(longer):
    found = rewards(["p"] * 3, ["x", "xxx", "xx"], judge=longer, group_reward="listwise")
    assert found[1] > found[2] > found[0]


def test_a_completion_that_has_nobody_to_be_compared_with_has_no_reward(longer):
    assert rewards(["p", "q", "q"], ["x", "x", "xx"], judge=longer, group_reward="win_rate") == [None, 0.0, 1.0]
