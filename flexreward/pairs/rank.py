"""The best of some completions, in one call: what a script, a sampler and a server ask for.

ranked = await best_of_n("What is 17 + 25?", ["42", "32"], judge, method="knockout")
ranked.chosen, ranked.order, ranked.scores
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias, get_args

from flexreward.errors import RecipeError, SampleError
from flexreward.expected import TOP, check_expected, expected_scores
from flexreward.groups import first_equals
from flexreward.inflight import together
from flexreward.pairs.bracket import Found, Members
from flexreward.pairs.contest import LIST_SIZE, Contest, Counts, Method, Plan, Ties
from flexreward.templates import load_template
from flexreward.templates.fitting import fitting_id
from flexreward.types import Completion, JudgeRequest, Judgment, Media, Text, Unscored

if TYPE_CHECKING:
    from flexreward.judge import Judge
    from flexreward.templates import Template

Ask: TypeAlias = Callable[[Sequence[JudgeRequest]], Awaitable[Sequence[Judgment]]]
"""Judges a round: all of it at once, in order."""
Expect: TypeAlias = Callable[[Judgment], tuple[float, ...] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """Completions by how good they are, everything by index."""

    order: tuple[int, ...] | None
    """The best first, equal ones in the order asked, unscored ones last; ``None`` where nothing could be read."""
    scores: tuple[float | None, ...]
    """As ``Standing.scores``; nothing where there is no order."""
    best: tuple[int, ...]
    """Those that share the best place."""
    counts: Counts
    judgments: Mapping[Members, Judgment]
    """By whom each showed, in the order in which they were asked."""

    @property
    def chosen(self) -> int | None:
        """The first of the best."""
        return self.best[0] if self.best else None

    @property
    def failure(self) -> Unscored | None:
        """Why there is no order: what befell most judgments; ``None`` where there is one."""
        if self.order is not None:
            return None
        lost = [one.outcome for one in self.judgments.values() if isinstance(one.outcome, Unscored)]
        lost = [one for one in lost if one.reason.is_infrastructure] or lost
        commonest = Counter(one.reason for one in lost).most_common(1)[0][0]
        return next(one for one in lost if one.reason is commonest)


async def best_of_n(
    prompt: Text,
    completions: Sequence[Completion],
    judge: Judge,
    *,
    method: Method = "pointwise",
    ties: Ties = "draws",
    list_size: int = LIST_SIZE,
    seed: int = 0,
    media: Sequence[Media] = (),
    rubric: str | None = None,
    reference: str | None = None,
    id: str = "",
) -> Ranked:
    """The completions of a prompt in order, judged by ``method`` (see ``flexreward.pairs.contest``).

    Args:
        judge: Its template where that shows as many as the method does, else the bundled one that fits.
        ties: ``expected`` breaks them by the expected score at the answer's number (``flexreward.expected``). What
            still ties shares a place; a knockout draws.
        list_size: Most completions in one listwise prompt; more are a knockout of lists.
        seed: Of a knockout's bracket and draws, which follow from it and ``id``.
        media: The prompt's own, and so on, as in ``JudgeRequest``.

    Raises:
        UserError: No completion, no template that shows them, or an engine without log-probabilities.
    """
    request = JudgeRequest(
        prompt=prompt, completions=tuple(completions), media=tuple(media), rubric=rubric, reference=reference, id=id
    )
    plan = Plan(method=method, list_size=list_size, seed=seed)
    asked = judge_for(fitted(judge, request, plan), ties)

    async def ask(requests: Sequence[JudgeRequest]) -> Sequence[Judgment]:
        return await together(*map(asked.judge, requests))

    return await rank(ask, request, plan, expect=None if ties == "draws" else expect_of(asked))


def best_of_n_now(prompt: Text, completions: Sequence[Completion], judge: Judge, **options: object) -> Ranked:
    """``best_of_n`` for a script that runs no event loop."""
    return asyncio.run(best_of_n(prompt, completions, judge, **options))  # type: ignore[arg-type]


async def rank(ask: Ask, request: JudgeRequest, plan: Plan, *, expect: Expect | None = None) -> Ranked:
    """Play the contest of a request's completions to its end, a round at a time.

    A knockout ends without an order where the engine failed or time was up: who goes on would be a guess, and asked
    again it may be known.

    Args:
        expect: Expected scores of a judgment, where they break ties.
    """
    if not request.completions:
        raise SampleError("completions: there is none; a choice needs one or more")
    contest = Contest(plan=plan, id=request.id, same=first_equals(request.completions))
    judgments: dict[Members, Judgment] = {}
    known: dict[Members, Found] = {}
    while shown := contest.asks(known):
        asked = [
            replace(
                request,
                completions=tuple(request.completions[i] for i in members),
                id=f"{request.id}#{'-'.join(map(str, members))}",
            )
            for members in shown
        ]
        for members, judgment in zip(shown, await ask(asked), strict=True):
            judgments[members] = judgment
            known[members] = Found.of(judgment, expected=expect(judgment) if expect else None)
        if plan.has_rounds and any(map(_failed, judgments.values())):
            unscored = sum(found.scores is None for found in known.values())
            return Ranked(
                order=None,
                scores=(None,) * len(contest.same),
                best=(),
                counts=Counts(judgments=len(known), unscored=unscored),
                judgments=judgments,
            )
    # Off the event loop: Bradley-Terry over a large group takes a while.
    standing = await asyncio.to_thread(contest.standing, known)
    return Ranked(
        order=standing.order if standing.best else None,
        scores=standing.scores,
        best=standing.best,
        counts=standing.counts,
        judgments=judgments,
    )


def _failed(judgment: Judgment) -> bool:
    outcomes = [judgment.outcome, *(order.outcome for order in judgment.orders)]
    return isinstance(outcomes[0], Unscored) and any(
        isinstance(outcome, Unscored) and outcome.reason.is_infrastructure for outcome in outcomes
    )


def fitted(judge: Judge, request: JudgeRequest, plan: Plan) -> Judge:
    """The judge with a template that shows as many completions as the plan does.

    Raises:
        SampleError: No bundled one shows such completions.
        RecipeError: It shows them in one order, and pairs need both.
    """
    if plan.compares and not judge.both_orders:
        raise RecipeError(f"both_orders: the judge shows one order, and {plan.method} needs both; take another judge")
    if not request.completions or _shows(judge.template, request, plan):
        return judge
    shown = request.completions[:1] * (plan.shown_at_once or 3)
    if (found := fitting_id(shown, request.media)) is None:
        raise SampleError(
            f"method: no bundled template shows such completions by {plan.method}; give a judge whose template does"
        )
    return judge.variant(template=load_template(found))


def _shows(template: Template, request: JudgeRequest, plan: Plan) -> bool:
    first, slots = request.completions[0], [slot for slot in template.media if "_" not in slot]
    return (
        template.num_completions == plan.shown_at_once
        and (not isinstance(first, Media) or f"{first.kind}_1" in template.media)
        and slots == [medium.kind for medium in request.media]
    )


def judge_for(judge: Judge, ties: Ties) -> Judge:
    """The judge with the log-probabilities that ``ties`` needs.

    Raises:
        RecipeError: Its engine reports none, or the template's answers are no numbers.
    """
    if ties not in get_args(Ties):
        raise RecipeError(f"ties: {ties!r} is unknown, expected one of {', '.join(get_args(Ties))}")
    if ties == "draws":
        return judge
    name, template = judge.engine.identity.get("engine", "?"), judge.template
    check_expected(name, judge.engine.can, template=template.id, reader=template.reader, asked="ties", mean="draws")
    return judge if judge.sampling.logprobs else judge.variant(logprobs=TOP)


def expect_of(judge: Judge) -> Expect:
    """Expected scores of this judge's judgments."""
    template = judge.template

    def expect(judgment: Judgment) -> tuple[float, ...] | None:
        return expected_scores(judgment, scale=template.scale, reasoning=template.reasoning)

    return expect
