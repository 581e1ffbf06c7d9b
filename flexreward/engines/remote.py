"""How a server is to be asked: the options of an ``openai`` recipe, checked without asking it."""

from __future__ import annotations

import json
import os
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from flexreward.engines.base import Capabilities
from flexreward.engines.escape import Escape
from flexreward.errors import JudgeError, RecipeError

OURS = (
    *("model", "messages", "n", "temperature", "top_p", "max_tokens", "seed", "stop", "logprobs", "top_logprobs"),
    *("stream", "add_generation_prompt", "continue_final_message", "include_stop_str_in_output", "return_token_ids"),
    "structured_outputs",
)
"""Fields of a request that are set here, and by no ``extra_body``."""


class Remote(BaseModel):
    """An OpenAI-compatible server and one of its models."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    base_url: str
    """Up to and with ``/v1``: ``/chat/completions`` and ``/models`` follow it."""
    model: str | None = None
    """As the server calls it; without one, the only one that it serves."""
    api_key_env: Annotated[str | None, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = None
    """Name of the environment variable that holds the key. No key is sent to a server for which none is named."""
    dialect: Literal["openai", "vllm"] = "openai"
    """``vllm`` servers also go on with started turns, hold replies to patterns, and end them at stop strings that stay
    in the text. What others write is cut at a stop string here, when it is whole."""
    modalities: list[Literal["image", "audio", "video"]] = []
    """What the model is shown beside text. Video needs the vllm dialect."""
    logprobs: bool = True
    """Whether the server reports log-probabilities when asked."""
    special_tokens: list[str] = []
    """Special tokens of the served model beyond those of Qwen2.5 and Llama-3, to be escaped in what is judged."""
    split_votes: bool = False
    """Ask for each reply in a request of its own: for servers that know no ``n``; replies then come as they end."""
    seeds: bool = True
    """Whether a drawn reply is asked for with a seed; ``False`` for servers that fail on one."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Further fields of every request, such as ``chat_template_kwargs``."""
    timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 600.0
    """Longest time for one request with all that is tried again, in seconds."""
    retries: Annotated[int, Field(ge=0)] = 8
    """How often a request that failed on the way is sent again."""
    max_connections: Annotated[int, Field(ge=1)] = 64
    """Requests at the server at once."""

    @field_validator("base_url")
    @classmethod
    def _is_base_url(cls, url: str) -> str:
        import httpx

        try:
            found = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise ValueError(f"no URL ({error})") from error
        if found.userinfo:
            raise ValueError("a URL here holds no user and no password; name the variable of the key in api_key_env")
        if found.scheme not in ("http", "https") or not found.host or found.query or found.fragment:
            raise ValueError("expected a URL such as http://localhost:8000/v1")
        return url.rstrip("/")

    @field_validator("extra_body")
    @classmethod
    def _is_not_ours(cls, body: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted(body.keys() & set(OURS)):
            raise ValueError(f"{', '.join(taken)} cannot be set there; it is set by this engine")
        try:
            json.dumps(body, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"cannot be sent as JSON ({error})") from error
        return body

    @property
    def can(self) -> Capabilities:
        vllm = self.dialect == "vllm"
        shown = frozenset({"text", *self.modalities}) - (frozenset() if vllm else {"video"})
        return Capabilities(prefix=vllm, logprobs=self.logprobs, constrained=vllm, modalities=shown)

    @property
    def escape(self) -> Escape:
        return Escape(more=tuple(self.special_tokens))

    def key(self) -> str | None:
        """The key itself, which nothing but a request's header may hold.

        Raises:
            JudgeError: The variable is not set, or what it holds can stand in no header.
        """
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env, "").strip()
        if not key:
            raise JudgeError(f"{self.base_url}: the environment variable {self.api_key_env} holds no key; set it")
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise JudgeError(f"{self.base_url}: the environment variable {self.api_key_env} holds no key; set it anew")
        return key


def read_options(model: str, options: dict[str, Any]) -> Remote:
    """The options of a recipe. A ``model`` that is a URL is the server, and its only model is meant.

    Raises:
        RecipeError: One line with the option.
    """
    is_url = model.startswith(("http://", "https://"))
    if is_url and "base_url" in options:
        raise RecipeError("engine openai: base_url is given, and the model is a URL too; name the model there")
    try:
        return Remote.model_validate({"base_url" if is_url else "model": model} | options)
    except ValidationError as error:
        first = error.errors()[0]
        option = ".".join(str(part) for part in first["loc"])
        if first["type"] == "missing":
            raise RecipeError(
                f"engine openai: option '{option}' is missing, such as http://localhost:8000/v1"
            ) from error
        if first["type"] == "extra_forbidden":
            known = ", ".join(name for name in Remote.model_fields if name != "model")
            raise RecipeError(f"engine openai: unknown option '{option}', expected one of {known}") from error
        raise RecipeError(f"engine openai: {option}: {first['msg'].removeprefix('Value error, ')}") from error
