"""What is asked of a model about one molecule: an answer, how sure it is, candidates; and of a judge, a score of each.

Everything goes through flexreward's ledger, so that what was bought is found again whatever is asked next.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from flexreward.engines.base import Engine, Prompt, Sampling
from flexreward.errors import JudgeError, RecipeError
from flexreward.expected import TOP
from flexreward.judge import Judge
from flexreward.ledger import Ledger
from flexreward.ledger.buyer import Buyer
from flexreward.templates import Template
from flexreward.templates.molecules import MARK
from flexreward.types import JudgeRequest, Reason, Reply, Scale, Unscored, Verdict
from mol.pampa.reading import (
    PUBLISHED_BEGUN,
    UNREAD,
    probability,
    read_published,
    read_strict,
    tokens_from,
)
from mol.pampa.recipe import COMPLETION, BestOfN, Labels, Model, Recipe, Style
from mol.pampa.shown import prompt_with
from mol.pampa.sources import Row

CONTINUED = "\n\nFinal answer: "
"""What a reply without the marker is continued by, as published."""
PASSING = (Reason.ENGINE, Reason.DEADLINE)
"""Failures that say nothing of the model's answer and may pass: the run stops, and no molecule counts as wrong."""
PUBLISHED_SCORE = re.compile(r"<answer>\s*([0-9]+(?:\.[0-9]+)?)\s*</answer>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One reply about one molecule, and what it was read as."""

    text: str
    label: int
    """1, 0 or -1, by the strict reading."""
    reason: Reason | None
    """Why the strict reading has no label."""
    published: int
    """The same by the lenient reading."""
    probability: float | None = None
    """Of the positive label; ``None`` where it is not known."""
    cached: bool = False
    """Whether all of it came from the store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An answer with what the judge says of it."""

    answer: Answer
    score: float | None = None
    reason: Reason | None = None
    """Why it has no score."""
    judged: str = ""
    """The judge's reply."""
    published_score: float | None = None
    """The first number in ``<answer>``, wherever it stands: the published reading."""
    cached: bool = False


class Asker:
    """One model, asked in the recipe's words.

    Raises:
        RecipeError: The engine cannot do what the recipe asks for.
    """

    def __init__(self, name: str, model: Model, recipe: Recipe, engine: Engine, ledger: Ledger) -> None:
        self._name, self._model, self._labels, self._how = name, model, recipe.labels, recipe.answers
        how, kind = recipe.answers, engine.identity.get("engine", type(engine).__name__)
        where = f"models.{name}: the engine {kind}"
        needs_logprobs, needs_prefix = how.probability != "none", how.probability == "asked"
        if needs_logprobs and not engine.can.logprobs:
            raise RecipeError(f"{where} reports no log-probabilities; set answers.probability to none")
        if needs_prefix and not engine.can.prefix:
            raise RecipeError(f"{where} continues no started turn; set answers.probability to reply or none")
        if how.continued and not engine.can.prefix:
            raise RecipeError(f"{where} continues no started turn; set answers.continued to false")
        if how.shown == "molecule" and "molecule" not in engine.can.modalities:
            raise RecipeError(f"{where} is shown no molecules; set answers.shown to smiles, or take a molecular one")
        greedy = Sampling(max_tokens=how.max_tokens, logprobs=TOP if how.probability == "reply" else 0)

        def buyer(sampling: Sampling) -> Buyer:
            return Buyer(engine, sampling, ledger, namespace="")

        self._greedy = buyer(greedy)
        self._once_more = buyer(replace(greedy, max_tokens=how.answer_tokens, logprobs=TOP))
        best = recipe.best_of_n
        self._candidates = best and buyer(
            Sampling(
                max_tokens=how.max_tokens,
                n=best.candidates,
                temperature=best.temperature,
                top_p=best.top_p,
                seed=recipe.seed,
            )
        )

    async def greedy(self, row: Row, style: Style) -> Answer:
        """The likeliest answer.

        Raises:
            JudgeError: The engine failed; what was bought before is kept.
        """
        prompt = self._prompt(row, style)
        replies, failure, kept = await self._bought(self._greedy, prompt)
        if failure:
            return _none(failure, kept)
        answer, reply, kept = await self._read(prompt, replies[0], kept)
        if self._how.probability == "none":
            return answer
        if self._how.probability == "reply":
            return replace(answer, probability=_in_reply(reply, self._labels))
        started = replace(prompt, prefix=_up_to_the_answer(reply, self._labels))
        again, failure, kept = await self._bought(self._once_more, started)
        chance = None if failure else probability(again[0].logprobs, self._labels)
        return replace(answer, probability=chance, cached=answer.cached and kept)

    async def candidates(self, row: Row, style: Style) -> tuple[Answer, ...]:
        """So many as the recipe asks for, drawn from one prefill; none of them where the prompt could not be shown."""
        assert self._candidates is not None
        prompt = self._prompt(row, style)
        replies, failure, kept = await self._bought(self._candidates, prompt)
        if failure:
            return (_none(failure, kept),)
        return tuple([(await self._read(prompt, reply, kept))[0] for reply in replies])

    def _prompt(self, row: Row, style: Style) -> Prompt:
        return prompt_with(style.system, style.user, row.molecule.smiles, as_text=self._how.shown == "smiles")

    async def _read(self, prompt: Prompt, reply: Reply, kept: bool) -> tuple[Answer, Reply, bool]:
        """The reply, continued where the recipe asks for that, and read both ways."""
        if self._how.continued and not PUBLISHED_BEGUN.search(reply.text):
            more, failure, kept_too = await self._bought(self._greedy, replace(prompt, prefix=reply.text + CONTINUED))
            if not failure:
                reply, kept = more[0], kept and kept_too
        reading = read_strict(reply.text, self._labels, truncated=reply.truncated)
        answer = Answer(
            text=reply.text,
            label=reading.label,
            reason=reading.reason,
            published=read_published(reply.text, self._labels),
            cached=kept,
        )
        return answer, reply, kept

    async def _bought(self, buyer: Buyer, prompt: Prompt) -> tuple[Sequence[Reply], Unscored | None, bool]:
        until = None
        if self._model.deadline_s is not None:
            until = asyncio.get_running_loop().time() + self._model.deadline_s
        bought = await buyer.replies(prompt, until)
        failure = bought.purchase.failure
        if failure and failure.reason in PASSING:
            raise JudgeError(
                f"models.{self._name}: {self._model.model} failed: {failure.detail}; what was answered is kept: run "
                "the same again to go on"
            )
        return bought.purchase.replies, failure, bought.kept


class Scorer:
    """The judge of best-of-N: a pointwise judge of flexreward, with the recipe's texts as its template."""

    def __init__(self, recipe: Recipe, best: BestOfN, engine: Engine, ledger: Ledger) -> None:
        self._labels, self._best = recipe.labels, best
        self._num_shown = best.judging.user.count(MARK)
        kind = engine.identity.get("engine", type(engine).__name__)
        if best.judging.shown == "molecule" and "molecule" not in engine.can.modalities:
            raise RecipeError(
                f"best_of_n.judge: the engine {kind} is shown no molecules; set best_of_n.judging.shown to smiles, or "
                "take a molecular one"
            )
        sampling = Sampling(max_tokens=best.judging.max_tokens, seed=recipe.seed)
        self._judge = Judge(
            engine, template_of(recipe.name, best), sampling=sampling, ledger=ledger, deadline_s=best.judge.deadline_s
        )

    async def score(self, row: Row, answer: Answer) -> Candidate:
        """What the judge says of an answer, whose label it is not shown.

        Raises:
            JudgeError: The engine failed; what was bought before is kept.
        """
        smiles, shows = row.molecule.smiles, self._best.judging.shown
        request = JudgeRequest(
            prompt=smiles if shows == "smiles" else "",
            completions=(without_answer(answer.text, self._labels),),
            molecules=(smiles,) * self._num_shown if shows == "molecule" else (),
            id=row.id,
        )
        judgment = await self._judge.judge(request)
        outcome = judgment.outcome
        votes = judgment.orders[0].votes
        text = votes[0].reply.text if votes else ""
        found = PUBLISHED_SCORE.search(text)
        candidate = Candidate(
            answer=answer, judged=text, published_score=float(found[1]) if found else None, cached=judgment.cached
        )
        if isinstance(outcome, Verdict):
            return replace(candidate, score=outcome.scores[0])
        if outcome.reason in PASSING:
            raise JudgeError(
                f"best_of_n.judge: {self._best.judge.model} failed: {outcome.detail}; what was judged is kept: run the "
                "same again to go on"
            )
        return replace(candidate, reason=outcome.reason)


def template_of(name: str, best: BestOfN) -> Template:
    """The recipe's judge texts as a template of flexreward."""
    judging = best.judging
    slot = "{prompt}" if judging.shown == "smiles" else "<molecule>"
    return Template(
        id=name,
        system=judging.system,
        user=judging.user.replace(MARK, slot).replace(COMPLETION, "{completion_1}"),
        scale=Scale(low=judging.scale[0], high=judging.scale[1]),
        reasoning=judging.reasoning,
        judge_sees="all",
        molecules="text" if judging.shown == "smiles" else "placed",
    )


def without_answer(text: str, labels: Labels) -> str:
    """What stands before the first marker, whatever its capitals: the judge is to look at the grounds."""
    return re.split(re.escape(labels.marker), text, maxsplit=1, flags=re.IGNORECASE)[0]


def _up_to_the_answer(reply: Reply, labels: Labels) -> str:
    """The reply as a started turn, in which the label comes next. No blank ends it: a token may begin with one."""
    reading = read_strict(reply.text, labels)
    if reading.span is not None:
        return reply.text[: reading.span.start].rstrip(" \t")
    marked = [found.end() for found in re.finditer(re.escape(labels.marker), reply.text, re.IGNORECASE)]
    return reply.text[: marked[-1]] if marked else f"{reply.text.rstrip()}\n\n{labels.marker}"


def _in_reply(reply: Reply, labels: Labels) -> float | None:
    """From the log-probabilities of the reply itself, at the place of its label."""
    reading = read_strict(reply.text, labels)
    spelled = "".join(token.text for token in reply.logprobs)
    if reading.span is None or not reply.text.endswith(spelled):
        return None
    start = reading.span.start - (len(reply.text) - len(spelled))
    return probability(tokens_from(reply.logprobs, start), labels) if start >= 0 else None


def _none(failure: Unscored, kept: bool) -> Answer:
    return Answer(text="", label=UNREAD, reason=failure.reason, published=UNREAD, cached=kept)


def row_of(answer: Answer | Candidate) -> dict[str, Any]:
    """What a file keeps of it."""
    if isinstance(answer, Candidate):
        more = {"score": answer.score, "unscored": answer.reason, "judged": answer.judged}
        return row_of(answer.answer) | more | {"published_score": answer.published_score}
    return {
        "reply": answer.text,
        "label": answer.label,
        "unread": answer.reason,
        "published": answer.published,
        "probability": answer.probability,
    }
