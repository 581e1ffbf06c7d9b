"""Scripts for the scripted engine, by name: enough to try a training script or a recipe without a model.

``scripted:longer`` prefers the longer completion, ``scripted:first`` whatever stands in slot 1, ``scripted:mute`` says
nothing that could be read. They read the turns of the bundled templates and judge nothing; media are equally long.
"""

from __future__ import annotations

import re

from flexreward.engines.base import Prompt
from flexreward.engines.scripted import Script
from flexreward.errors import RecipeError

HEADING = re.compile(r"\n\n\[Assistant(?:(?: Edited)? [1-9AB])?'s (?:Edited )?(?:Answer|Image|Video)\]\n")
SCALE = re.compile(r"(?:Score (?:the )?[a-z]+|scale|from) (?:from )?(\d+)(?:\.0)?(?:-| to )(\d+)")
LABELS = "[[A>B]]"
"""What stands in the instructions of a template that asks for a label."""


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
    if LABELS in prompt.system:
        return _label("Longer is better.", lengths)
    return _answer("Longer is better.", [low + (high - low) * length / (length + 200) for length in lengths])


def first(prompt: Prompt) -> str:
    """A judge with nothing but a position bias."""
    low, high = _scale(prompt)
    if LABELS in prompt.system:
        return _label("The first is better.", [1, 0])
    return _answer("The first is better.", [high, *[low] * (len(_completions(prompt)) - 1)])


def mute(prompt: Prompt) -> str:
    """Thinks, and gives no answer."""
    return "<think>Hm.</think>"


SCRIPTS: dict[str, Script] = {"longer": longer, "first": first, "mute": mute}


def _completions(prompt: Prompt) -> list[str]:
    # A turn without headings, such as BVCC's, shows one completion.
    return HEADING.split(prompt.user)[1:] or [""]


def _scale(prompt: Prompt) -> tuple[float, float]:
    found = SCALE.search(prompt.system)
    return (float(found[1]), float(found[2])) if found else (1.0, 10.0)


def _label(thought: str, scores: list[int]) -> str:
    better = {1: "[[A>B]]", -1: "[[B>A]]"}.get((scores[0] > scores[1]) - (scores[0] < scores[1]), "[[A=B=Good]]")
    return f"<think>{thought}</think><answer>{better}</answer>"


def _answer(thought: str, scores: list[float]) -> str:
    return f"<think>{thought}</think>" + "".join(f"<answer>{score:.3f}</answer>" for score in scores)
