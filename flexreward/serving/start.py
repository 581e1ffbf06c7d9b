"""A server on this machine: a Ray cluster of its own where none is named, the application on it, and an orderly end."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any

from flexreward.errors import JudgeError, RecipeError
from flexreward.serving.recipe import ServeRecipe

APP = "flexreward"
CLUSTER = "RAY_ADDRESS"
"""Environment variable that names a running cluster, which then is used and left as it is."""
POLL_S = 0.5

Say = Callable[[str], None]


@contextlib.contextmanager
def running(recipe: ServeRecipe, *, say: Say, begun: Callable[[], None] = lambda: None) -> Iterator[str]:
    """Serve ``recipe`` until the block ends; what was accepted by then is answered first, within ``drain_s``.

    Args:
        begun: Called once Ray runs, whose start sets handlers of signals.

    Yields:
        The URL, once a first judgment has come back.

    Raises:
        RecipeError: Ray is not installed, or the port is taken.
        JudgeError: A judge cannot be started; one line.
    """
    environment()
    try:
        import ray
        from ray import serve
    except ImportError as error:
        from flexreward.health import extra_command

        raise RecipeError(f"serve: Ray is not installed; {extra_command('serve')}") from error
    recipe.keys()
    own = not os.environ.get(CLUSTER)
    if own:
        check_port(recipe.host, recipe.port)
    say("starting Ray" if own else f"joining the Ray cluster at {os.environ[CLUSTER]}")
    ray.init(**ray_options(recipe, own=own))
    try:
        begun()
        deploy(recipe, say=say)
        url = f"http://{recipe.host}:{recipe.port}"
        _until_ready(url, say=say)
        yield url
        _drained(recipe, say=say)
    finally:
        if own:
            serve.shutdown()
        else:
            with contextlib.suppress(Exception):
                serve.delete(APP)
        ray.shutdown()


def environment() -> None:
    """What Ray reads from the environment, before it is imported: its ports stand on the loopback address or take a
    token, its workers yield to nobody, and it reports nothing."""
    if not os.environ.get(CLUSTER):
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        # Without clusters, which is how Ray runs on other systems, its node is 127.0.0.1. Else it takes the machine's
        # own address although it is told that one, and its metrics there ask for no token (ray 2.60).
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        os.environ.setdefault("RAY_worker_niceness", "0")  # a server is no background work: a training would starve it
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


def ray_options(recipe: ServeRecipe, *, own: bool) -> dict[str, Any]:
    """What ``ray.init`` is called with."""
    if not own:
        return {"namespace": APP, "log_to_driver": False}
    # A plug-in engine may be one of two parts, each of which takes as much.
    parts = [2 if ":" in one.judge.engine else 1 for one in recipe.judges.values()]
    needed = sum(num * one.cpus * one.max_replicas for num, one in zip(parts, recipe.judges.values(), strict=True))
    return {
        "namespace": APP,
        "address": "local",
        "_node_ip_address": "127.0.0.1",
        "include_dashboard": recipe.dashboard,
        "dashboard_host": "127.0.0.1",
        # Cores are a count of who may run, and nobody else shares this cluster.
        "num_cpus": max(os.cpu_count() or 1, int(needed) + 1),
        "log_to_driver": False,
        "logging_level": "ERROR",
    }


def deploy(recipe: ServeRecipe, *, say: Say, given_up: Callable[[], bool] = lambda: False) -> None:
    """Put the application on the cluster and wait until every copy runs. Where another recipe runs there, what differs
    is replaced, and what was accepted is answered.

    Args:
        given_up: Whether to wait no longer.

    Raises:
        JudgeError: One cannot be started.
    """
    from ray import serve
    from ray.serve.config import HTTPOptions

    serve.start(http_options=HTTPOptions(host=recipe.host, port=recipe.port), logging_config=_quiet())
    put(recipe)
    shown = ""
    while not given_up():
        status = serve.status().applications.get(APP)
        if status is not None:
            parts = [
                f"{name} {sum(n for state, n in one.replica_states.items() if state == 'RUNNING')}"
                f"/{sum(one.replica_states.values())}"
                for name, one in status.deployments.items()
            ]
            line = f"copies that run: {', '.join(parts)}"
            if parts and line != shown:
                say(line)
                shown = line
            if status.status == "RUNNING":
                return
            if status.status in ("DEPLOY_FAILED", "UNHEALTHY"):
                raise JudgeError(f"the server does not start: {why(status)}")
        time.sleep(POLL_S)


def put(recipe: ServeRecipe) -> None:
    """Tell Serve what is to run, and return; it goes on by itself."""
    from ray import serve

    from flexreward.serving.deployment import application, free_resources

    built = application(recipe, free=free_resources())
    target = serve.RunTarget(target=built, name=APP, route_prefix="/", logging_config=_quiet())
    serve.run_many([target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)


def roll_out(recipe: ServeRecipe, *, instead_of: ServeRecipe, say: Say, given_up: Callable[[], bool]) -> None:
    """Serve another recipe from now on.

    Args:
        given_up: Whether to wait no longer.

    Raises:
        RecipeError: It cannot be: it listens elsewhere, or a key cannot be read.
        JudgeError: A judge cannot be started.
    """
    for name in ("host", "port"):
        if getattr(recipe, name) != getattr(instead_of, name):
            raise RecipeError(f"{name}: a server that runs cannot be moved; start another")
    recipe.keys()
    deploy(recipe, say=say, given_up=given_up)
    _until_ready(f"http://{recipe.host}:{recipe.port}", say=say, given_up=given_up)
    say(f"the recipe {recipe.version} runs")


def _quiet() -> Any:
    """Ray writes paths into its access log, and a key may stand in one."""
    from ray.serve.schema import LoggingConfig

    return LoggingConfig(enable_access_log=False, log_level="WARNING")


def check_port(host: str, port: int) -> None:
    """Refuse a port that something listens on.

    Raises:
        RecipeError: One does.
    """
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((host, port))
        except OSError as error:
            raise RecipeError(
                f"port: {port} on {host} cannot be listened on ({error.strerror}); set another"
            ) from error


def _until_ready(url: str, *, say: Say, given_up: Callable[[], bool] = lambda: False) -> None:
    import httpx

    say("waiting for a first judgment")
    while not given_up():
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/readyz", timeout=10, trust_env=False).status_code == 200:
                return
        time.sleep(POLL_S)


def _drained(recipe: ServeRecipe, *, say: Say) -> None:
    """Close the door at every ingress copy, and wait until nobody is inside any more."""
    from ray import serve

    ledger = serve.get_deployment_handle("Ledger", APP)
    until = time.monotonic() + recipe.drain_s
    while (num_open := ledger.close_door.remote().result(timeout_s=10)) and time.monotonic() < until:
        say(f"answering what was accepted: {num_open} open")
        time.sleep(POLL_S)


def why(status: Any) -> str:
    """What the last error of whichever deployment failed says, in one line."""
    messages = [one.message for one in status.deployments.values() if one.message] + [status.message]
    lines = [line.strip() for message in messages for line in message.splitlines() if line.strip()]
    at = max((i for i, line in enumerate(lines) if "Error" in line), default=len(lines) - 1)
    # A class that pydantic refused is named in the first line, and why in the next.
    return " ".join(lines[at : at + 2])[:500] if lines else "Serve gives no reason"
