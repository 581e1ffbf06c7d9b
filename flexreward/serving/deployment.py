"""The server as one Ray Serve application: ingress copies, one ledger, and copies of each judge's engine.

    ingress -- handle, routed by key and load --> Engine-NAME (ray.serve.llm's vLLM, or any engine of ours)
            -- actor --> Ledger (one; owns the store and what is in flight)

An engine of two parts (``flexreward.engines.apart``) stands there twice: Engine-NAME is the part in front, and hands
what it makes of prompts to Engine-NAME-llm.

``build`` is what a Serve config file imports: ``import_path: flexreward.serving.deployment:build`` with
``args: {recipe: /path/to/recipe.yaml}``, or the recipe's fields themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import RequestRouterConfig

from flexreward import __version__
from flexreward.config import JudgeRecipe, engine_part
from flexreward.engines import apart
from flexreward.fingerprint import digest
from flexreward.serving.ingress import JudgeIngress
from flexreward.serving.keeper import MANY, LedgerKeeper
from flexreward.serving.recipe import Copies, Scaling, ServedJudge, ServeRecipe, load_serve_recipe, parse_serve_recipe
from flexreward.serving.replica import EngineReplica

APP = "flexreward"
ROUTERS = {"keyed": "flexreward.serving.router:JudgeRouter", "any": "flexreward.serving.router:AnyRouter"}
ENGINE_FIELDS = ("replicas", "max_in_flight", "cpus", "gpus", "sleeps", "weights", "hang_s", "routing")
"""Of a served judge, beside its recipe: what its engine's copies follow from."""
HEALTH = {"health_check_period_s": 2.0, "health_check_timeout_s": 30.0}


def build(args: dict[str, Any]) -> Application:
    """The application.

    Args:
        args: ``{"recipe": PATH}``, or the fields of a recipe.

    Raises:
        RecipeError: One line with the field.
    """
    if set(args) == {"recipe"}:
        return application(load_serve_recipe(args["recipe"]), free=free_resources())
    return application(parse_serve_recipe(args, "args"), free=free_resources())


def application(recipe: ServeRecipe, *, free: Sequence[Mapping[str, float]] = ()) -> Application:
    """The application that a recipe describes. Equal parts of two recipes have equal versions: those are not restarted
    when one follows the other.

    Args:
        free: What each node has left (``free_resources``), by which new copies of an engine may stand beside old ones.
    """
    ledger = serve.deployment(
        LedgerKeeper,
        name="Ledger",
        num_replicas=1,
        max_ongoing_requests=MANY,
        ray_actor_options={"num_cpus": 0},
        health_check_period_s=1.0,
        health_check_timeout_s=10.0,
        graceful_shutdown_timeout_s=recipe.drain_s,
    ).bind(recipe.store)
    _known_as(ledger, recipe.store)
    engines = {name: _engine(name, served, recipe, ledger, free) for name, served in recipe.judges.items()}
    ingress = serve.deployment(
        JudgeIngress,
        name="Ingress",
        max_ongoing_requests=MANY,  # it counts them itself: Serve would let the others wait outside, for any time
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


def _engine(
    name: str, served: ServedJudge, recipe: ServeRecipe, ledger: Application, free: Sequence[Mapping[str, float]]
) -> Application:
    # Whatever else a judge is made of, such as its template, is the ingress copies' alone, and restarts no engine.
    kept = {name: getattr(served, name) for name in ENGINE_FIELDS}
    served = ServedJudge(judge=engine_part(served.judge), **kept)
    # Two orders of a judgment are two prompts: room for both, so that none waits at the handle, which looks for room
    # at intervals.
    options: dict[str, Any] = {
        "max_ongoing_requests": 2 * served.max_in_flight,
        "request_router_config": RequestRouterConfig(request_router_class=ROUTERS[served.routing]),
        "graceful_shutdown_timeout_s": recipe.drain_s,
        "max_surge_percent": surge_percent(served, free),
        **_copies(served.replicas),
        **HEALTH,
    }
    restarts = served.model_copy(update={"replicas": 1, "max_in_flight": 1})  # which Serve changes as copies run
    actor = {"num_cpus": served.cpus, "num_gpus": served.gpus}
    behind: tuple[Any, ...] = ()
    if (parts := apart(served.judge.engine, served.judge.model, served.judge.options)) is not None:
        from flexreward.serving.vllm_replica import vllm_deployment

        judge = JudgeRecipe.model_validate(served.judge.model_dump() | parts.behind)
        llm = vllm_deployment(
            name, served.model_copy(update={"judge": judge, "weights": None}), options, ledger, part="-llm"
        )
        behind = (parts.options, _known_as(llm, name, restarts))
        actor["num_gpus"] = 0  # they are for the model behind
    if served.judge.engine == "vllm":
        from flexreward.serving.vllm_replica import vllm_deployment

        return _known_as(vllm_deployment(name, served, options, ledger), name, restarts)
    engine = serve.deployment(EngineReplica, name=f"Engine-{name}", ray_actor_options=actor, **options)
    bound = engine.bind(served.judge.model_dump(), name, ledger, served.weights, served.hang_s, *behind)
    return _known_as(bound, name, restarts)


def surge_percent(served: ServedJudge, free: Sequence[Mapping[str, float]]) -> int:
    """How many copies of a changed engine may stand before as many old ones go, as Serve has it: as many as there is
    room for. Without room an old one goes first, and what is asked meanwhile waits for the new one.

    Args:
        free: What each node has left, by resource.
    """
    needed = {name: count for name, count in (("CPU", served.cpus), ("GPU", served.gpus)) if count}
    workers = int(served.judge.options.get("tensor_parallel", 1)) if served.judge.engine == "vllm" else 1
    if not needed:
        return 100
    bundles = sum(min(int(node.get(name, 0.0) / count) for name, count in needed.items()) for node in free)
    return min(100, 100 * (bundles // workers) // served.max_replicas)


def free_resources() -> list[dict[str, float]]:
    """What each node of the cluster that this process has joined has left, by resource."""
    import ray
    from ray._private.state import available_resources_per_node  # Ray tells it for the whole cluster alone elsewhere

    return list(available_resources_per_node().values()) if ray.is_initialized() else []


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
