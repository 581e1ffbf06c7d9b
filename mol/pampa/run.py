"""The whole task: data read and split, models asked and judged, everything told. What is bought is kept."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import numpy as np
import sklearn

from flexreward import __version__
from flexreward.config import EngineRecipe, open_engine
from flexreward.engines.base import Engine
from flexreward.errors import RecipeError
from flexreward.evals.table import Floats
from flexreward.files.whole import replaced
from flexreward.fingerprint import digest
from flexreward.inflight import map_in_order
from flexreward.jobs.progress import meter
from flexreward.ledger import Ledger
from flexreward.ledger.store import Store
from flexreward.types import Judgment, Unscored
from mol.chem.identity import refuse_leaks
from mol.pampa.asking import Answer, Asker, Candidate, Scorer, row_of
from mol.pampa.forest import forest_scores
from mol.pampa.recipe import Recipe, Style
from mol.pampa.sources import Row, Source, known_molecules, labels_of, read_source
from mol.pampa.splits import Fold, split_rows
from mol.pampa.tables import Asked, Replies, table_of, tested

T = TypeVar("T")
R = TypeVar("R")
Opens = Callable[[EngineRecipe], Engine]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Everything before a model is loaded."""

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


def evaluate(prepared: Prepared, *, opens: Opens = open_engine, models: bool = True) -> dict[str, Any]:
    """Ask, judge and tell everything; ``out`` then holds ``results.json`` and the replies.

    Args:
        opens: Makes an engine of its recipe; one is open at a time.
        models: ``False`` tells the constant and the forest alone.

    Raises:
        JudgeError: A model failed; run the same again, and nothing that was bought is bought again.
    """
    recipe, out = prepared.recipe, prepared.recipe.out
    out.mkdir(parents=True, exist_ok=True)
    replies = Replies()
    if models and recipe.models:
        with Store(out / "replies.sqlite") as store:
            replies = asyncio.run(ask_all(prepared, Ledger(store), opens))
        _write_replies(prepared, replies)
    tables = {}
    for task in recipe.tasks:
        forest_FN = _forest(prepared, task)
        tables[task] = table_of(recipe, prepared.source, prepared.folds, task, replies, forest_FN)
    results = {
        "flexreward": __version__,
        "name": recipe.name,
        "data": _data(prepared.source),
        "split": {
            "kind": recipe.split.kind,
            "folds": [
                {part: len(getattr(fold, part)) for part in ("train", "valid", "test", "dropped")}
                for fold in prepared.folds
            ],
        },
        "labels": {"positive": recipe.labels.positive.name, "negative": recipe.labels.negative.name},
        "tasks": tables,
        "recipe": recipe.model_dump(mode="json"),
    }
    with replaced(out / "results.json") as file:
        file.write(json.dumps(results, indent=1, ensure_ascii=False).encode() + b"\n")
    return results


async def ask_all(prepared: Prepared, ledger: Ledger, opens: Opens) -> Replies:
    """Every model its questions, then the judge; one engine is open at a time."""
    recipe = prepared.recipe
    greedy: dict[Asked, dict[str, Answer]] = {}
    drawn: dict[Asked, dict[str, tuple[Answer, ...]]] = {}
    for name, model in recipe.models.items():
        engine = opens(model)
        try:
            asker = Asker(name, model, recipe, engine, ledger)
            for style_name, style in prepared.styles.items():
                asked = Asked(name, style_name)
                label = f"{name}, {style_name}"

                async def one(row: Row, style: Style = style, asker: Asker = asker) -> Answer:
                    return await asker.greedy(row, style)

                async def several(row: Row, style: Style = style, asker: Asker = asker) -> tuple[Answer, ...]:
                    return await asker.candidates(row, style)

                greedy[asked] = await _each(prepared.asked, one, label, model.max_in_flight, _of_answer)
                if model.best_of_n:
                    drawn[asked] = await _each(
                        prepared.tested, several, f"{label}, candidates", model.max_in_flight, _of_answers
                    )
        finally:
            await engine.close()
    return Replies(greedy=greedy, candidates=await _judged(prepared, drawn, ledger, opens) if drawn else {})


async def _judged(
    prepared: Prepared, drawn: Mapping[Asked, Mapping[str, tuple[Answer, ...]]], ledger: Ledger, opens: Opens
) -> dict[Asked, dict[str, tuple[Candidate, ...]]]:
    recipe = prepared.recipe
    assert recipe.best_of_n is not None
    engine = opens(recipe.best_of_n.judge)
    found: dict[Asked, dict[str, tuple[Candidate, ...]]] = {}
    try:
        scorer = Scorer(recipe, recipe.best_of_n, engine, ledger)
        for asked, answers in drawn.items():
            unique = {row.molecule.smiles: row for row in prepared.tested}
            items = [(row, answer) for smiles, row in unique.items() for answer in answers[smiles]]
            stream = map_in_order(_pair(scorer), items, max_in_flight=recipe.best_of_n.judge.max_in_flight)
            scored: dict[str, list[Candidate]] = {}
            with meter(len(items), f"judge, {asked.model}, {asked.style}") as running:
                async with aclosing(cast(Any, stream)) as judged:
                    async for smiles, candidate in judged:
                        scored.setdefault(smiles, []).append(candidate)
                        running.add(_step(candidate.reason, candidate.cached))
            found[asked] = {smiles: tuple(candidates) for smiles, candidates in scored.items()}
    finally:
        await engine.close()
    return found


