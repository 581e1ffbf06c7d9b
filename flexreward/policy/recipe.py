"""Which policy, and how its completions are drawn.

model: my-org/policy-7b
engine: vllm
temperatures: [0.8, 1.2]
completions: 4
max_tokens: 1024
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from flexreward.config import BUNDLED, EngineRecipe, load_as, named

TINY = BUNDLED / "tiny-policy.yaml"
Temperature = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class PolicyRecipe(EngineRecipe):
    """A policy: which model, and how its completions are drawn."""

    temperatures: Annotated[list[Temperature], Field(min_length=1)] = Field(default_factory=lambda: [0.8, 1.2])
    """Completions are drawn at each, in this order. By default those of arXiv 2505.18601, appendix B.4.2."""
    completions: Annotated[int, Field(ge=1)] = 1
    """So many at each temperature, from one prefill."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_tokens: Annotated[int, Field(ge=1)] = 1024
    """New tokens a completion. One that needs more is cut, and marked so."""
    seed: int = 0
    system: str = ""
    """Shown before every prompt that brings no system turn of its own."""

    @model_validator(mode="after")
    def _completions_differ(self) -> PolicyRecipe:
        if len(set(self.temperatures)) < len(self.temperatures):
            raise ValueError("temperatures: one stands there twice; raise completions to draw more at it")
        if self.completions > 1 and 0 in self.temperatures and self.engine != "scripted":
            raise ValueError(
                f"completions is {self.completions} at temperature 0, which draws the same completion each time"
            )
        return self


def resolve_policy(name: str) -> PolicyRecipe:
    """The policy that ``name`` means.

    Args:
        name: ``tiny`` (bundled), a recipe's path, a model's folder, a hub id; the base URL of an OpenAI-compatible
            server that serves one model; or the address of a vLLM server as ``trl vllm-serve`` starts it, without a
            path.

    Raises:
        RecipeError: It means nothing, or a recipe is wrong.
    """
    if name == "tiny":
        return load_as(PolicyRecipe, TINY)
    if name.endswith((".yaml", ".yml")):
        return load_as(PolicyRecipe, Path(name))
    if name.startswith(("http://", "https://")) and not urlsplit(name).path.strip("/"):
        return PolicyRecipe(model=f"{name.rstrip('/')}/v1", engine="openai", options={"dialect": "vllm"})
    return named(PolicyRecipe, name, "--policy")
