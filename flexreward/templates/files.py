"""Templates as TOML: the bundled texts, and files of the user's own. Everything a reader may get wrong is said here.

A template is either written out (``system``) or put together from pieces, the way the published prompts are:
``head(scope) + " " + body + " " + tail(noun, dot, example)``. Pieces and user turns are named or written out.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from flexreward.errors import RecipeError
from flexreward.parse import Reader, Reasoning
from flexreward.templates.molecules import Molecules
from flexreward.templates.text import JudgeSees
from flexreward.types import Scale

BUNDLED = ("flex_judge.toml", "variants.toml", "molecules.toml")
OPENING: dict[Reasoning, str] = {"first": "<think>\n", "last": "<answer>", "none": "<answer>"}

Tables = dict[str, dict[str, Any]]
"""``heads``, ``bodies``, ``tails``, ``users``, ``questions`` and ``templates``, each by name."""


class TemplateFields(BaseModel):
    """The fields of one template, as they stand in a file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = ""
    """Its name in outcomes; the file's own name if left out."""
    system: str | None = None
    """The whole system prompt; leaves out all pieces below."""
    head: str = "plain"
    scope: str = "both assistants"
    body: str | None = None
    tail: str = "plain"
    noun: str = "scores"
    dot: str = ","
    example: str | tuple[float, ...] = ""
    """Numbers on ``scale`` stay in proportion when another scale is asked for."""
    user: str
    scale: tuple[float, float]
    reader: Reader = "scores"
    reasoning: Reasoning = "first"
    judge_sees: JudgeSees = "final"
    molecules: Molecules = "text"
    """``placed``: for a model that is shown molecules, each where the prompt or ``<molecule>`` says."""
    prefix: str | None = None
    """What a started assistant turn begins with; by default ``<think>`` or ``<answer>``, whichever comes first."""

    def system_text(self, tables: Tables, scale: Scale, *, where: str) -> str:
        """The system prompt with its example on ``scale``; ``{low}`` and ``{high}`` are still open."""
        if self.system is not None:
            return self.system
        if self.body is None:
            raise RecipeError(f"{where}: expected a system or a body, found neither")
        head = _piece(tables, "heads", self.head, where=where).replace("{scope}", self.scope)
        body = _piece(tables, "bodies", self.body, where=where)
        tail = _piece(tables, "tails", self.tail, where=where).replace("{noun}", self.noun).replace("{dot}", self.dot)
        return f"{head} {body} {tail.replace('{ex}', self.shown_example(scale))}"

    def user_text(self, tables: Tables, *, where: str) -> str:
        return _piece(tables, "users", self.user, where=where)

    def shown_example(self, scale: Scale) -> str:
        if isinstance(self.example, str):
            return self.example
        own = Scale(low=self.scale[0], high=self.scale[1])
        values = [scale.low + own.fraction(value) * (scale.high - scale.low) for value in self.example]
        # Whole numbers where the scale has room for them, so that the example does not ask for decimals.
        shown = [f"{value:.0f}" if scale.high - scale.low >= 4 else f"{value:.2g}" for value in values]
        return " " + "".join(f"<answer>{value}</answer>" for value in shown)


@cache
def bundled() -> Tables:
    """The texts that ship, all files together; ``templates`` holds raw fields by id."""
    tables: Tables = {}
    for name in BUNDLED:
        for table, entries in tomllib.loads((Path(__file__).parent / name).read_text("utf-8")).items():
            tables.setdefault(table, {}).update(entries)
    return tables


def read_file(path: Path) -> dict[str, Any]:
    """The raw fields of a user's own template."""
    try:
        return {"id": path.stem, **tomllib.loads(path.read_text("utf-8"))}
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: is not TOML: {error}") from None


def checked(raw: dict[str, Any], *, where: str) -> TemplateFields:
    try:
        fields = TemplateFields.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0])
        if first["type"] == "extra_forbidden":
            raise RecipeError(
                f"{where}: unknown field {field!r}, {nearest(field, TemplateFields.model_fields)}"
            ) from None
        if first["type"] == "missing":
            raise RecipeError(f"{where}: field {field!r} is missing") from None
        raise RecipeError(f"{where}: {field}: {first['msg']}, found {first['input']!r}") from None
    return fields


def nearest(name: str, known: Iterable[str]) -> str:
    """``did you mean ...`` where something is close, else everything there is."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(close)}?" if close else f"expected one of {', '.join(names)}"


def _piece(tables: Tables, table: str, name_or_text: str, *, where: str) -> str:
    """A named piece, or the text itself; a single word that names nothing is a slip."""
    named = tables[table]
    if name_or_text in named:
        return str(named[name_or_text])
    if re.fullmatch(r"[\w-]+", name_or_text):
        raise RecipeError(f"{where}: {table} has no {name_or_text!r}, {nearest(name_or_text, named)}")
    return name_or_text
