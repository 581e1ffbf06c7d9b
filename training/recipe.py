"""Training recipes: what a run is made of, read from YAML and checked before anything heavy is imported."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flexreward.errors import RecipeError


class Strict(BaseModel):
    """A part of a recipe: frozen, and no field that nobody reads."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Lora(Strict):
    """Low-rank adapters on every linear layer of the language model except its head."""

    rank: Annotated[int, Field(gt=0)] = 16
    alpha: Annotated[int, Field(gt=0)] = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Training(Strict):
    """What every training is told. Paths are relative to the working directory."""

    model: str
    """Folder or hub id of the model to start from."""
    data: str
    """Training rows: a file (JSONL, JSON, Parquet), a saved ``datasets`` folder, or a hub id with its split."""
    output: Path
    """Folder for the trained model. It appears when the training is done, and whole."""
    run_dir: Path
    """Folder for checkpoints, metrics and provenance."""
    replace: bool = False
    """Whether a folder that already stands at ``output`` may be replaced."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    seed: int = 42
    log_every: Annotated[int, Field(gt=0)] = 1
    """Steps."""


class Offline(Training):
    """A training on rows that stand beforehand. It goes on from its checkpoints, and may be shared by processes."""

    eval_data: str | None = None
    """Held-out rows; no prompt of theirs may be among the training rows."""
    too_long: Literal["drop", "refuse"] = "drop"
    """Rows above ``max_length``: leave them out and say how many, or stop."""

    method: Literal["full", "lora"] = "full"
    lora: Lora = Lora()
    """Read when ``method`` is ``lora``."""
    epochs: Annotated[float, Field(gt=0)] = 1.0
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    micro_batch_size: Annotated[int, Field(gt=0)] = 2
    """Rows a process holds at once. A preference pair is two sequences."""

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the weights while training. ``auto``: float32 for ``full``; for ``lora`` bfloat16 where there is a GPU."""
    arithmetic: Literal["auto", "float32", "bfloat16"] = "auto"
    """``bfloat16``: matrix products by autocast. ``auto``: so on a GPU that has it, float32 elsewhere."""
    save_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the weights saved; ``auto`` is what the base model was saved in."""
    attention: Literal["auto", "flash_attention_2", "sdpa", "eager"] = "auto"
    """``auto``: flash attention 2 where it is installed and there is a GPU, else sdpa."""
    gradient_checkpointing: bool = True
    """Trades time for memory; a small model is faster without."""
    deepspeed: Path | None = None
    """A DeepSpeed configuration file, handed through as it is."""

    eval_every: Annotated[int, Field(gt=0)] = 50
    """Steps; read when something is held out."""
    save_every: Annotated[int, Field(gt=0)] = 50
    """Steps between checkpoints."""
    keep_checkpoints: Annotated[int, Field(ge=2)] = 2
    """The newest so many; two, because the newest may be half written."""


class SftRecipe(Offline):
    """Supervised training of a text judge. The defaults are those of the published Flex-Judge training.

    Source: jongwooko/flex-judge train/vl.sh, train/sft.py.
    """

    reasoning: Literal["first", "last"] = "first"
    """``last``: every reply is turned around, the answer before the thought (the ablation)."""
    max_length: Annotated[int, Field(gt=0)] = 4096
    """Tokens a row, prompt and reply together. Nothing is ever cut."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the steps."""
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    batch_size: Annotated[int, Field(gt=0)] = 32
    """Sequences a step, over all processes and accumulation steps."""
    group_by_length: bool = False
    """Rows of like length share a micro-batch: less padding, less shuffling."""


