"""Whether a completion is right, where its row knows the answer. A judge is never told."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable

from flexreward.errors import RecipeError

Right = Callable[[str, str], bool]
"""From a completion and the reference."""

NUMBER = re.compile(r"-?\d+(?:[.,]\d+)*")


def _last_number(text: str) -> str | None:
    found = NUMBER.findall(text)
    return found[-1].replace(",", "") if found else None


def same_number(completion: str, reference: str) -> bool:
    """The last number of either, thousands with or without their commas."""
    found = _last_number(completion)
    return found is not None and found == _last_number(reference)


RIGHT: dict[str, Right] = {
    "number": same_number,
    "exact": lambda completion, reference: completion.strip() == reference.strip(),
    "contains": lambda completion, reference: reference in completion,
}


def right_named(name: str, where: str) -> Right:
    """One of ``RIGHT``, or what ``module:function`` names.

    Args:
        where: The field or flag that says so.

    Raises:
        RecipeError: There is no such function.
    """
    if name in RIGHT:
        return RIGHT[name]
    module, colon, function = name.partition(":")
    if not colon:
        raise RecipeError(f"{where}: no {name!r}, expected one of {', '.join(RIGHT)}, or module:function")
    try:
        found: Right = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise RecipeError(f"{where}: {name} cannot be imported: {error}") from error
    return found
