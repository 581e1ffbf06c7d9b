"""Scripts for the scripted engine, by name: enough to try a training script or a recipe without a model.

``scripted:longer`` prefers the longer completion, ``scripted:first`` whatever stands in slot 1, ``scripted:mute`` says
nothing that could be read. They read the text turns of the bundled templates and judge nothing.
"""

from __future__ import annotations

import re

from flexreward.engines.base import Prompt
from flexreward.engines.scripted import Script
from flexreward.errors import RecipeError

HEADING = re.compile(r"\n\n\[Assistant(?: \d+)?'s Answer\]\n")
SCALE = re.compile(r"Score \w+ (\d+)-(\d+)")


def script_named(name: str) -> Script:
    """The script behind ``scripted:NAME``.

    Raises:
        RecipeError: There is no such script.
    """
    short = name.removeprefix("scripted:")
    if short not in SCRIPTS:
        raise RecipeError(f"model: no script {name!r}, expected one of {', '.join(f'scripted:{n}' for n in SCRIPTS)}")
    return SCRIPTS[short]


def longer(prompt: Prompt) -> str:
    """Half of the scale at 200 characters, more the longer it is; equal lengths tie."""
    low, high = _scale(prompt)
    lengths = [len(completion) for completion in _completions(prompt)]
    return _answer("Longer is better.", [low + (high - low) * length / (length + 200) for length in lengths])


def first(prompt: Prompt) -> str:
    """A judge with nothing but a position bias."""
    low, high = _scale(prompt)
    return _answer("The first is better.", [high, *[low] * (len(_completions(prompt)) - 1)])


def mute(prompt: Prompt) -> str:
    """Thinks, and gives no answer."""
    return "<think>Hm.</think>"


SCRIPTS: dict[str, Script] = {"longer": longer, "first": first, "mute": mute}


def _completions(prompt: Prompt) -> list[str]:
    return HEADING.split(prompt.user)[1:]


def _scale(prompt: Prompt) -> tuple[float, float]:
    found = SCALE.search(prompt.system)
    return (float(found[1]), float(found[2])) if found else (1.0, 10.0)


def _answer(thought: str, scores: list[float]) -> str:
    return f"<think>{thought}</think>" + "".join(f"<answer>{score:.3f}</answer>" for score in scores)
