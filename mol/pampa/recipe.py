"""The task as a YAML file: data, label words, prompts, criteria, models. Another task of two labels is another file.

Every text that a model reads stands in the recipe, so nothing here knows of membranes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from flexreward.config import EngineRecipe, parse_as, read_yaml, with_folders
from flexreward.templates.molecules import MARK as MOL

COMPLETION = "{completion}"
Share = Annotated[float, Field(gt=0, lt=1)]


class Strict(BaseModel):
    """A part of a recipe: frozen, and no field that nobody reads."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Data(Strict):
    """Where the molecules are."""

    path: Path
    """Seen from the recipe, else from the working directory."""
    kind: Literal["csv", "json"] = "csv"
    """``csv``: a table with a header, cut at commas, or at tabs where the name ends in ``.tab`` or ``.tsv`` (as TDC
    saves them: ``Drug_ID, Drug, Y``). ``json``: the published ``pampa.json``."""
    smiles: str = "smiles"
    """Name of the column, or of the field of ``data_list``."""
    id: str | None = None
    """Column with a name for each row; without one its number, from 0."""
    skip_invalid: bool = False
    """Leave out rows whose SMILES RDKit does not read, and list them, in place of stopping."""
    own_prompts: bool = False
    """Take the styles of ``pampa.json`` in place of those written here."""

    @model_validator(mode="after")
    def _json_has_prompts(self) -> Data:
        if self.own_prompts and self.kind != "json":
            raise ValueError("own_prompts: only a file of kind json has prompts; leave it out")
        return self


class Definition(Strict):
    """One way to make two labels of what was measured."""

    column: str
    positive: list[str]
    """Values of the column, as they are written there."""
    negative: list[str] | None = None
    """The others; ``null`` takes every other value, and a list makes any further value an error."""


class Split(Strict):
    """Which molecules are for training, for setting thresholds, and for the figures."""

    kind: Literal["scaffold", "kfold", "file", "data", "column"]
    """``scaffold``: molecules of one Murcko scaffold stay together, the largest groups go to the training. ``kfold``:
    molecules of one connectivity block stay together; each fold is tested once, and the next one is its validation.
    ``file``: JSON, name to a list of row numbers (from 0) or SMILES. ``data``: the ``split`` of ``pampa.json``.
    ``column``: a column of the data names the part."""
    seed: int = 0
    """Of ``kfold``."""
    folds: Annotated[int, Field(ge=3)] = 5
    valid: Share = 0.1
    """Share of the molecules, of ``scaffold``."""
    test: Share = 0.2
    """The same. By default 7 : 1 : 2, as TDC splits."""
    path: Path | None = None
    """Of ``file``; seen from the recipe, else from the working directory."""
    column: str | None = None
    names: dict[Literal["train", "valid", "test"], str] = Field(
        default_factory=lambda: {"train": "train", "valid": "valid", "test": "test"}
    )
    """What the parts are called there. A part that is not there is empty, the test part excepted."""
    leaks: Literal["refuse", "drop"] = "refuse"
    """What becomes of training and validation molecules that stand in the test part too, by connectivity block:
    an error that names one, or they are left out and counted."""

    @model_validator(mode="after")
    def _complete(self) -> Split:
        for kind in ("path", "column"):
            if (getattr(self, kind) is None) == (self.kind == {"path": "file", "column": "column"}[kind]):
                need = "is missing" if getattr(self, kind) is None else f"is not read by {self.kind}; leave it out"
                raise ValueError(f"{kind}: {need}")
        if self.valid + self.test >= 1:
            raise ValueError("valid and test: leave nothing to train on; make them smaller")
        return self


class Word(Strict):
    """One of the two answers."""

    name: str
    """In tables: ``high``."""
    text: str
    """What the model is told to write: ``High permeability``."""
    published: list[str]
    """Phrases of which one is enough for the lenient reading, whatever stands around it."""


class Labels(Strict):
    """The two answers. Probabilities are those of the positive one."""

    positive: Word
    negative: Word
    marker: str = "Final answer:"
    """What stands before the answer."""


class Style(Strict):
    """One way to ask."""

    system: str
    user: str
    """The molecule stands where it says ``<mol>``."""

    @field_validator("user")
    @classmethod
    def _shows_the_molecule(cls, value: str) -> str:
        if MOL not in value:
            raise ValueError(f"shows no molecule; write {MOL} where it stands")
        return value


class Model(EngineRecipe):
    """A model that answers, and how it is run."""

    published: str | None = None
    """Row of ``published`` beside which its greedy answers are printed."""
    best_of_n: bool = False
    """Whether the judge chooses among its candidates too."""


class Answers(Strict):
    """How the greedy answers are drawn and read."""

    max_tokens: Annotated[int, Field(ge=1)] = 1024
    shown: Literal["molecule", "smiles"] = "molecule"
    """``smiles`` writes the SMILES into the text, for a model that reads nothing else."""
    continued: bool = False
    """Whether a reply without the marker is continued once by an empty line and ``Final answer: ``, as published."""
    probability: Literal["asked", "reply", "none"] = "asked"
    """Where the probability of the positive label comes from. ``asked``: the reply up to its answer is given as a
    started turn, and the answer written once more with log-probabilities, so that these are kept for a few tokens and
    not for a thousand. ``reply``: log-probabilities of the whole reply, for an engine that continues no turn."""
    answer_tokens: Annotated[int, Field(ge=1)] = 16
    """New tokens of an answer that is asked for."""


