"""What a recipe becomes for Ray Serve, before any cluster is asked."""

from __future__ import annotations

import pytest

serve = pytest.importorskip("ray.serve")

from flexreward.errors import RecipeError  # noqa: E402
from flexreward.serving.deployment import build  # noqa: E402

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