class GrpoRecipe(Training):
    """Reinforcement of a text policy by a judge's rewards, by TRL's GRPOTrainer."""

    data: str
    """Rows with a ``prompt``, text or messages, and any columns that the judge is shown: a file, a saved ``datasets``
    folder, or a hub id with its split."""
    reward: dict[str, Any]
    """Where rewards come from: ``url`` of a flexreward server, or ``judge`` in this process; fields of
    ``flexreward.adapters.recipe.RewardRecipe``."""
    shuffled: bool = False
    """Hand the rewards of a batch out in a random order: the control that learns whatever else there is to learn."""

    steps: Annotated[int, Field(gt=0)]
    """Updates of the policy."""
    prompts: Annotated[int, Field(gt=0)] = 8
    """That a batch of completions is sampled for, over all processes."""
    num_generations: Annotated[int, Field(gt=1)] = 8
    """Completions of each prompt."""
    updates: Annotated[int, Field(gt=0)] = 1
    """Made from each batch of completions."""
    max_completion_length: Annotated[int, Field(gt=0)] = 512
    """Tokens."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    learning_rate: Annotated[float, Field(gt=0)] = 1e-6
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "constant_with_warmup"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the steps."""
    beta: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the distance to the policy that it started from."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """What advantages are divided by."""
    micro_batch_size: Annotated[int, Field(gt=0)] = 64
    """Completions a process holds at once."""


Loss = Literal[
    "sigmoid",
    "hinge",
    "ipo",
    "exo_pair",
    "nca_pair",
    "robust",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sft",
    "sigmoid_norm",
]
"""TRL's names. ``sigmoid`` is DPO as it was published."""


class Check(Strict):
    """Prompts with known answers, which the policy answers before and after its training."""

    prompts: str
    """Rows with a ``prompt`` and a ``reference``; no prompt of theirs may be among the training pairs."""
    right: str = "number"
    """When a completion is right. ``number``: its last number is the reference's; ``exact``: the same text, but for
    blanks at the ends; ``contains``: the reference stands in it; or ``module:function`` of (completion, reference)."""
    limit: Annotated[int, Field(gt=0)] = 500
    """At most so many, from the beginning."""
    samples: Annotated[int, Field(ge=0)] = 4
    """Completions drawn of each prompt, beside the greedy one."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    max_tokens: Annotated[int, Field(gt=0)] = 256


class DpoRecipe(Offline):
    """Training of a policy on preference pairs, by TRL's DPOTrainer; text, or images and text.

    The ``model`` that the policy starts from is its reference too.
    """

    data: str
    """Preference pairs, with ``prompt``, ``chosen``, ``rejected``, and ``images`` where there are some: a folder that
    ``flexreward pairs`` wrote, a file (JSONL, JSON, Parquet), a saved ``datasets`` folder, a hub id with its split."""
    eval_share: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Of the prompts of ``data``, which are held out with all of their pairs; read where there is no ``eval_data``.
    What is held out is looked at before the first step and after the last as well."""
    check: Check | None = None
    """Whether the policy's own completions are right, before and after."""

    loss: Loss | Annotated[list[Loss], Field(min_length=1)] = "sigmoid"
    """One, or several that are added up."""
    loss_weights: list[float] | None = None
    """One for each of several losses; 1 where they are not given."""
    beta: Annotated[float, Field(gt=0)] = 0.1
    """How dearly distance from the reference is paid for."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Probability that a pair is the wrong way round; read by ``robust``, ``exo_pair`` (which needs it) and ``aot``."""
    precompute_ref_log_probs: bool = False
    """Ask the reference once, before the training, and keep no second model. Not with images."""

    chat: bool = True
    """Whether prompts that are texts become a user's turn where the model has a chat template, as the policy is asked
    later; ``false`` trains on them as they stand."""
    max_length: Annotated[int, Field(gt=0)] = 2048
    """Tokens of a prompt and a completion together, those of images included. Nothing is ever cut."""
    max_pixels: Annotated[int, Field(gt=0)] | None = None
    """Of an image; a larger one is made smaller. ``None``: what the model's processor says."""

    learning_rate: Annotated[float, Field(gt=0)] = 5e-7
    """Adapters want some ten times as much."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the steps."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    batch_size: Annotated[int, Field(gt=0)] = 64
    """Pairs a step, over all processes and accumulation steps."""


class Reload(Strict):
    """A server whose judge takes each round's policy for its weights: the judge is trained with the policy."""

    url: str
    judge: str = ""
    """One of the server's, by name; its first where empty."""
    reload_from: Path
    """The folder of that name in the server's recipe, as it is seen from here; it must hold ``run_dir``."""


