"""POST /v1/rerank: one request to the judge, or a contest of several, a round at a time, in one deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any, cast

from starlette.exceptions import HTTPException

from flexreward.errors import RecipeError
from flexreward.groups import first_equals
from flexreward.pairs.contest import Contest, Plan
from flexreward.pairs.rank import rank
from flexreward.serving.contract import Caller, Service
from flexreward.serving.wire import RerankAnswer, RerankBody, RerankCounts
from flexreward.templates import load_template, template_ids
from flexreward.types import JudgeRequest, Judgment, Unscored, Verdict

SHORTEST_S = 0.001


async def reranked(
    service: Service, body: RerankBody, request: JudgeRequest, *, caller: Caller, max_requests: int
) -> RerankAnswer:
    """The completions of a request, the best first.

    Raises:
        UserError: The template does not go with the method.
        HTTPException: 413, it takes more judgments than one call may.
        BusyError: It, or what is left of it, cannot be answered in time; what was judged is found again.
    """
    if body.method is None:
        return _by_one(*await _judged(service, body, [request], caller, body.deadline_s))
    plan = Plan(method=body.method, list_size=body.list_size, seed=body.seed)
    _check(plan, request, body, max_requests)
    loop = asyncio.get_running_loop()
    until = loop.time() + min(body.deadline_s or service.deadline_s, service.deadline_s)

    async def ask(requests: Sequence[JudgeRequest]) -> Sequence[Judgment]:
        judgments = await _judged(service, body, requests, caller, max(until - loop.time(), SHORTEST_S))
        if any(len(one.orders) == 1 and isinstance(one.outcome, Verdict) for one in judgments) and plan.compares:
            raise RecipeError(f"method: the judge shows one order, and {plan.method} needs both; name another judge")
        return judgments

    found = await rank(ask, request, plan)
    counts = RerankCounts(**found.counts.as_json())
    if (failure := found.failure) is not None:
        return _unscored(failure, counts)
    assert found.order is not None
    return RerankAnswer(
        status="scored", order=list(found.order), scores=list(found.scores), reason=None, detail="", counts=counts
    )


def _check(plan: Plan, request: JudgeRequest, body: RerankBody, max_requests: int) -> None:
    contest = Contest(plan=plan, id=request.id, same=first_equals(request.completions))
    if (count := contest.most_judgments()) > max_requests:
        raise HTTPException(
            413,
            f"completions: {len(request.completions)} by {plan.method} take {count} judgments in one call, the limit "
            f"max_requests is {max_requests}",
        )
    if body.template in template_ids() and load_template(body.template).num_completions != plan.shown_at_once:
        shown = plan.shown_at_once or "two or more"
        raise RecipeError(f"template: {body.template} does not show {shown} completions, as {plan.method} does")


async def _judged(
    service: Service,
    body: RerankBody,
    requests: Sequence[JudgeRequest],
    caller: Caller,
    deadline_s: float | None,
) -> list[Judgment]:
    found: dict[int, Judgment] = {}
    judged = service.judge(requests, caller=caller, judge=body.judge, template=body.template, deadline_s=deadline_s)
    async with aclosing(cast(Any, judged)):
        async for one in judged:
            found[one.index] = one.judgment
    return [found[i] for i in range(len(requests))]


def _by_one(judgment: Judgment) -> RerankAnswer:
    outcome = judgment.outcome
    if isinstance(outcome, Unscored):
        return _unscored(outcome)
    scores: list[float | None] = list(outcome.scores)
    order = sorted(range(len(scores)), key=lambda i: -outcome.scores[i])
    return RerankAnswer(status="scored", order=order, scores=scores, reason=None, detail="")


def _unscored(failure: Unscored, counts: RerankCounts | None = None) -> RerankAnswer:
    return RerankAnswer(
        status="unscored", order=None, scores=None, reason=failure.reason.value, detail=failure.detail, counts=counts
    )
