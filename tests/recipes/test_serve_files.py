"""What recipes/serve holds besides recipes is what the programs that read it expect, and speaks of what there is."""

import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from flexreward.serving.board import COUNTS, GAUGES
from flexreward.serving.recipe import load_serve_recipe

ROOT = Path(__file__).parents[2]
SERVE = ROOT / "recipes" / "serve"
MANIFEST = yaml.safe_load((SERVE / "rayservice.yaml").read_text())
DASHBOARD = json.loads((SERVE / "grafana.json").read_text())


def containers():
    cluster = MANIFEST["spec"]["rayClusterConfig"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [container for group in groups for container in group["template"]["spec"]["containers"]]


@pytest.mark.parametrize("path", sorted(SERVE.glob("*.yaml")), ids=lambda path: path.name)
def test_every_recipe_loads_and_nothing_else_is_called_one(path):
    if path.name == "rayservice.yaml":
        assert MANIFEST["kind"] == "RayService"
    else:
        assert load_serve_recipe(path).judges


def test_the_serve_config_in_the_manifest_is_one_that_ray_takes():
    schema = pytest.importorskip("ray.serve.schema")
    config = schema.ServeDeploySchema.model_validate(yaml.safe_load(MANIFEST["spec"]["serveConfigV2"]))
    (app,) = config.applications
    assert app.import_path == "flexreward.serving.deployment:build"
    recipe = Path(app.args["recipe"]).relative_to("/app")
    assert config.http_options.port == load_serve_recipe(ROOT / recipe).port


def test_the_manifest_runs_the_ray_that_is_installed_and_names_what_kuberay_requires():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (ray,) = (one for one in project["optional-dependencies"]["serve"] if one.startswith("ray"))
    assert MANIFEST["apiVersion"] == "ray.io/v1"
    assert MANIFEST["spec"]["rayClusterConfig"]["rayVersion"] == ray.partition("==")[2]
    assert all({"name", "image", "resources"} <= container.keys() for container in containers())
    assert all(one["resources"]["limits"] == one["resources"]["requests"] for one in containers())
    for group in MANIFEST["spec"]["rayClusterConfig"]["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_a_worker_has_the_gpu_and_the_cores_that_a_copy_reserves():
    (served,) = load_serve_recipe(SERVE / "flex-vl-7b_8gpus.yaml").judges.values()
    worker = containers()[-1]["resources"]["limits"]
    assert int(worker["nvidia.com/gpu"]) >= served.gpus
    assert int(worker["cpu"]) >= served.cpus


def test_keys_stand_in_a_secret_and_never_in_a_file():
    assert all(one["envFrom"] == [{"secretRef": {"name": "flexreward-keys"}}] for one in containers())
    recipe = load_serve_recipe(SERVE / "flex-vl-7b_8gpus.yaml")
    assert recipe.reward_keys.env == "FLEXREWARD_KEYS"
    assert recipe.admin_keys.env == "FLEXREWARD_ADMIN_KEYS"


def test_the_image_is_built_of_what_the_package_is_made_of():
    text = (SERVE / "Dockerfile").read_text()
    copied = {name for line in re.findall(r"^COPY (.+)$", text, re.M) for name in line.split()[:-1]}
    assert all((ROOT / name).exists() for name in copied)
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert set(wheel["packages"]) <= copied


def test_the_dashboard_asks_for_every_count_and_for_none_that_there_is_not():
    asked = " ".join(target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"])
    names = {re.sub(r"_bucket$", "", name) for name in re.findall(r"flexreward_\w+", asked)}
    assert names == {*COUNTS, *GAUGES}


def test_the_panels_of_the_dashboard_do_not_overlap():
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_every_node_mounts_the_folder_of_the_store_since_the_ledger_may_be_on_any():
    store = Path(load_serve_recipe(SERVE / "flex-vl-7b_8gpus.yaml").store)
    assert all(one["volumeMounts"][0]["mountPath"] == str(store.parent) for one in containers())
