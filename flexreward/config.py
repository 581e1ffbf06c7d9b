"""Recipes: a judge as a YAML file, and every other way to name one.

model: my-org/judge-7b        # a folder (seen from the recipe, then from here) or a hub id
engine: transformers
template: pair
temperature: 0.7
votes: 3
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from flexreward.errors import RecipeError
from flexreward.media.limits import FilmCaps, Limits, read_limits
from flexreward.stops import MOST_ERROR, check_stop

if TYPE_CHECKING:
    from flexreward.engines.base import Engine
    from flexreward.judge import Judge
    from flexreward.ledger import Ledger

BUNDLED = Path(__file__).parent / "bundled"
TINY = BUNDLED / "tiny-judge.yaml"
ENV = "FLEXREWARD_RECIPE"
SERVED = "served"
"""In place of an engine: a flexreward server judges (see ``flexreward.served``)."""
ADAPTED = ("transformers", "vllm")
"""Engines that take an adapter."""
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


class StopError(BaseModel):
    """A vote may end early at a stated risk (see ``flexreward.stops``)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    error: Annotated[float, Field(gt=0, le=MOST_ERROR)]
    """Largest share of votes that end with another winner than the full vote has."""


class EngineRecipe(BaseModel):
    """A model and how it is run: what ``open_engine`` reads. Judges that differ in nothing else may share an engine."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    model: str
    """A folder, a hub id, or what a plug-in engine makes of it; ``scripted:longer`` needs no model."""
    engine: str = "transformers"
    """``transformers``, ``vllm``, ``openai``, ``scripted``, or a class of your own, ``package.module:Class``."""
    lora: str | None = None
    """Folder of a LoRA adapter over the model, as peft saves it; ``transformers`` merges it into the weights, ``vllm``
    applies it beside them."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = "auto"
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Prompts in one padded batch of the embedded engine."""
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda`` or ``cuda:1``."""
    max_in_flight: Annotated[int, Field(ge=1)] = 64
    """Requests at work at once."""
    deadline_s: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = None
    """Longest time for one request, in seconds; what is not there by then is unscored."""
    media: dict[str, Any] = Field(default_factory=dict)
    """What images, sounds and films are held to, and how many frames of a film are shown: fields of
    ``flexreward.media.limits`` by name, such as ``image_pixels``, ``video_seconds``, ``fps``, ``frame_pixels``."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further keyword arguments of the engine; for ``openai`` see ``flexreward.engines.remote.Remote``."""

    @field_validator("media")
    @classmethod
    def _known_limits(cls, value: dict[str, Any]) -> dict[str, Any]:
        read_limits(value)
        return value

    @model_validator(mode="after")
    def _adapted(self) -> EngineRecipe:
        if self.lora is not None and self.engine not in ADAPTED:
            raise ValueError(f"lora is of the engines {' and '.join(ADAPTED)}, found {self.engine}; leave it out")
        if self.lora is not None and "lora" in self.options:
            raise ValueError("lora stands in options too; leave it out there")
        return self

    @property
    def limits(self) -> Limits:
        """What media are held to."""
        return read_limits(self.media)[0]

    @property
    def caps(self) -> FilmCaps:
        """Which frames of a film are shown."""
        return read_limits(self.media)[1]


R = TypeVar("R", bound=EngineRecipe)


