"""Our own log lines, in the files that Serve writes for each process."""

from __future__ import annotations

import logging


def log_with_serve() -> None:
    """Write what ``flexreward`` logs in this process where Serve writes its own, at Serve's level."""
    theirs, ours = logging.getLogger("ray.serve"), logging.getLogger("flexreward")
    ours.handlers = theirs.handlers
    ours.setLevel(theirs.level)
    ours.propagate = False
