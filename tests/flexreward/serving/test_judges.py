"""Which template a served judge is asked by, where its recipe and the request leave it open."""

from __future__ import annotations

import pytest

from flexreward.config import JudgeRecipe
from flexreward.engines.scripted import ScriptedEngine
from flexreward.serving.contract import Caller
from flexreward.serving.judges import usual_template
from flexreward.types import JudgeRequest
from tests.flexreward.serving.served import digits, service_over

STOPS = {"votes": 3, "temperature": 1.0, "aggregate": "majority", "stop": "lossless"}
PAIR = JudgeRequest(prompt="Which?", completions=("ends in 3", "ends in 8"))


async def test_a_judge_whose_votes_end_early_is_served_without_a_template_in_its_recipe():
    service = service_over(**STOPS)
    (judged,) = [one async for one in service.judge([PAIR], caller=Caller())]
    assert judged.judgment.outcome.preferred == 1
    assert [len(order.votes) for order in judged.judgment.orders] == [2, 2]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray 2.60 asks of pydantic what pydantic 2 warns of
@pytest.mark.parametrize("changes", [{}, STOPS, {"template": "batch"}, {"template": "mj-align"}])
async def test_a_server_is_warmed_up_by_a_template_that_its_judge_takes(changes):
    from flexreward.serving.ingress import _first

    recipe = JudgeRecipe(model="scripted:longer", engine="scripted", **changes)
    assert await _first(recipe, ScriptedEngine(digits)) is None


def test_the_usual_template_is_the_recipes_or_the_simplest_that_its_votes_can_be_counted_by():
    def usual(**changes):
        return usual_template(JudgeRecipe(model="m", **changes))

    assert (usual(), usual(template="batch"), usual(**STOPS)) == ("score", "batch", "pair")
