"""A server of the bundled judge for as long as a program needs one."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

SERVER = Path("recipes/serve/tiny.yaml")


@contextmanager
def served(folder: Path, **changes: Any) -> Iterator[str]:
    """The address of ``flexreward serve recipes/serve/tiny.yaml`` on a free port, with nothing in its store.

    Args:
        folder: For its recipe, its store and its log.
        changes: Fields of its recipe.
    """
    folder.mkdir(parents=True, exist_ok=True)
    store, own, log = folder / "replies.sqlite", folder / "server.yaml", folder / "server.log"
    for old in folder.glob(f"{store.name}*"):
        old.unlink()
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        port = tried.getsockname()[1]
    fields = (
        yaml.safe_load(SERVER.read_text(encoding="utf-8")) | {"port": port, "store": str(store.absolute())} | changes
    )
    own.write_text(yaml.safe_dump(fields), encoding="utf-8")
    with log.open("w") as written:
        command = [sys.executable, "-m", "flexreward", "serve", str(own)]
        server = subprocess.Popen(command, stdout=written, stderr=subprocess.STDOUT)
    try:
        while "serving " not in log.read_text():
            if server.poll() is not None:
                raise SystemExit(f"{own}: the server did not start; see {log}")
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()
