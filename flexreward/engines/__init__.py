"""Engines by name. Each is imported when it is asked for, so that a name costs nothing until it is used."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from flexreward.engines.base import Engine
from flexreward.errors import RecipeError

ENGINES = {
    "openai": "flexreward.engines.openai:OpenAIEngine",
    "scripted": "flexreward.engines.scripted:ScriptedEngine",
    "transformers": "flexreward.engines.transformers:TransformersEngine",
    "vllm": "flexreward.engines.vllm:VLLMEngine",
}


def load_engine(name: str, **options: Any) -> Engine:
    """The engine of that name, or the class at ``module:Class``, made with ``options``.

    Raises:
        RecipeError: There is no such engine, or it does not take such an option.
        JudgeError: The model that the options name cannot be loaded.
    """
    make = _find(name)
    parameters = inspect.signature(make).parameters.values()
    known = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    if len(known) == len(parameters):
        for option in options:
            if option not in known:
                raise RecipeError(f"engine {name}: unknown option '{option}', expected one of {', '.join(known)}")
    for p in parameters:
        if p.default is p.empty and p.kind is not p.VAR_KEYWORD and p.name not in options:
            raise RecipeError(f"engine {name}: option '{p.name}' is missing")
    return cast(Engine, make(**options))


class Apart(NamedTuple):
    """An engine of two parts that a server runs apart: one in front, which hands prompts on to the one behind."""

    behind: dict[str, Any]
    """Fields of the recipe of the engine behind."""
    options: dict[str, Any]
    """Of the one in front, which gets the other as ``behind``."""


def apart(name: str, model: str, options: Mapping[str, Any]) -> Apart | None:
    """The parts of an engine whose class says that it has them (``behind_it``); ``None`` for any other.

    Raises:
        RecipeError: There is no such engine, or it cannot be run apart with these options.
    """
    if name in ENGINES or ":" not in name:
        return None
    found = getattr(_find(name), "behind_it", None)
    return None if found is None else cast("Apart | None", found(model, **options))


def _find(name: str) -> Any:
    path = ENGINES.get(name, name)
    module, colon, attribute = path.partition(":")
    if not colon:
        near = difflib.get_close_matches(name, ENGINES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(ENGINES)}, or module:Class"
        raise RecipeError(f"unknown engine '{name}': {hint}")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise RecipeError(f"engine {name} cannot be imported: {error}") from error