class Judging(Strict):
    """The judge of best-of-N: its texts, and what its scores are."""

    system: str
    user: str
    """``<mol>`` where the molecule stands, ``{completion}`` where the reply does."""
    scale: tuple[float, float] = (1.0, 10.0)
    reasoning: Literal["first", "last", "none"] = "first"
    """Where the judge's thought stands; see ``flexreward.parse``."""
    shown: Literal["molecule", "smiles"] = "molecule"
    """As ``answers.shown``."""
    max_tokens: Annotated[int, Field(ge=1)] = 1024
    threshold: float | None = None
    """Scores below it choose nobody, and their molecules count as wrong; ``null`` for no threshold, as published."""
    bins: list[float] = Field(default_factory=lambda: [6.0, 6.5, 7.0, 7.5, 8.0, 8.5, 9.0, 9.5])
    """Inner edges of the bins of scores; a score on an edge is in the bin above it."""

    @field_validator("user")
    @classmethod
    def _shows_both(cls, value: str) -> str:
        for slot in (MOL, COMPLETION):
            if slot not in value:
                raise ValueError(f"shows no {slot}; write it where it stands")
        return value


class BestOfN(Strict):
    """Candidates, and how one is chosen."""

    candidates: Annotated[int, Field(ge=1)] = 16
    n: list[Annotated[int, Field(ge=1)]] = Field(default_factory=lambda: [2, 4, 8, 16])
    trials: Annotated[int, Field(ge=1)] = 10
    """Draws of n candidates among all, and of one among the best."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """The paper names none; the published command is greedy, so that its candidates do not differ."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    judge: EngineRecipe
    judging: Judging

    @model_validator(mode="after")
    def _enough(self) -> BestOfN:
        if not self.n or max(self.n) > self.candidates:
            raise ValueError(f"n: {self.n} asks for more than the {self.candidates} candidates; raise candidates")
        return self


class Forest(Strict):
    """The control that knows nothing but fingerprints: a random forest, trained on the training part alone."""

    trees: Annotated[int, Field(ge=1)] = 500
    radius: Annotated[int, Field(ge=0)] = 2
    bits: Annotated[int, Field(ge=1)] = 2048
    balanced: bool = True
    """Whether the rarer label weighs more, so that both weigh alike in all."""


class Known(Strict):
    """A file that a model here was trained on: a table with a column of SMILES, or lines of JSON with such a field."""

    path: Path
    smiles: str = "smiles"


class Recipe(Strict):
    """A task of two labels about a molecule."""

    name: str
    data: Data
    tasks: Annotated[dict[str, Definition], Field(min_length=1)]
    """Label definitions by name. Answers are the same under all of them; tables are not."""
    split: Split
    labels: Labels
    styles: dict[str, Style] = Field(default_factory=dict)
    answers: Answers = Answers()
    models: dict[str, Model] = Field(default_factory=dict)
    """By the name that tables have. Without one, the constant and the forest are all that is told."""
    best_of_n: BestOfN | None = None
    forest: Forest = Forest()
    trained_on: list[Known] = Field(default_factory=list)
    """What the models learnt from. A test molecule in it is an error."""
    published: dict[str, dict[str, float]] = Field(default_factory=dict)
    """Row, then style, then the published accuracy in percent. ``best_of_n`` is printed beside best-of-N."""
    out: Path
    """Folder of everything that is bought and told; seen from the working directory."""
    seed: int = 0
    """Of the candidates, the trials, the forest and the intervals."""

    @model_validator(mode="after")
    def _fits(self) -> Recipe:
        if self.models and not (self.styles or self.data.own_prompts):
            raise ValueError("styles: the models are asked nothing; write a style")
        if any(model.best_of_n for model in self.models.values()) and self.best_of_n is None:
            raise ValueError("best_of_n: a model asks for it, and it is missing; name the judge there")
        if self.split.kind == "data" and self.data.kind != "json":
            raise ValueError("split: only data of kind json bring their own; take scaffold, kfold, file or column")
        for name, model in self.models.items():
            if model.published is not None and model.published not in self.published:
                raise ValueError(f"models.{name}.published: no row {model.published!r} in published; write it there")
        return self


def load_recipe(path: str | Path) -> Recipe:
    """The task that a YAML file describes, the files and folders that it names resolved. No engine is imported.

    Raises:
        RecipeError: One line with the file and the field.
    """
    path = Path(path)
    recipe = parse_recipe(read_yaml(path), str(path))
    folder = path.parent
    changes: dict[str, object] = {
        "data": recipe.data.model_copy(update={"path": _seen(folder, recipe.data.path)}),
        "models": {name: with_folders(model, folder) for name, model in recipe.models.items()},
        "trained_on": [known.model_copy(update={"path": _seen(folder, known.path)}) for known in recipe.trained_on],
    }
    if recipe.split.path is not None:
        changes["split"] = recipe.split.model_copy(update={"path": _seen(folder, recipe.split.path)})
    if recipe.best_of_n is not None:
        judge = with_folders(recipe.best_of_n.judge, folder)
        changes["best_of_n"] = recipe.best_of_n.model_copy(update={"judge": judge})
    return recipe.model_copy(update=changes)


def parse_recipe(fields: dict[str, object], where: str) -> Recipe:
    """A task from its fields; ``where`` begins every message."""
    return parse_as(Recipe, fields, where)  # type: ignore[type-var]  # made for engines, and reads any model


def _seen(folder: Path, path: Path) -> Path:
    return folder / path if (folder / path).exists() else path
