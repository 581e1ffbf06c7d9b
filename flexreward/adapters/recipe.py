"""What a reward function in a training is told: by arguments, or by the recipe that FLEXREWARD_RECIPE names.

url: http://judge-host:8000     # a flexreward server; without one the judge runs in the training's process
judge: strict
num_generations: 8
max_completion_length: 512
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flexreward.client import DEADLINE_S
from flexreward.config import ENV, JudgeRecipe, read_yaml
from flexreward.errors import RecipeError


class RewardRecipe(BaseModel):
    """Where rewards come from, and what the judge is shown of a training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str | None = None
    """Of a flexreward server; its key is read from the environment variable FLEXREWARD_KEY."""
    judge: str = ""
    """One of the server's judges by name, its first where empty. Without a ``url`` the judge that runs in this process:
    whatever ``--judge`` takes."""
    deadline_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = DEADLINE_S
    """Longest time for the rewards of one batch; what is not there by then is ``None``."""
    group_reward: Literal["score", "win_rate", "bradley_terry", "listwise"] = "score"
    """How a judge in this process rewards the completions of a prompt; a server's own recipe says it there."""
    num_generations: Annotated[int | None, Field(ge=1)] = None
    """Completions of a prompt. Judges that compare need it where a group may be split over processes."""
    max_completion_length: Annotated[int | None, Field(ge=1)] = None
    """Tokens at which the trainer cuts a completion."""
    eos_token_ids: tuple[int, ...] = ()
    """Tokens that end a completion, padding included. Without them they are learned from completions that are shorter
    than others."""
    judge_sees: Literal["final", "all"] = "final"
    """``final`` hides the policy's own ``<think>`` from the judge."""
    cut: Literal["unscored", "judged"] = "unscored"
    """What becomes of a completion that was cut at its limit of tokens."""
    run: str = ""
    """Names the training at the server, the same on every process; by default made from what the launcher says."""
    name: str = "judge"
    """What its metrics begin with; two judges in one training need two names."""
    health: Literal["off", "alarm", "break"] = "alarm"
    """Whether the rewards are watched (see ``flexreward.monitor``); ``break`` also withholds them while an alarm is
    on."""
    canary_every: Annotated[int, Field(ge=0)] = 50
    """Every so many steps the first process has completions judged too that must score low, and the training's first
    ones again; 0 is never."""
    patience: Annotated[int, Field(ge=1)] = 3
    """Steps without a single score after which the training is stopped."""


FIELDS = frozenset(RewardRecipe.model_fields)


def recipe_of(options: Mapping[str, Any], *, where: str) -> RewardRecipe:
    """The recipe that arguments describe; where they name no judge, the one of FLEXREWARD_RECIPE, changed by them.

    Raises:
        RecipeError: One line with the field, or with what to give.
    """
    if options.get("url") or options.get("judge"):
        return _valid(options, where)
    named = os.environ.get(ENV, "").strip()
    if not named:
        raise RecipeError(f"{where}: no judge is named; give url= or judge=, or set {ENV} to a recipe or a URL")
    return _valid(_named(named) | dict(options), ENV)


def _named(named: str) -> dict[str, Any]:
    """What FLEXREWARD_RECIPE stands for. A URL that ends in /v1 is a model's server, any other a flexreward server."""
    if named.startswith(("http://", "https://")):
        return {"judge": named} if named.rstrip("/").endswith("/v1") else {"url": named}
    if not named.endswith((".yaml", ".yml")):
        return {"judge": named}
    fields = read_yaml(Path(named))
    ours = FIELDS - JudgeRecipe.model_fields.keys()
    if not fields.keys() & ours:
        return {"judge": named}
    judge = fields.get("judge")
    if fields.get("url") is None and isinstance(judge, str) and (Path(named).parent / judge).exists():
        fields["judge"] = str(Path(named).parent / judge)  # files that it names lie beside it
    return fields


def _valid(fields: Mapping[str, Any], where: str) -> RewardRecipe:
    for name, value in fields.items():
        if isinstance(value, list) and name in FIELDS and name != "eos_token_ids":
            raise RecipeError(
                f"{where}: {name} is a list; if the data set has a column of that name, rename it: here it is an option"
            )
    try:
        return RewardRecipe.model_validate(dict(fields))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise RecipeError(
                f"{where}: unknown field {field!r}, expected one of {', '.join(RewardRecipe.model_fields)}"
            ) from error
        message = first["msg"].removeprefix("Value error, ")
        raise RecipeError(f"{where}: {field}: {message}, found {first['input']!r}") from error