class JudgeRecipe(EngineRecipe):
    """A judge: which model, what it reads, how its replies are drawn and counted."""

    template: str | None = None
    """Id of a template; by default the one that fits the number of completions (score, pair, batch)."""
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_tokens: Annotated[int, Field(ge=1)] = 1024
    """New tokens a reply; what ``think`` limits instead is the thought."""
    seed: int = 0
    votes: Annotated[int, Field(ge=1)] = 1
    """Replies to each order, from one prefill."""
    aggregate: Literal["mean", "median", "majority", "expected"] = "mean"
    """How the votes become one; ``expected`` weights each score by how likely the judge was to write it."""
    stop: Literal["none", "lossless"] | StopError = "none"
    """When a vote by majority, on who wins and no more, ends before its last reply: ``lossless`` once the rest cannot
    change it; ``{error: 0.05}`` also where that is unlikely."""
    both_orders: bool = True
    """Show several completions forward and reversed, and average."""
    prefill: bool = False
    """Start the judge's turn where its template says how."""
    waits: Annotated[int, Field(ge=0)] = 0
    """How often a thought that would end is made to go on."""
    think: Annotated[int | None, Field(ge=1)] = None
    """Most tokens of a thought, ``waits`` included. A thought that is longer is ended, and the answer after it is held
    to the form that the template reads, so that every reply has one; it takes what it needs beside the thought.
    ``max_tokens`` is not looked at then."""
    context: Literal["refuse", "cut"] = "refuse"
    """What becomes of a prompt that leaves no room for the reply: unscored, or cut at its head by as few characters as
    needed. Kept free are the tokens of the longest reply, at most half of the context. Outcomes say what was cut."""
    calibrator: str | None = None
    """A file that ``flexreward eval --calibrate`` wrote for this judge: rewards are probabilities then."""

    @model_validator(mode="after")
    def _votes_differ(self) -> JudgeRecipe:
        if self.votes > 1 and self.temperature == 0 and self.engine != "scripted":
            raise ValueError(
                f"votes is {self.votes} at temperature 0, which draws the same reply each time; set a temperature"
            )
        return self

    @field_validator("stop", mode="wrap")
    @classmethod
    def _known_stop(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError as error:
            rates = f"a rate above 0 and at most {MOST_ERROR:g}"
            raise ValueError(f"expected none, lossless or {{error: RATE}}, {rates}") from error

    @model_validator(mode="after")
    def _scores_have_no_stop(self) -> JudgeRecipe:
        check_stop(self.stop_error, aggregate=self.aggregate, num_completions=None)
        return self

    @property
    def stop_error(self) -> float | None:
        """As ``flexreward.stops`` has it: ``None`` without a stop, 0 for the lossless one."""
        if isinstance(self.stop, StopError):
            return self.stop.error
        return 0.0 if self.stop == "lossless" else None


def load_recipe(path: str | Path) -> JudgeRecipe:
    """The judge that a YAML file describes, the files that it names resolved. Nothing that it names is imported.

    Raises:
        RecipeError: One line with the file and the field.
    """
    path = Path(path)
    recipe = load_as(JudgeRecipe, path)
    if recipe.calibrator and (path.parent / recipe.calibrator).is_file():
        return recipe.model_copy(update={"calibrator": str(path.parent / recipe.calibrator)})
    return recipe


def load_as(kind: type[R], path: Path) -> R:
    """A recipe of that kind from a YAML file, the folders that it names resolved."""
    return with_folders(parse_as(kind, read_yaml(path), str(path)), path.parent)


def with_folders(recipe: R, folder: Path) -> R:
    """A recipe whose model and adapter are those that lie in ``folder``, where they do."""
    named = {name: value for name in ("model", "lora") if (value := getattr(recipe, name)) is not None}
    return recipe.model_copy(update={name: str(folder / it) for name, it in named.items() if (folder / it).is_dir()})


def parse_recipe(fields: Mapping[str, Any], where: str) -> JudgeRecipe:
    """A judge's recipe from its fields; ``where`` begins every message."""
    return parse_as(JudgeRecipe, fields, where)


def parse_as(kind: type[R], fields: Mapping[str, Any], where: str) -> R:
    """A recipe of that kind from its fields; ``where`` begins every message."""
    known = list(kind.model_fields)
    for name in fields:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1)
            hint = f", did you mean {near[0]!r}?" if near else ""
            raise RecipeError(f"{where}: unknown field {str(name)!r}{hint} (fields: {', '.join(known)})")
    try:
        return kind.model_validate(dict(fields))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        found = f", found {first['input']!r}" if field and first["type"] != "missing" else ""
        raise RecipeError(f"{where}: {field + ': ' if field else ''}{message}{found}") from error


