"""What a recipe becomes for Ray Serve, before any cluster is asked."""

from __future__ import annotations

import pytest

serve = pytest.importorskip("ray.serve")

from flexreward.errors import RecipeError  # noqa: E402
from flexreward.serving.deployment import application, build, surge_percent  # noqa: E402
from flexreward.serving.recipe import ServedJudge, parse_serve_recipe  # noqa: E402

FIELDS = {"judges": {"a": {"judge": "scripted:longer", "replicas": 2}, "b": "scripted:first"}, "store": "none"}


def deployments(**changes):
    """The deployments of an application, by name."""
    bound = build(FIELDS | changes)._bound_deployment
    _, ledger, engines = bound.init_args
    parts = [bound, ledger._bound_deployment, *(engine._bound_deployment for engine in engines.values())]
    return {part.name: part for part in parts}


def versions(**changes):
    return {name: part._version for name, part in deployments(**changes).items()}


def test_each_judge_has_an_engine_beside_one_ledger_and_the_ingress():
    found = deployments()
    assert set(found) == {"Ingress", "Ledger", "Engine-a", "Engine-b"}
    assert found["Engine-a"].num_replicas == 2
    assert found["Ledger"].num_replicas == 1


def test_a_config_file_of_serve_may_name_a_recipe(tmp_path):
    (tmp_path / "r.yaml").write_text("judge: scripted:longer\n")
    assert build({"recipe": str(tmp_path / "r.yaml")})._bound_deployment.name == "Ingress"
    with pytest.raises(RecipeError, match="unknown field 'prot'"):
        build({"judge": "tiny", "prot": 1})


def test_what_has_not_changed_keeps_its_version_and_so_its_copies():
    assert versions() == versions()
    before, after = versions(), versions(deadline_s=10.0)
    assert {name for name in before if before[name] != after[name]} == {"Ingress"}
    other = versions(judges=FIELDS["judges"] | {"b": "scripted:mute"})
    assert {name for name in before if before[name] != other[name]} == {"Ingress", "Engine-b"}
    other = versions(judges=FIELDS["judges"] | {"b": {"judge": "scripted:first", "group_reward": "win_rate"}})
    assert {name for name in before if before[name] != other[name]} == {"Ingress"}


def test_copies_that_come_and_go_with_the_load_are_told_to_serve():
    found = deployments(judges={"a": {"judge": "scripted:longer", "replicas": {"min": 2, "max": 5, "in_flight": 8.0}}})
    scaling = found["Engine-a"]._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas, scaling.target_ongoing_requests) == (2, 5, 8.0)


def test_what_only_the_ingress_copies_read_of_a_judge_restarts_no_engine():
    before = versions()
    for change in ({"template": "pair"}, {"temperature": 0.5, "votes": 3}, {"max_tokens": 7}):
        judge = {"model": "scripted:longer", "engine": "scripted"} | change
        after = versions(judges=FIELDS["judges"] | {"a": {"judge": judge, "replicas": 2}})
        assert {name for name in before if before[name] != after[name]} == {"Ingress"}
    more = versions(judges=FIELDS["judges"] | {"a": {"judge": "scripted:longer", "replicas": 3}})
    assert {name for name in before if before[name] != more[name]} == {"Ingress"}


def test_new_copies_of_an_engine_stand_before_the_old_ones_go_where_there_is_room():
    def percent(free, replicas=4, **fields):
        judge = {"model": "m", "engine": "vllm", "options": {"tensor_parallel": fields.pop("tensor_parallel", 1)}}
        return surge_percent(ServedJudge(judge=judge, replicas=replicas, **fields), free)

    node = {"CPU": 4.0, "GPU": 2.0}
    assert percent([{"CPU": 1.0}], cpus=1.0) == 25
    assert percent([{"CPU": 0.5}, {"CPU": 0.9}], cpus=1.0) == 0
    assert percent([node, node], gpus=1.0) == 100
    assert percent([node, node], gpus=1.0, tensor_parallel=4) == 25
    assert percent([{"CPU": 64.0}], gpus=1.0) == 0
    assert percent([], cpus=0.0) == 100
    recipe = parse_serve_recipe(FIELDS, "args")
    _, _, engines = application(recipe, free=[{"CPU": 1.0}])._bound_deployment.init_args
    assert engines["a"]._bound_deployment._deployment_config.max_surge_percent == 50


def test_a_judge_may_be_asked_at_whichever_copy_is_less_busy():
    found = deployments(judges={"a": "scripted:first", "b": {"judge": "scripted:first", "routing": "any"}})
    named = {name: part._deployment_config.request_router_config.request_router_class for name, part in found.items()}
    assert named["Engine-a"] == "flexreward.serving.router:JudgeRouter"
    assert named["Engine-b"] == "flexreward.serving.router:AnyRouter"
