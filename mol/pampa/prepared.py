"""Everything before a model is loaded: data read, split, and held to what models were trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from flexreward.errors import RecipeError
from mol.chem.identity import refuse_leaks
from mol.pampa.recipe import Recipe, Style
from mol.pampa.sources import Row, Source, known_molecules, labels_of, read_source
from mol.pampa.splits import Fold, split_rows
from mol.pampa.tables import tested


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Data, folds and words, as a run asks for them."""

    recipe: Recipe
    source: Source
    folds: tuple[Fold, ...]
    styles: Mapping[str, Style]

    @property
    def tested(self) -> list[Row]:
        return [self.source.rows[place] for place in tested(self.folds)]

    @property
    def asked(self) -> list[Row]:
        """Tested molecules, and those that thresholds are set on, each once, in the order of the file."""
        tuned = self.recipe.answers.probability != "none"
        places = {place for fold in self.folds for place in (*fold.test, *(fold.valid if tuned else ()))}
        return [self.source.rows[place] for place in sorted(places)]


def prepare(
    recipe: Recipe, *, limit: int | None = None, tasks: Sequence[str] = (), styles: Sequence[str] = ()
) -> Prepared:
    """Read and split the data, and refuse what leaks.

    Args:
        limit: Test, and validate on, so many molecules of each fold at most: to try a recipe.
        tasks: Some of the recipe's; by default all.
        styles: The same.

    Raises:
        LeakError: A test molecule stands in what a model was trained on.
        UserError: The data or the split are not as the recipe says.
    """
    source = read_source(recipe.data)
    known = dict(source.styles) if recipe.data.own_prompts else dict(recipe.styles)
    for kind, wanted, there in (("--task", tasks, recipe.tasks), ("--style", styles, known)):
        for name in wanted:
            if name not in there:
                raise RecipeError(f"{kind} {name}: the recipe has {', '.join(there)}")
    if tasks:
        recipe = recipe.model_copy(update={"tasks": {name: recipe.tasks[name] for name in tasks}})
    for task, definition in recipe.tasks.items():
        labels_of(source, task, definition)
    folds = split_rows(source, recipe.split)
    others = {str(known.path): known_molecules(known) for known in recipe.trained_on}
    refuse_leaks((source.rows[place].smiles for place in tested(folds)), others)
    if limit is not None:
        folds = tuple(replace(fold, test=fold.test[:limit], valid=fold.valid[:limit]) for fold in folds)
    shown = {name: style for name, style in known.items() if not styles or name in styles}
    return Prepared(recipe=recipe, source=source, folds=folds, styles=shown)
