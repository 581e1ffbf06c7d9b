"""All that a run asks of models and of the judge: one engine open at a time, many molecules at once, in order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

from flexreward.config import EngineRecipe
from flexreward.engines.base import Engine
from flexreward.inflight import map_in_order
from flexreward.jobs.progress import meter
from flexreward.ledger import Ledger
from flexreward.types import Judgment, Reason, Unscored
from mol.pampa.asking import Answer, Asker, Candidate, Scorer
from mol.pampa.prepared import Prepared
from mol.pampa.sources import Row
from mol.pampa.tables import Asked, Replies

R = TypeVar("R")
Opens = Callable[[EngineRecipe], Engine]
"""Makes an engine of its recipe."""


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
                asked, at_once = Asked(name, style_name), model.max_in_flight
                label = f"{name}, {style_name}"
                one = partial(asker.greedy, style=style)
                greedy[asked] = await _each(prepared.asked, one, label, at_once, _of_answer)
                if model.best_of_n:
                    several = partial(asker.candidates, style=style)
                    label += ", candidates"
                    drawn[asked] = await _each(prepared.tested, several, label, at_once, _of_answers)
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


def _step(reason: Reason | None, cached: bool) -> Judgment:
    return cast(Judgment, _Step(Unscored(reason=reason) if reason else None, cached))


def _of_answer(answer: Answer) -> Judgment:
    return _step(answer.reason, answer.cached)


def _of_answers(answers: tuple[Answer, ...]) -> Judgment:
    unread = [one.reason for one in answers if one.reason]
    return _step(unread[0] if len(unread) == len(answers) else None, all(one.cached for one in answers))