def _pair(scorer: Scorer) -> Callable[[tuple[Row, Answer]], Awaitable[tuple[str, Candidate]]]:
    async def score(item: tuple[Row, Answer]) -> tuple[str, Candidate]:
        row, answer = item
        if not answer.text:  # the prompt could not be shown: there is nothing to judge
            return row.molecule.smiles, Candidate(answer=answer, reason=answer.reason)
        return row.molecule.smiles, await scorer.score(row, answer)

    return score


async def _each(
    rows: Iterable[Row], ask: Callable[[Row], Awaitable[R]], label: str, at_once: int, told: Callable[[R], Judgment]
) -> dict[str, R]:
    """By the molecule's canonical SMILES: rows that spell one molecule twice ask once."""
    unique = {row.molecule.smiles: row for row in rows}
    found: dict[str, R] = {}
    stream = cast(AsyncIterator[R], map_in_order(ask, unique.values(), max_in_flight=at_once))
    with meter(len(unique), label) as running:
        async with aclosing(cast(Any, stream)) as answers:
            names = iter(unique)
            async for answer in answers:
                found[next(names)] = answer
                running.add(told(answer))
    return found


@dataclass(frozen=True, slots=True)
class _Step:
    """As much of a judgment as a meter looks at."""

    outcome: Unscored | None
    cached: bool


def _step(reason: Any, cached: bool) -> Judgment:
    return cast(Judgment, _Step(Unscored(reason=reason) if reason else None, cached))


def _of_answer(answer: Answer) -> Judgment:
    return _step(answer.reason, answer.cached)


def _of_answers(answers: tuple[Answer, ...]) -> Judgment:
    unread = [one.reason for one in answers if one.reason]
    return _step(unread[0] if len(unread) == len(answers) else None, all(one.cached for one in answers))


def _forest(prepared: Prepared, task: str) -> Floats:
    """The forest's scores, kept beside the results under the name of everything that they follow from."""
    recipe, rows = prepared.recipe, prepared.source.rows
    truth = labels_of(prepared.source, task, recipe.tasks[task])
    name = digest(
        {
            "molecules": [row.molecule.smiles for row in rows],
            "labels": truth.tolist(),
            "folds": [[list(fold.train), list(fold.valid), list(fold.test)] for fold in prepared.folds],
            "forest": recipe.forest.model_dump(),
            "seed": recipe.seed,
            "scikit-learn": sklearn.__version__,
        }
    )
    path = recipe.out / f"forest-{hashlib.sha256(task.encode()).hexdigest()[:8]}.json"
    try:
        kept = json.loads(path.read_bytes())
        if kept["of"] == name:
            return np.array(kept["scores"], dtype=np.float64)
    except (OSError, ValueError, KeyError):
        pass
    scores_FN = forest_scores(rows, truth, prepared.folds, recipe.forest, seed=recipe.seed)
    with replaced(path) as file:
        plain = [[None if np.isnan(score) else score for score in scores] for scores in scores_FN.tolist()]
        file.write(json.dumps({"of": name, "task": task, "scores": plain}).encode() + b"\n")
    return scores_FN


def _data(source: Source) -> dict[str, Any]:
    return {
        "path": str(source.path),
        "rows": len(source.rows),
        "molecules": len({row.molecule.smiles for row in source.rows}),
        "blocks": len({row.molecule.block for row in source.rows}),
        "invalid": [{"row": number, "smiles": smiles} for number, smiles in source.invalid],
    }


def _write_replies(prepared: Prepared, replies: Replies) -> None:
    """Every reply with what was read from it, a line each."""
    out = prepared.recipe.out
    with replaced(out / "answers.jsonl") as file:
        for asked, answers in replies.greedy.items():
            for smiles, answer in answers.items():
                file.write(_line({**asked._asdict(), "smiles": smiles, **row_of(answer)}))
    if replies.candidates:
        with replaced(out / "candidates.jsonl") as file:
            for asked, found in replies.candidates.items():
                for smiles, candidates in found.items():
                    for number, one in enumerate(candidates):
                        file.write(_line({**asked._asdict(), "smiles": smiles, "candidate": number, **row_of(one)}))


def _line(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=True).encode() + b"\n"
