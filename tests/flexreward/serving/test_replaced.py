"""Copies of an engine that are replaced by copies of another model, under requests: no outcome is half of each."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flexreward.config import JudgeRecipe, open_judge
from flexreward.engines.base import Capabilities, Prompt, Sampling
from flexreward.engines.ray import About, Other, RayEngine
from flexreward.errors import EngineError
from flexreward.ledger import Ledger
from flexreward.order import flip
from flexreward.serving.admission import Admission
from flexreward.serving.contract import Caller
from flexreward.serving.judges import OpenJudge
from flexreward.serving.service import JudgeService
from flexreward.types import JudgeRequest, Reply

PAIR = JudgeRequest(prompt="Which?", completions=("ends in 3", "ends in 8"))
RECIPE = JudgeRecipe(model="m")

# Ray 2.60 asks of pydantic what pydantic 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def about(name):
    return About(can=Capabilities(token_ids=True), identity={"weights": name})


class Copies:
    """A handle to copies that run models by name. ``picks`` says by which a call, numbered from 0, is answered."""

    def __init__(self, picks):
        self._picks = picks
        self.answered = []
        self.keys = []
        self.about = self.reply = self.generate = self

    def options(self, **_):
        return self

    def remote(self, *arguments):
        return _Call(self, arguments)

    def answer(self, arguments):
        if not arguments:
            return about(self._picks(len(self.answered)))
        key, _, _, model = arguments
        mine = about(self._picks(len(self.answered)))
        self.keys.append(key)
        self.answered.append(mine.identity["weights"])
        scores = "<answer>1</answer><answer>9</answer>" if mine.identity["weights"] == "old" else ""
        reply = Reply(text=f"<think></think>{scores or '<answer>5</answer><answer>5</answer>'}")
        return reply if model == mine.name else Other(about=mine)


class _Call:
    def __init__(self, copies, arguments):
        self._copies, self._arguments = copies, arguments

    def cancel(self):
        pass

    def __await__(self):
        return self._now().__await__()

    async def _now(self):
        return self._copies.answer(self._arguments)

    async def __aiter__(self):
        yield await self


def service_over(handle, **recipe):
    opened = OpenJudge(
        recipe=RECIPE.model_copy(update=recipe),
        engine=RayEngine(handle, about("old"), together="none"),
        admission=Admission(lanes=8, max_waiting=100),
    )
    return JudgeService({"main": opened}, ledger=Ledger(None), deadline_s=20.0)


def fingerprint(name):
    return open_judge(RECIPE, template="pair", engine=RayEngine(Copies(lambda _: name), about(name))).fingerprint


async def judged(service, request=PAIR):
    (one,) = [one async for one in service.judge([request], caller=Caller())]
    return one.judgment


async def test_what_is_half_answered_when_its_model_is_replaced_is_asked_anew_as_a_whole():
    handle = Copies(lambda number: "old" if number < 1 else "new")
    judgment = await judged(service_over(handle))
    assert judgment.judge == fingerprint("new") != fingerprint("old")
    assert [order.outcome.scores for order in judgment.orders] == [(5.0, 5.0), (5.0, 5.0)]
    assert handle.answered.count("old") == 1  # and nothing of it is left


async def test_once_it_has_met_the_new_model_it_passes_over_copies_of_the_old_one():
    handle = Copies(lambda number: "new" if number % 3 == 0 else "old")
    service = service_over(handle)
    names = {(await judged(service, one)).judge for one in (PAIR, flip(PAIR))}
    assert names == {fingerprint("new")}
    assert len(set(handle.keys)) > 2  # the same key would lead to the same copy again


async def test_a_judge_with_a_calibrator_follows_no_other_model():
    service = service_over(Copies(lambda _: "new"))
    engine = service.judges["main"].engine
    service.judges["main"] = replace(service.judges["main"], recipe=RECIPE.model_copy(update={"calibrator": "c.json"}))
    await engine.look()
    assert not service.judges.followed("main", engine)
    assert service.judges["main"].engine is engine


async def test_a_model_that_is_called_back_after_all_is_asked_again():
    engine = RayEngine(Copies(lambda _: "old"), about("new"), former=frozenset({about("old").name}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flexreward.engines.ray.PAUSE_S", 0.0)
        with pytest.raises(EngineError, match="another model"):
            [one async for one in engine.generate(Prompt(system="", user="x"), Sampling())]
    successor = engine.successor()
    assert successor.identity == {"weights": "old"}
    assert [one.text async for one in successor.generate(Prompt(system="", user="x"), Sampling())]


async def test_an_engine_looks_what_its_copies_run():
    engine = RayEngine(Copies(lambda _: "new"), about("old"))
    assert engine.successor() is None
    await engine.look()
    assert engine.successor().identity == {"weights": "new"}