def resolve_judge(name: str | Path | None = None) -> JudgeRecipe:
    """The judge that ``name`` means.

    Args:
        name: ``tiny`` (bundled), a recipe's path, a model's folder, a hub id, the address of a flexreward server
            (``http://host:8000``, or ``http://host:8000#NAME`` for one of its judges), the base URL of an
            OpenAI-compatible server that serves one model (``http://host:8000/v1``), or ``scripted:longer``; without
            one, the recipe that FLEXREWARD_RECIPE names, else ``tiny``.

    Raises:
        RecipeError: It means nothing, or a recipe is wrong.
    """
    source = "--judge"
    if name is None:
        name = os.environ.get(ENV) or "tiny"
        source = ENV if os.environ.get(ENV) else source
    text = str(name)
    if text == "tiny":
        return load_recipe(TINY)
    if is_server(text):
        return JudgeRecipe(model=text, engine=SERVED)
    if text.endswith((".yaml", ".yml")):
        return load_recipe(text)
    return named(JudgeRecipe, text, source)


def is_server(text: str) -> bool:
    """Whether it is the address of a flexreward server, which has no path: an OpenAI-compatible one has."""
    return text.startswith(("http://", "https://")) and not urlsplit(text).path.strip("/")


def named(kind: type[R], text: str, source: str) -> R:
    """The recipe that has nothing but a model: a server's base URL, a folder, a hub id or ``scripted:longer``.

    Args:
        source: The flag or the variable that says so; begins every message.
    """
    if text.startswith(("http://", "https://")):
        return kind(model=text, engine="openai")
    if text.startswith("scripted:"):
        return kind(model=text, engine="scripted")
    if Path(text).is_dir():
        if not (Path(text) / "config.json").is_file():
            raise RecipeError(f"{source} {text}: the folder holds no config.json, so it is no saved model")
        return kind(model=text)
    if Path(text).exists() or not HUB_ID.fullmatch(text):
        near = difflib.get_close_matches(text, ["tiny", "scripted:longer"], 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise RecipeError(
            f"{source} {text}: expected tiny, a model's folder, a hub id NAME/MODEL, a server's URL or a .yaml "
            f"recipe{hint}"
        )
    return kind(model=text)


def engine_part(recipe: JudgeRecipe) -> JudgeRecipe:
    """The recipe of a judge with the same engine, and all else left at its default."""
    return JudgeRecipe(**{name: getattr(recipe, name) for name in EngineRecipe.model_fields})


def open_engine(recipe: EngineRecipe) -> Engine:
    """The engine with its model loaded, media held to the recipe's limits.

    Raises:
        RecipeError: The judge is a flexreward server's, whose engine is its own.
    """
    if recipe.engine == SERVED:
        raise RecipeError(
            f"{recipe.model}: is a flexreward server's judge, which judge, best-of-n and pairs ask; its model itself "
            "answers at /v1 where its recipe has openai: true"
        )
    from flexreward.engines import load_engine
    from flexreward.media.decoder import shared_decoder

    if recipe.engine == "scripted":
        from flexreward.engines.scripted import ScriptedEngine
        from flexreward.engines.scripts import script_named

        return ScriptedEngine(script_named(recipe.model), name=recipe.model, **recipe.options)
    decoder = shared_decoder(recipe.limits, recipe.caps)
    if recipe.engine == "transformers":
        own: dict[str, Any] = {
            "device": recipe.device,
            "dtype": recipe.dtype,
            "attention": recipe.attention,
            "batch_size": recipe.batch_size,
            "decoder": decoder,
        }
        if recipe.lora is not None:
            own["lora"] = recipe.lora
        return load_engine("transformers", model=recipe.model, **own, **recipe.options)
    if recipe.engine == "openai":
        remote: dict[str, Any] = {"max_connections": recipe.max_in_flight, "decoder": decoder}
        if recipe.deadline_s is not None:
            remote["timeout_s"] = recipe.deadline_s
        return load_engine("openai", model=recipe.model, **(remote | recipe.options))
    if recipe.engine == "vllm":
        return load_engine("vllm", **vllm_options(recipe))
    limited = {"decoder": decoder} if recipe.media else {}
    return load_engine(recipe.engine, model=recipe.model, **limited, **recipe.options)


def vllm_options(recipe: EngineRecipe) -> dict[str, Any]:
    """What ``VLLMEngine`` is made with.

    Raises:
        RecipeError: The recipe sets what vLLM chooses by itself.
    """
    from flexreward.media.decoder import shared_decoder

    for field in ("attention", "device"):
        if getattr(recipe, field) != "auto":
            raise RecipeError(f"{field}: vLLM chooses its own, found {getattr(recipe, field)!r}; leave it out")
    own = {
        "model": recipe.model,
        "lora": recipe.lora,
        "dtype": recipe.dtype,
        "decoder": shared_decoder(recipe.limits, recipe.caps),
    }
    return own | recipe.options


def open_judge(
    recipe: JudgeRecipe,
    *,
    template: str | None = None,
    ledger: Ledger | None = None,
    engine: Engine | None = None,
    order_seed: int | None = None,
) -> Judge:
    """The judge with its model loaded.

    Args:
        template: Instead of the recipe's; ``pair`` where neither names one.
        engine: One that ``open_engine`` made of this recipe, so that several templates share a model.
        order_seed: Show each request in one order drawn from this and its id.
    """
    from flexreward.calibrator import load_calibrator, refuse_other
    from flexreward.engines.base import Sampling
    from flexreward.engines.forced import ForcedEngine
    from flexreward.engines.waiting import WaitingEngine
    from flexreward.files.outcomes import header_of
    from flexreward.judge import Judge
    from flexreward.templates import load_template

    # The template first: a wrong name should not cost the loading of a model.
    shown = load_template(template or recipe.template or "pair")
    if recipe.waits and shown.reasoning != "first":
        raise RecipeError(f"waits: the template {shown.id!r} has no thought before its answers to make longer")
    max_tokens = recipe.think or recipe.max_tokens
    sampling = Sampling(temperature=recipe.temperature, top_p=recipe.top_p, max_tokens=max_tokens, seed=recipe.seed)
    calibrator = load_calibrator(Path(recipe.calibrator)) if recipe.calibrator else None
    engine = engine or open_engine(recipe)
    engine = WaitingEngine(engine, recipe.waits) if recipe.waits else engine
    judge = Judge(
        ForcedEngine(engine) if recipe.think else engine,
        shown,
        sampling=sampling,
        votes=recipe.votes,
        aggregate=recipe.aggregate,
        stop=recipe.stop_error,
        both_orders=recipe.both_orders,
        order_seed=order_seed,
        prefill=recipe.prefill,
        context=recipe.context,
        ledger=ledger,
        deadline_s=recipe.deadline_s,
        calibrator=calibrator,
    )
    if calibrator is not None:
        refuse_other(calibrator, header_of(judge), where=f"calibrator {recipe.calibrator}")
    return judge


def read_yaml(path: Path) -> dict[str, Any]:
    """The fields of a YAML file, as they stand there.

    Raises:
        RecipeError: It cannot be read, is not YAML, or has a field twice.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """Plain values only, and no key twice."""

    def mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            name = loader.construct_object(key)
            if isinstance(name, list | dict) or name in seen:
                raise RecipeError(f"{path}: line {key.start_mark.line + 1}: the field {name!r} stands twice; keep one")
            seen.add(name)
        return dict(loader.construct_mapping(node, deep=True))

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    try:
        found = yaml.load(path.read_bytes(), Loader)  # a SafeLoader
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        at = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise RecipeError(f"{path}: {at}not YAML ({problem})") from error
    if not isinstance(found, dict):
        raise RecipeError(f"{path}: expected fields such as 'model: NAME', found {type(found).__name__}")
    return found
