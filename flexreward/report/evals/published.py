"""Figures of other judges, as their authors published them."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple


class Published(NamedTuple):
    """One figure of one judge."""

    judge: str
    value: float
    """In the unit in which the benchmark computes it: accuracies are shares of 1."""
    source: str
    """Paper and table."""


def published(benchmark: str) -> dict[str, list[Published]]:
    """By figure, in the order of the file; empty where nothing is known of the benchmark."""
    found: dict[str, list[Published]] = {}
    for entry in entries():
        if entry["benchmark"] == benchmark:
            for figure, value in entry["figures"].items():
                found.setdefault(figure, []).append(Published(entry["judge"], value, entry["source"]))
    return found


@cache
def entries() -> list[dict[str, Any]]:
    """``benchmark``, ``judge``, ``source`` and ``figures`` by name, as the file has them."""
    text = files("flexreward.evals").joinpath("published.toml").read_text("utf-8")
    return list(tomllib.loads(text)["judged"])
