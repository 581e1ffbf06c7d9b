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
    accepted, what was accepted is answered, and it exits with 0.

    [bold]flexreward serve recipes/serve/tiny.yaml[/bold]
    """
    import signal
    import sys
    import threading

    from flexreward.serving.recipe import load_serve_recipe
    from flexreward.serving.start import running

    def say(line: str) -> None:
        print(f"flexreward: {line}", file=sys.stderr, flush=True)

    def stop(number: int, frame: object) -> None:
        if stopped.is_set() or not serving.is_set():  # nothing was accepted, or whoever asks twice does not wait
            raise KeyboardInterrupt
        stopped.set()

    def listen() -> None:
        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)

    resolved = load_serve_recipe(recipe)
    stopped, serving = threading.Event(), threading.Event()
    try:
        with running(resolved, say=say, begun=listen) as url:
            serving.set()
            print(f"serving {', '.join(resolved.judges)} at {url}", flush=True)
            stopped.wait()
            say("ending")
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