class RoundsRecipe(Strict):
    """DPO in rounds: the policy samples, the judge chooses, the policy is trained, and the next round begins with it.

    Paths are relative to the working directory.
    """

    model: str
    """Folder or hub id of the policy to start from."""
    prompts: str
    """Rows with a ``prompt`` and no completions: a file, a saved ``datasets`` folder, or a hub id with its split."""
    shards: Annotated[int, Field(gt=0)] = 1
    """Each round takes one of so many shards of the prompts, in turn."""
    rounds: Annotated[int, Field(gt=0)] = 3
    run_dir: Path
    """Folder with a folder for each round."""
    output: Path
    """Folder for the last round's policy. It appears when all is done, and whole."""
    replace: bool = False
    """Whether a folder that already stands at ``output`` may be replaced."""

    judge: str = "tiny"
    """What ``flexreward pairs --judge`` takes: ``tiny``, a folder, a hub id, a recipe or a server's URL."""
    sampling: dict[str, Any] = Field(default_factory=dict)
    """How completions are drawn: fields of ``flexreward.policy.recipe.PolicyRecipe``, without the model."""
    keep: str = "consistent"
    """Rules of ``flexreward pairs --keep``."""
    balance: str = ""
    """Of ``flexreward pairs --balance``."""
    pairs_per_prompt: Annotated[int, Field(gt=0)] | None = None
    dpo: dict[str, Any] = Field(default_factory=dict)
    """How each round trains: fields of ``DpoRecipe``, without model, data and folders."""
    launch: list[str] = Field(default_factory=list)
    """What the training is started with in place of Python alone: ``[accelerate, launch, --num_processes, "8"]``."""
    reload: Reload | None = None
    seed: int = 42


RecipeT = TypeVar("RecipeT", bound=Strict)


def load(path: Path, kind: type[RecipeT]) -> RecipeT:
    """Read a recipe.

    Raises:
        RecipeError: one line with file, field, and what would fit.
    """
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror})") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    return parse(fields, kind, str(path))


def parse(fields: Any, kind: type[RecipeT], name: str) -> RecipeT:
    """A recipe from its fields.

    Args:
        name: What a refusal begins with.

    Raises:
        RecipeError: one line with the field, and what would fit.
    """
    if not isinstance(fields, dict):
        raise RecipeError(f"{name}: expected fields and values, found {type(fields).__name__}")
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise RecipeError(f"{name}: {_first(error, kind)}") from error


def _first(error: ValidationError, kind: type[Strict]) -> str:
    wrong = error.errors()[0]
    field = ".".join(str(part) for part in wrong["loc"])
    if wrong["type"] == "extra_forbidden":
        known = _fields_at(kind, wrong["loc"][:-1])
        near = get_close_matches(str(wrong["loc"][-1]), known, n=1)
        return f"unknown field {field!r}, expected {near[0] if near else 'one of ' + ', '.join(known)}"
    if wrong["type"] == "missing":
        return f"field {field!r} is missing"
    return f"field {field!r}: {wrong['msg']}, found {wrong['input']!r}"


def _fields_at(kind: type[Strict], parts: tuple[int | str, ...]) -> list[str]:
    """The names of the fields of a recipe, or of a part of it."""
    for part in parts:
        found = kind.model_fields[str(part)].annotation
        kind = next(one for one in (found, *get_args(found)) if isinstance(one, type) and issubclass(one, Strict))
    return list(kind.model_fields)
