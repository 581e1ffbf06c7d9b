"""Other weights for a judge: from where they may come, what is checked, and what a trainer waits for."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import pytest

from flexreward.client import RewardClient
from flexreward.config import BUNDLED
from flexreward.engines.base import Capabilities
from flexreward.engines.ray import About
from flexreward.engines.weights import digest
from flexreward.errors import JudgeError, LaterError, RecipeError, UserError, WeightsError
from flexreward.serving.app import Bounds, build_app
from flexreward.serving.ledger_owner import LedgerOwner
from flexreward.serving.recipe import parse_serve_recipe
from flexreward.serving.reload_routes import reload_routes
from flexreward.serving.reloading import Reloaded, Reloader, Runs, State, reloaded
from flexreward.serving.remote_ledger import RemoteLedger
from flexreward.serving.replica import check_weights
from tests.faulty_server import listening
from tests.flexreward.serving.served import ADMIN, KEY, client_of, service_over

OLD, NEW = "0" * 64, "1" * 64

# Ray 2.60 asks of pydantic what pydantic 2 warns of.
imports_ray = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def folder(tmp_path):
    """A folder of weights beside one that nobody may take weights from."""
    for name in ("allowed/round-1", "allowed/round-2", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").write_text(json.dumps({"name": name}))
    (tmp_path / "allowed/link").symlink_to(tmp_path / "elsewhere")
    return tmp_path


def recipe(folder, **changes):
    judge = {"model": str(folder / "allowed/round-1"), "engine": "transformers"}
    fields = {"judges": {"main": judge, "other": "scripted:longer"}, "reload_from": str(folder / "allowed")}
    return parse_serve_recipe(fields | changes, "args")


def test_the_recipe_has_the_new_weights_by_their_digest_and_nothing_else_is_changed(folder):
    before = recipe(folder)
    found = reloaded(before, judge="", model="round-2", weights=None)
    assert (found.judge, found.weights) == ("main", digest(folder / "allowed/round-2"))
    served = found.recipe.judges["main"]
    assert (served.judge.model, served.weights) == (str(folder / "allowed/round-2"), found.weights)
    assert served.model_copy(update={"judge": before.judges["main"].judge, "weights": None}) == before.judges["main"]
    assert found.recipe.judges["other"] == before.judges["other"]
    assert found.recipe.version != before.version
    assert reloaded(found.recipe, judge="main", model="round-2", weights=found.weights).recipe == found.recipe


def test_an_adapter_that_was_trained_over_the_old_weights_is_left_out_with_them(folder):
    judge = {"model": str(folder / "allowed/round-1"), "engine": "vllm"}
    for adapted in ({"lora": "a"}, {"options": {"lora": "a", "max_context": 512}}):
        before = recipe(folder, judges={"main": judge | adapted})
        served = reloaded(before, judge="", model="round-2", weights=None).recipe.judges["main"].judge
        assert (served.lora, "lora" in served.options) == (None, False)
        assert served.options == {name: one for name, one in adapted.get("options", {}).items() if name != "lora"}


def test_weights_that_were_written_over_are_another_recipe(folder):
    first = reloaded(recipe(folder), judge="", model="round-1", weights=None)
    (folder / "allowed/round-1/config.json").write_text("{}")
    assert reloaded(recipe(folder), judge="", model="round-1", weights=None).recipe.version != first.recipe.version


@pytest.mark.parametrize("model", ["../elsewhere", "link", "round-1/../../elsewhere", ".", "/etc", "a\0b", "x" * 300])
def test_weights_come_from_where_the_recipe_allows_and_from_nowhere_else(folder, model):
    with pytest.raises(WeightsError, match=r"^model: ") as refused:
        reloaded(recipe(folder), judge="", model=model, weights=None)
    assert refused.value.status == 409
    assert "config.json" not in str(refused.value)


def test_weights_that_cannot_be_taken_are_refused_in_one_line(folder):
    def refused(match, *, judge="", model="round-2", weights=None, **changes):
        with pytest.raises(WeightsError, match=match):
            reloaded(recipe(folder, **changes), judge=judge, model=model, weights=weights)

    refused(r"^reload_from: the recipe names no folder", reload_from=None)
    refused(r"^model: round-9 is not there", model="round-9")
    refused(f"^digest: expected {OLD}, found {digest(folder / 'allowed/round-2')} in round-2", weights=OLD)
    refused(r"^judge: the engine scripted of other has no weights", judge="other")
    calibrated = {"main": {"model": "m", "engine": "transformers", "calibrator": "c.json"}}
    refused(r"^judge: main has a calibrator", judges=calibrated)
    weights = (BUNDLED / "tiny-judge/model.safetensors").read_bytes()
    (folder / "allowed/round-2/model.safetensors").write_bytes(weights[: len(weights) // 2])
    refused(r"^model: round-2: model.safetensors cannot be read .*; save it again")
    (folder / "allowed/round-2/config.json").unlink()
    refused(r"^model: round-2: the folder holds no config.json")
    with pytest.raises(RecipeError, match="no judge 'mian', expected one of main, other"):
        reloaded(recipe(folder), judge="mian", model="round-2", weights=None)


def test_a_copy_that_finds_other_weights_than_were_named_does_not_start():
    found = About(can=Capabilities(), identity={"weights": NEW})
    check_weights(found, None)
    check_weights(found, NEW)
    with pytest.raises(JudgeError, match=f"expected {OLD}, found {NEW}"):
        check_weights(found, OLD)
    with pytest.raises(JudgeError, match="found none that can be named"):
        check_weights(About(can=Capabilities(), identity={}), OLD)


class Rolling:
    """A reloader whose roll-outs end after some questions, well or badly."""

    def __init__(self, folder, *, steps=3, ends=State.SETTLED):
        self.recipe, self.left, self.ends, self.steps = recipe(folder), 0, ends, steps
        self.weights, self.old = OLD, OLD
        self.busy = 0

    async def reload(self, *, judge, model, weights):
        if self.busy:
            self.busy -= 1
            error = LaterError("a roll-out is under way")
            error.retry_after_s = 0.1
            raise error
        found = reloaded(self.recipe, judge=judge, model=model, weights=weights)
        self.recipe, self.left, self.weights = found.recipe, self.steps, found.weights
        return Reloaded(found.judge, found.weights, found.recipe)

    async def runs(self):
        self.left = max(self.left - 1, 0)
        state = State.ROLLING if self.left else self.ends
        weights = self.weights if state is State.SETTLED else self.old
        detail = "no memory" if state is State.FAILED else ""
        return Runs(recipe=self.recipe.version, state=state, detail=detail, weights={"main": weights, "other": None})


class Cluster:
    """What runs: the recipe that was put last. It rolls until it is told otherwise, and is put once ``may`` is set."""

    def __init__(self):
        self.puts, self.rolls, self.may = [], False, asyncio.Event()
        self.may.set()

    async def state(self):
        return (State.ROLLING if self.rolls else State.SETTLED), ""

    async def put(self, recipe):
        await self.may.wait()
        self.puts.append(recipe)
        self.rolls = True


class Handle:
    def __init__(self, owner):
        self._owner = owner

    def __getattr__(self, method):
        return SimpleNamespace(remote=getattr(self._owner, method))


def two_of(folder, **changes):
    """A recipe of two judges whose weights may be exchanged."""
    judge = {"model": str(folder / "allowed/round-1"), "engine": "transformers"}
    return recipe(folder, judges={"first": judge, "second": judge}, **changes)


def at_two_copies(served, owner, cluster):
    """Two ingress copies that know this recipe, over one owner of the ledger."""
    return [
        Reloader(served, service_over(), ledger=RemoteLedger(Handle(owner)), cluster=cluster).reload for _ in range(2)
    ]


@imports_ray
async def test_two_judges_whose_weights_are_exchanged_at_once_both_have_the_new_ones_in_the_end(folder):
    owner, cluster = LedgerOwner("none"), Cluster()
    here, there = at_two_copies(two_of(folder), owner, cluster)
    asked = {"model": "round-2", "weights": None}
    found = await asyncio.gather(here(judge="first", **asked), there(judge="second", **asked), return_exceptions=True)
    (begun,) = [one for one in found if isinstance(one, Reloaded)]
    (later,) = [one for one in found if isinstance(one, LaterError)]
    assert (later.status, later.retry_after_s) == (503, 5.0)
    assert cluster.puts == [begun.recipe]
    left = {"first": "second", "second": "first"}[begun.judge]
    with pytest.raises(LaterError, match="a roll-out is under way"):
        await there(judge=left, **asked)
    cluster.rolls = False
    _, newer = at_two_copies(begun.recipe, owner, cluster)
    await newer(judge=left, **asked)
    assert [one.judge.model for one in cluster.puts[-1].judges.values()] == [str(folder / "allowed/round-2")] * 2


@imports_ray
async def test_what_a_caller_that_has_gone_began_to_exchange_is_begun_before_the_next(folder):
    owner, cluster = LedgerOwner("none"), Cluster()
    here, there = at_two_copies(two_of(folder), owner, cluster)
    cluster.may.clear()
    gone = asyncio.create_task(here(judge="first", model="round-2", weights=None))
    await asyncio.sleep(0.1)
    gone.cancel()
    with pytest.raises(LaterError, match="another reload begins"):
        await there(judge="second", model="round-2", weights=None)
    cluster.may.set()
    await asyncio.sleep(0.1)
    assert [one.judges["first"].judge.model for one in cluster.puts] == [str(folder / "allowed/round-2")]
    assert await owner.num_claims() == 0


@imports_ray
async def test_weights_that_cannot_be_taken_leave_the_turn_to_the_next(folder):
    owner, cluster = LedgerOwner("none"), Cluster()
    here, there = at_two_copies(two_of(folder), owner, cluster)
    with pytest.raises(WeightsError, match="round-9 is not there"):
        await here(judge="first", model="round-9", weights=None)
    assert (await there(judge="second", model="round-2", weights=None)).judge == "second"


async def test_weights_are_exchanged_by_an_admin_alone(folder):
    keys = {"reward_keys": [KEY], "admin_keys": [ADMIN]}
    routers = [reload_routes(Rolling(folder))]
    async with client_of(routers=routers, key=KEY, **keys) as client:
        assert (await client.post("/v1/reload", json={"model": "round-2"})).status_code == 403
        assert (await client.get("/v1/reload")).status_code == 403
    async with client_of(routers=routers, key=ADMIN, **keys) as client:
        refused = await client.post("/v1/reload", json={"model": "round-2", "digest": OLD})
        assert refused.status_code == 409
        assert refused.json()["error"].startswith(f"digest: expected {OLD}, found ")
        begun = await client.post("/v1/reload", json={"model": "round-2"})
        assert begun.status_code == 202
        assert begun.json()["weights"] == digest(folder / "allowed/round-2")
        runs = (await client.get("/v1/reload")).json()
        assert (runs["recipe"], runs["state"]) == (begun.json()["recipe"], "rolling")


def reload_at(reloader, **asked):
    app = build_app(service_over(), bounds=Bounds(admin_keys=[ADMIN]), routers=[reload_routes(reloader)])
    with listening(app) as url:
        return asyncio.run(RewardClient(url, key=ADMIN).reload("round-2", **asked))


def test_a_trainer_goes_on_when_nothing_is_judged_by_the_old_weights_any_more(folder):
    reloader = Rolling(folder)
    reloader.busy = 1
    weights = reload_at(reloader, digest=digest(folder / "allowed/round-2"))
    assert weights == reloader.weights == digest(folder / "allowed/round-2")
    assert reloader.left == 0


def test_a_trainer_is_told_why_weights_are_not_there(folder):
    with pytest.raises(UserError, match="reload: round-2 does not run: no memory"):
        reload_at(Rolling(folder, ends=State.FAILED))
    with pytest.raises(UserError, match=r"409.*digest: expected"):
        reload_at(Rolling(folder), digest=OLD)
    with pytest.raises(UserError, match=r"still being rolled out after 0\.8 s|no time is left|no answer in time"):
        reload_at(Rolling(folder, steps=1000), deadline_s=0.8)
