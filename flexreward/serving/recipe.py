"""A server as a YAML file: which judges it serves, how many copies of each, to whom, and within which bounds.

judge: tiny                   # anything that --judge takes, or the fields of a judge recipe
port: 8000
---
judges:                       # several, by name; the first answers where none is named
  general: {judge: judge-7b.yaml, replicas: 4, gpus: 1}
  quick: tiny
reward_keys: {file: keys.txt}
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from flexreward.config import JudgeRecipe, load_recipe, parse_recipe, read_yaml, resolve_judge, with_folders
from flexreward.errors import RecipeError
from flexreward.fingerprint import digest

GroupReward = Literal["score", "win_rate", "bradley_terry", "listwise"]
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
KEY = re.compile(r"[A-Za-z0-9._~+=-]{16,512}")
"""Such a key can stand in a header and in a path as it is."""
MIB = 2**20


class _Fields(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


Fields = TypeVar("Fields", bound=_Fields)


class Scaling(_Fields):
    """How many copies there are, by how much is asked of them."""

    min: Annotated[int, Field(ge=1)] = 1
    max: Annotated[int, Field(ge=1)]
    in_flight: Annotated[float, Field(gt=0)] = 16.0
    """Requests that each copy should have at work; more copies are started above it, some stopped below it."""
    up_after_s: Annotated[float, Field(ge=0)] = 30.0
    down_after_s: Annotated[float, Field(ge=0)] = 600.0

    @model_validator(mode="after")
    def _rising(self) -> Scaling:
        if self.max < self.min:
            raise ValueError(f"max is {self.max}, below min, which is {self.min}")
        return self


Copies = Annotated[int, Field(ge=1)] | Scaling


class Keys(_Fields):
    """Where keys are kept: never in the recipe itself."""

    file: str | None = None
    """One key a line; empty lines and those that begin with # are skipped."""
    env: str | None = None
    """Name of an environment variable that holds keys, spaces between them."""

    @model_validator(mode="after")
    def _one_place(self) -> Keys:
        if (self.file is None) == (self.env is None):
            raise ValueError("expected {file: PATH} or {env: NAME}")
        return self

    def read(self, field: str) -> tuple[str, ...]:
        """The keys.

        Raises:
            RecipeError: There are none, or one is too short or could not stand in a path.
        """
        if self.env is not None:
            place, text = f"the environment variable {self.env}", os.environ.get(self.env, "").replace(" ", "\n")
        else:
            place = str(self.file)
            try:
                text = Path(place).read_text()
            except (OSError, UnicodeDecodeError) as error:
                raise RecipeError(f"{field}: {place} cannot be read: {error}") from error
        keys = tuple(line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#"))
        if not keys:
            raise RecipeError(
                f"{field}: {place} holds no key; python -c 'import secrets; print(secrets.token_urlsafe())'"
            )
        for number, key in enumerate(keys, 1):
            if not KEY.fullmatch(key):
                raise RecipeError(f"{field}: key {number} in {place}: expected 16 or more of A-Z a-z 0-9 . _ ~ + = -")
        return keys


class ServedJudge(_Fields):
    """A judge and the copies of its engine."""

    judge: JudgeRecipe
    replicas: Copies = 1
    """Copies of the engine."""
    max_in_flight: Annotated[int, Field(ge=1)] = 64
    """Prompts that one copy has at work at once."""
    routing: Literal["keyed", "any"] = "keyed"
    """Which copy is asked: the one that has read the same prompt or the same media, as far as its load allows, or
    whichever is less busy."""
    cpus: Annotated[float, Field(ge=0)] = 1.0
    """Cores that one copy reserves."""
    gpus: Annotated[float, Field(ge=0)] = 0.0
    """GPUs that one copy reserves; with vLLM, those of each of its workers."""
    weights: Annotated[str | None, Field(pattern="^[0-9a-f]{64}$")] = None
    """Digest that the model's files must have, as ``/v1/reload`` tells it: a copy that finds others does not start."""
    hang_s: Annotated[float, Field(gt=0)] = 900.0
    """A copy that has prompts at work for so long and answers none is started anew: more seconds than a reply takes."""
    group_reward: GroupReward | None = None
    """Where this judge's rewards come about in another way than the recipe's ``group_reward``."""
    sleeps: bool = False
    """With vLLM on a GPU: start it so that ``/v1/sleep`` can free its memory, whose weights wait in the host's
    meanwhile. Other engines need no word: they are closed and opened again."""

    @property
    def max_replicas(self) -> int:
        return self.replicas if isinstance(self.replicas, int) else self.replicas.max


class ServeRecipe(_Fields):
    """One server: everything that ``flexreward serve`` starts."""

    judges: Annotated[dict[str, ServedJudge], Field(min_length=1)]
    """By name. The first answers where a request names none."""
    host: str = "127.0.0.1"
    """Address that is listened on. Any but a loopback address needs ``reward_keys``."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    reward_keys: Keys | None = None
    """Whoever has one may ask for judgments; without this field everybody who reaches the port may."""
    admin_keys: Keys | None = None
    """Whoever has one may do everything; none of them may be a reward key too."""
    ingress_replicas: Copies = 1
    """Copies of what renders, reads and answers; they share one ledger."""
    ingress_in_flight: Annotated[int, Field(ge=1)] = 4096
    """HTTP requests that one of them has open at once; more are answered 429."""
    deadline_s: Annotated[float, Field(gt=0, le=86_400)] = 300.0
    """Longest time for one call, in seconds; what is not there by then is unscored."""
    max_body_bytes: Annotated[int, Field(ge=1024)] = 64 * MIB
    """Longest body of a request."""
    body_s: Annotated[float, Field(gt=0)] = 60.0
    """Longest time for a body to come, in seconds."""
    max_requests: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Judgments or rewards that one call may ask for."""
    max_waiting: Annotated[int, Field(ge=1)] = 10_000
    """Judgments that one ingress copy has accepted and not yet answered; beyond it calls are refused with 429."""
    store: str | None = None
    """File of the replies that were bought; the user's cache directory where it is left out, ``none`` keeps nothing."""
    share_verdicts: bool = False
    """Whether what was bought under one key answers the same request under another."""
    media_hosts: tuple[str, ...] = ()
    """Hosts that images, sounds and films may be fetched from; none by default."""
    neutral: Annotated[float, Field(ge=0, le=1)] = 0.5
    """What stands for an unscored completion where a framework takes no null and its group has no mean."""
    reload_from: str | None = None
    """Folder that ``/v1/reload`` may take weights from, on every node the same; without one it takes none."""
    asleep: Literal["refuse", "wait"] = "refuse"
    """What becomes of a request while the judge sleeps: 503 with Retry-After, or waiting until its deadline."""
    group_reward: GroupReward = "score"
    """How a completion's reward comes about: from its own score, or from comparing it with its group."""
    openai: bool = False
    """Whether the judges' models themselves answer at ``/v1/chat/completions``, under the same keys."""
    drain_s: Annotated[float, Field(ge=0)] = 60.0
    """Longest wait at the end for what was accepted."""
    dashboard: bool = False
    """Whether Ray's own dashboard is started, on loopback."""

    @model_validator(mode="before")
    @classmethod
    def _one_or_several(cls, fields: Any) -> Any:
        if not isinstance(fields, Mapping) or "judge" not in fields:
            return fields
        if "judges" in fields:
            raise ValueError("judge and judges exclude each other; name them all under judges")
        return {"judges": {"judge": fields["judge"]}, **{name: fields[name] for name in fields if name != "judge"}}

    @model_validator(mode="after")
    def _names(self) -> ServeRecipe:
        for name in self.judges:
            if not NAME.fullmatch(name):
                raise ValueError(f"judges: the name {name!r} is no word of letters, digits, _ and -")
        return self

    @model_validator(mode="after")
    def _behind_a_key(self) -> ServeRecipe:
        if self.reward_keys is None and not is_loopback(self.host):
            raise ValueError(
                f"host: {self.host} can be reached from elsewhere; set reward_keys, or listen on 127.0.0.1"
            )
        return self

    @property
    def version(self) -> str:
        """Names everything that the running server follows from, so that equal recipes restart nothing."""
        return digest(self.model_dump(mode="json"))[:16]

    def keys(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Reward keys and admin keys, read now.

        Raises:
            RecipeError: One cannot be read, or is both.
        """
        reward = self.reward_keys.read("reward_keys") if self.reward_keys else ()
        admin = self.admin_keys.read("admin_keys") if self.admin_keys else ()
        if set(reward) & set(admin):
            raise RecipeError("admin_keys: one of them is a reward key too; they must differ")
        return reward, admin


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_serve_recipe(path: str | Path) -> bool:
    """Whether a YAML file describes a server, not a judge: it has ``judge`` or ``judges``."""
    return str(path).endswith((".yaml", ".yml")) and bool({"judge", "judges"} & read_yaml(Path(path)).keys())


def load_serve_recipe(path: str | Path) -> ServeRecipe:
    """The server that a YAML file describes, every judge and file that it names resolved. Nothing is imported.

    Raises:
        RecipeError: One line with the file and the field.
    """
    path = Path(path)
    return parse_serve_recipe(read_yaml(path), str(path), folder=path.parent)


def parse_serve_recipe(fields: Mapping[str, Any], where: str, *, folder: Path | None = None) -> ServeRecipe:
    """A recipe from its fields.

    Args:
        where: Begins every message.
        folder: Where relative paths begin, if anything lies there.
    """
    folder = folder or Path()
    _known(fields, (*ServeRecipe.model_fields, "judge"), where)
    values = dict(fields)
    if "judge" in values:
        values["judge"] = _served(values["judge"], f"{where}: judge", folder)
    if isinstance(judges := values.get("judges"), Mapping):
        values["judges"] = {
            str(name): _served(value, f"{where}: judges.{name}", folder) for name, value in judges.items()
        }
    elif "judge" not in values:
        raise RecipeError(f"{where}: judges: expected names, each with a judge, such as judges: {{main: tiny}}")
    for name in ("reward_keys", "admin_keys"):
        if isinstance(keys := values.get(name), Mapping):
            _known(keys, Keys.model_fields, f"{where}: {name}")
            if isinstance(keys.get("file"), str):
                values[name] = {"file": str(folder / keys["file"])}
    if "ingress_replicas" in values:
        values["ingress_replicas"] = _copies(values["ingress_replicas"], f"{where}: ingress_replicas")
    if isinstance(values.get("media_hosts"), list):
        values["media_hosts"] = tuple(values["media_hosts"])
    if isinstance(store := values.get("store"), str) and store != "none":
        values["store"] = str(folder / store)
    if isinstance(reload_from := values.get("reload_from"), str):
        values["reload_from"] = str(folder / reload_from)
    return _validated(ServeRecipe, values, where)


def _served(value: Any, where: str, folder: Path) -> ServedJudge:
    """A judge by any of its names, by its fields, or with what surrounds it."""
    if isinstance(value, Mapping) and "model" not in value:
        _known(value, ServedJudge.model_fields, where)
        if "judge" not in value:
            raise RecipeError(f"{where}: the field judge is missing: tiny, a model's folder, a hub id or a recipe.yaml")
        values = {**value, "judge": _judge(value["judge"], f"{where}.judge", folder)}
        if "replicas" in values:
            values["replicas"] = _copies(values["replicas"], f"{where}.replicas")
        return _validated(ServedJudge, values, where)
    return ServedJudge(judge=_judge(value, where, folder))


def _copies(value: Any, where: str) -> Any:
    if not isinstance(value, Mapping):
        return value
    _known(value, Scaling.model_fields, where)
    return _validated(Scaling, value, where)


def _judge(value: Any, where: str, folder: Path) -> JudgeRecipe:
    if isinstance(value, Mapping):
        return with_folders(parse_recipe(value, where), folder)
    if not isinstance(value, str):
        raise RecipeError(f"{where}: expected a judge's name or its fields, found {value!r}")
    if value.endswith((".yaml", ".yml")):
        return load_recipe(folder / value)
    try:
        return resolve_judge(str(folder / value) if (folder / value).is_dir() else value)
    except RecipeError as error:
        raise RecipeError(f"{where}: {str(error).removeprefix('--judge ')}") from error


def _known(fields: Mapping[str, Any], known: Any, where: str) -> None:
    for name in fields:
        if name not in known:
            near = difflib.get_close_matches(str(name), list(known), 1)
            hint = f", did you mean {near[0]!r}?" if near else ""
            raise RecipeError(f"{where}: unknown field {str(name)!r}{hint} (fields: {', '.join(known)})")


def _validated(model: type[Fields], values: Mapping[str, Any], where: str) -> Fields:
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        # A union names which of its kinds was tried: a reader knows none of them.
        field = ".".join(str(part) for part in first["loc"] if part not in ("int", "Scaling", "constrained-int"))
        message = first["msg"].removeprefix("Value error, ")
        found = f", found {first['input']!r}" if field and first["type"] not in ("missing", "value_error") else ""
        raise RecipeError(f"{where}: {field + ': ' if field else ''}{message}{found}") from error
