"""The server as one Ray Serve application: ingress copies, one ledger, and copies of each judge's engine.

    ingress -- handle, routed by key and load --> Engine-NAME (ray.serve.llm's vLLM, or any engine of ours)
            -- handle --> Ledger (one; owns the store and what is in flight)

``build`` is what a Serve config file imports: ``import_path: flexreward.serving.deployment:build`` with
``args: {recipe: /path/to/recipe.yaml}``, or the recipe's fields themselves.
"""

from __future__ import annotations

from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import RequestRouterConfig

from flexreward import __version__
from flexreward.fingerprint import digest
from flexreward.serving.ingress import JudgeIngress
from flexreward.serving.recipe import Copies, Scaling, ServedJudge, ServeRecipe, load_serve_recipe, parse_serve_recipe
from flexreward.serving.replica import EngineReplica
from flexreward.serving.shared_ledger import LedgerOwner

APP = "flexreward"
MANY = 100_000
"""Waits at the ledger: each is a question that stands open."""
ROUTER = "flexreward.serving.router:JudgeRouter"
HEALTH = {"health_check_period_s": 5.0, "health_check_timeout_s": 30.0}


def build(args: dict[str, Any]) -> Application:
    """The application.

    Args:
        args: ``{"recipe": PATH}``, or the fields of a recipe.

    Raises:
        RecipeError: One line with the field.
    """
    if set(args) == {"recipe"}:
        return application(load_serve_recipe(args["recipe"]))
    return application(parse_serve_recipe(args, "args"))


def application(recipe: ServeRecipe) -> Application:
    """The application that a recipe describes. Equal parts of two recipes have equal versions: those are not restarted
    when one follows the other."""
    ledger = serve.deployment(
        LedgerOwner,
        name="Ledger",
        num_replicas=1,
        max_ongoing_requests=MANY,
        ray_actor_options={"num_cpus": 0},
        health_check_period_s=1.0,
        health_check_timeout_s=10.0,
        graceful_shutdown_timeout_s=recipe.drain_s,
    ).bind(recipe.store)
    _known_as(ledger, recipe.store)
    engines = {name: _engine(name, served, recipe, ledger) for name, served in recipe.judges.items()}
    ingress = serve.deployment(
        JudgeIngress,
        name="Ingress",
        max_ongoing_requests=recipe.ingress_in_flight,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=recipe.drain_s,
        max_surge_percent=100,  # those of a changed recipe stand before the old ones go
        **_copies(recipe.ingress_replicas),
        **HEALTH,
    )
    return _known_as(ingress.bind(recipe.model_dump(), ledger, engines), recipe.version)


def _known_as(bound: Application, *parts: object) -> Application:
    """The application, with a version that follows from its parts and the library's own.

    Serve restarts every copy whose version is another, and draws one at random where none is told; this is the only way
    to tell it (ray 2.60).
    """
    bound._bound_deployment._version = digest([__version__, *map(repr, parts)])[:16]
    return bound


def _engine(name: str, served: ServedJudge, recipe: ServeRecipe, ledger: Application) -> Application:
    fields = served.judge.model_dump()
    # Two orders of a judgment are two prompts: room for both, so that none waits at the handle, which looks for room
    # at intervals.
    options: dict[str, Any] = {
        "max_ongoing_requests": 2 * served.max_in_flight,
        "request_router_config": RequestRouterConfig(request_router_class=ROUTER),
        "graceful_shutdown_timeout_s": recipe.drain_s,
        **_copies(served.replicas),
        **HEALTH,
    }
    restarts = served.model_copy(update={"group_reward": None})  # that is the ingress copies' alone
    if served.judge.engine == "vllm":
        from flexreward.serving.vllm_replica import vllm_deployment

        return _known_as(vllm_deployment(name, served, options, ledger), name, restarts)
    actor = {"num_cpus": served.cpus, "num_gpus": served.gpus}
    engine = serve.deployment(EngineReplica, name=f"Engine-{name}", ray_actor_options=actor, **options)
    return _known_as(engine.bind(fields, name, ledger), name, restarts)


def _copies(copies: Copies) -> dict[str, Any]:
    if not isinstance(copies, Scaling):
        return {"num_replicas": copies}
    return {
        "autoscaling_config": {
            "min_replicas": copies.min,
            "initial_replicas": copies.min,
            "max_replicas": copies.max,
            "target_ongoing_requests": copies.in_flight,
            "upscale_delay_s": copies.up_after_s,
            "downscale_delay_s": copies.down_after_s,
        }
    }
