"""The algebra of position bias: show the completions in another order, put the scores back, average the orders. Pure.

    restore(judge(show(request, order)), order)     scores in the order of ``request``, whatever the judge saw

An ``order`` is a permutation: ``order[slot]`` is the index in the request of the completion shown in that slot.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from flexreward.types import JudgeRequest, OrderOutcome, Outcome, Scale, Unscored, Verdict
from flexreward.votes import by_completion, mean, no_quorum


def orders(count: int, *, both: bool) -> tuple[tuple[int, ...], ...]:
    """The orders to ask in: as given, and with ``both`` reversed too. One completion has one order."""
    given = tuple(range(count))
    return (given, given[::-1]) if both and count > 1 else (given,)


def drawn(count: int, *, id: str, seed: int) -> tuple[int, ...]:
    """One order out of all, which follows from the row's ``id`` and the seed alone."""
    # Bytes, which seed as their text does: half a character in an id is no reason to end.
    rng = random.Random(f"{seed} {id}".encode("utf-8", "surrogatepass"))
    return tuple(rng.sample(range(count), count))


def show(request: JudgeRequest, order: tuple[int, ...]) -> JudgeRequest:
    """The same question with the completions in the slots that ``order`` gives them."""
    return replace(request, completions=tuple(request.completions[index] for index in order))


def restore(outcome: Outcome, order: tuple[int, ...]) -> Outcome:
    """An outcome on ``show(request, order)``, put back in the order of ``request``."""
    if isinstance(outcome, Unscored):
        return outcome
    return replace(outcome, scores=tuple(outcome.scores[order.index(i)] for i in range(len(order))))


def flip(request: JudgeRequest) -> JudgeRequest:
    """The same question with the completions shown in the opposite order."""
    return replace(request, completions=request.completions[::-1])


def unflip(verdict: Verdict) -> Verdict:
    """A verdict on ``flip(request)``, put back in the order of ``request``."""
    return replace(verdict, scores=verdict.scores[::-1])


def combine(order_outcomes: Sequence[OrderOutcome], *, scale: Scale) -> Outcome:
    """The mean of the orders' scores; unscored unless every order is scored, for half an answer is none.

    A judge that always favours one slot so ends in a tie.
    """
    outcomes = [one.outcome for one in order_outcomes]
    if len(outcomes) == 1:
        return outcomes[0]
    verdicts = [outcome for outcome in outcomes if isinstance(outcome, Verdict)]
    if len(verdicts) < len(outcomes):
        return no_quorum(outcomes)
    return Verdict(scores=by_completion(mean, verdicts), scale=scale)
