"""``flexreward serve``: a judge behind HTTP, until it is told to stop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def serve(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A serve recipe, such as recipes/serve/tiny.yaml.")],
) -> None:
    """Put the judges of a recipe behind one HTTP server, on Ray Serve.

    It is ready once a first judgment has come back, and prints its URL then. SIGTERM or ctrl-C ends it: no more is
    accepted, what was accepted is answered, and it exits with 0. SIGHUP reads the recipe anew: what has changed is
    replaced while it serves, and what was accepted is answered. Calls of /v1/sleep and /v1/reload, with an admin's key,
    lend a judge's memory to others for a while, and change a judge's weights.

    [bold]flexreward serve recipes/serve/tiny.yaml[/bold]
    """
    import signal
    import sys
    import threading

    from flexreward.errors import UserError
    from flexreward.serving.recipe import load_serve_recipe
    from flexreward.serving.start import roll_out, running

    def say(line: str) -> None:
        print(f"flexreward: {line}", file=sys.stderr, flush=True)

    def stop(number: int, frame: object) -> None:
        if stopped.is_set() or not serving.is_set():  # nothing was accepted, or whoever asks twice does not wait
            raise KeyboardInterrupt
        stopped.set()
        woken.set()

    def read_anew(number: int, frame: object) -> None:
        changed.set()
        woken.set()

    def listen() -> None:
        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        signal.signal(signal.SIGHUP, read_anew)

    resolved = load_serve_recipe(recipe)
    stopped, serving, changed, woken = (threading.Event() for _ in range(4))
    try:
        with running(resolved, say=say, begun=listen) as url:
            serving.set()
            print(f"serving {', '.join(resolved.judges)} at {url}", flush=True)
            while not stopped.is_set():
                woken.wait()
                woken.clear()
                if not changed.is_set() or stopped.is_set():
                    continue
                changed.clear()
                try:
                    newer = load_serve_recipe(recipe)
                    roll_out(newer, instead_of=resolved, say=say, given_up=stopped.is_set)
                    resolved = newer
                except UserError as error:
                    say(f"the recipe that runs stays: {error}")
            say("ending")
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
