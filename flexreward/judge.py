"""The whole road: a request is rendered, its replies are bought or found, read, and put together to one judgment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from dataclasses import replace
from itertools import takewhile
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple, cast, get_args

from flexreward.context import ContextPolicy, cut_head, fewest, most_cut, room_for_reply
from flexreward.engines.base import CountingEngine, Engine, Prompt, Sampling
from flexreward.errors import EngineError, RecipeError
from flexreward.expected import TOP, check_expected, with_expected
from flexreward.fingerprint import judge_fingerprint
from flexreward.inflight import map_in_order, together
from flexreward.ledger import Ledger
from flexreward.ledger.buyer import Buyer, Stopping
from flexreward.order import combine, drawn, orders, restore, show
from flexreward.stops import at_once, check_stop, ends_at, label, name_of_stop
from flexreward.types import JudgeRequest, Judgment, OrderOutcome, Outcome, Reply, Unscored, Verdict, Vote
from flexreward.votes import AGGREGATES
from flexreward.votes import aggregate as count_votes

if TYPE_CHECKING:
    from flexreward.calibrator import Calibrator
    from flexreward.templates import Template

NEVER_CAME = Reply(text="", finish_reason="error")


class Judge:
    """A model, a template and a way to count votes. What the engine fails to answer is ``Unscored``, never a score.

    Args:
        sampling: How a reply is drawn. Each prompt gets a seed of its own, which follows from this one and the prompt.
        votes: Replies to each order, from one prefill.
        aggregate: How they become one outcome: ``mean``, ``median`` or ``majority``; or ``expected``, a mean of scores
            weighted by how likely the judge was to write each (see ``flexreward.expected``).
        stop: When a vote by majority may end early, and is one on a label (see ``flexreward.stops``): 0 once no reply
            still to come can change its outcome, an error rate once that is unlikely enough.
        both_orders: Show several completions forward and reversed, and average; ``False`` shows them as they come.
        order_seed: Show them in one order that is drawn from this and the request's id.
        prefill: Start the assistant's turn the way the template says.
        context: What becomes of a prompt that leaves no room for the reply: ``refuse`` it, or ``cut`` its head (see
            ``flexreward.context``). What cutting cannot help is asked as it is.
        ledger: Where replies are found again; without one only what is in flight is shared.
        deadline_s: Longest time for one request, all its orders and votes; what is not there by then is unscored.
        namespace: Replies are found again only under the one they were bought under.
        calibrator: Turns scores into rewards that are probabilities; the scores and the fingerprint stay as they are.

    Raises:
        RecipeError: The engine lacks something that this judge needs.
    """

    def __init__(
        self,
        engine: Engine,
        template: Template,
        *,
        sampling: Sampling = Sampling(),  # noqa: B008  # frozen
        votes: int = 1,
        aggregate: str = "mean",
        stop: float | None = None,
        both_orders: bool = True,
        order_seed: int | None = None,
        prefill: bool = False,
        context: ContextPolicy = "refuse",
        ledger: Ledger | None = None,
        deadline_s: float | None = None,
        namespace: str = "",
        calibrator: Calibrator | None = None,
    ) -> None:
        if votes < 1:
            raise RecipeError(f"votes: {votes} is too few, expected 1 or more")
        if aggregate not in (*AGGREGATES, "expected"):
            known = ", ".join((*AGGREGATES, "expected"))
            raise RecipeError(f"aggregate: {aggregate!r} is unknown, expected one of {known}")
        name = engine.identity.get("engine", type(engine).__name__)
        if prefill and not engine.can.prefix:
            raise RecipeError(f"prefill: the engine {name} cannot go on with a started turn; leave it out")
        if sampling.logprobs and not engine.can.logprobs:
            raise RecipeError(f"logprobs: the engine {name} reports none; set it to 0")
        if aggregate == "expected":
            check_expected(name, engine.can, template=template.id, reader=template.reader)
            sampling = replace(sampling, logprobs=sampling.logprobs or TOP)
        if stop is not None:
            check_stop(stop, aggregate=aggregate, num_completions=template.num_completions)
        if context not in get_args(ContextPolicy):
            raise RecipeError(f"context: {context!r} is unknown, expected one of {', '.join(get_args(ContextPolicy))}")
        if context == "cut" and not engine.can.counts:
            raise RecipeError(f"context: the engine {name} cannot count the tokens of a prompt; leave it at refuse")
        if engine.can.forced:
            template.answer(template.num_completions or 2, prefill=prefill)
        self.engine = engine
        self.template = template
        self.sampling = replace(sampling, n=votes)
        self.aggregate = aggregate
        self.stop = stop
        self.both_orders = both_orders and order_seed is None
        self.order_seed = order_seed
        self.prefill = prefill
        self.context = context
        self.deadline_s = deadline_s
        self.calibrator = calibrator
        self._buyer = Buyer(engine, self.sampling, ledger or Ledger(None), namespace=namespace)
        self.fingerprint = judge_fingerprint(
            self._buyer.source,
            template.digest,
            aggregate=aggregate,
            both_orders=self.both_orders,
            order_seed=order_seed,
            prefill=prefill,
            stop=None if stop is None else float(stop),
            context=self.policy or None,
        )

    @property
    def policy(self) -> dict[str, str | int]:
        """What becomes of a long prompt, and how long is too long; empty where it is refused."""
        if self.context == "refuse":
            return {}
        return {"context": self.context, "max_context": cast(CountingEngine, self.engine).max_context}

    def variant(
        self, *, template: Template | None = None, namespace: str | None = None, logprobs: int | None = None
    ) -> Judge:
        """The same engine and ledger with another template, for another namespace, or with log-probabilities.

        A calibrator was fitted to one template, and does not come along to another.

        Raises:
            RecipeError: The other template does not go with this judge.
        """
        buyer = self._buyer
        return Judge(
            self.engine,
            template or self.template,
            sampling=self.sampling if logprobs is None else replace(self.sampling, logprobs=logprobs),
            votes=self.sampling.n,
            aggregate=self.aggregate,
            stop=self.stop,
            both_orders=self.both_orders,
            order_seed=self.order_seed,
            prefill=self.prefill,
            context=self.context,
            ledger=buyer.ledger,
            deadline_s=self.deadline_s,
            namespace=buyer.namespace if namespace is None else namespace,
            calibrator=self.calibrator if template in (None, self.template) else None,
        )

    async def judge(self, request: JudgeRequest, *, until: float | None = None) -> Judgment:
        """What became of one request, scores in its order.

        Args:
            until: Time of the event loop after which nobody waits any more, where ``deadline_s`` is over later.

        Raises:
            UserError: The template cannot show such a request, or the store cannot be written. Never EngineError.
        """
        start = perf_counter()
        if self.deadline_s is not None:
            own = asyncio.get_running_loop().time() + self.deadline_s
            until = own if until is None else min(own, until)
        shown = self._orders(request)
        cut = 0
        if self.context == "cut":
            request, cut = await asyncio.to_thread(self._fitted, request, shown)
        if len(shown) == 1:
            seen = [await self._in_order(request, shown[0], until)]
        else:
            seen = await together(*(self._in_order(request, order, until) for order in shown))
        outcomes = tuple(one.outcome for one in seen)
        return Judgment(
            request_id=request.id,
            template=self.template.id,
            outcome=combine(outcomes, scale=self.template.scale),
            orders=outcomes,
            judge=self.fingerprint,
            calibrator=self.calibrator,
            prompt_cut=cut,
            cached=all(one.kept for one in seen),
            seconds=perf_counter() - start,
        )

    def judge_all(
        self, requests: Iterable[JudgeRequest] | AsyncIterable[JudgeRequest], *, max_in_flight: int = 64
    ) -> AsyncIterator[Judgment]:
        """Judgments in the order of ``requests``, which are taken only as there is room (see ``map_in_order``)."""
        return map_in_order(self.judge, requests, max_in_flight=max_in_flight)

    def judge_now(self, requests: Iterable[JudgeRequest]) -> list[Judgment]:
        """All judgments, for a script that runs no event loop."""

        async def collect() -> list[Judgment]:
            return [judgment async for judgment in self.judge_all(requests)]

        return asyncio.run(collect())

    def _orders(self, request: JudgeRequest) -> tuple[tuple[int, ...], ...]:
        count = len(request.completions)
        if self.order_seed is None:
            return orders(count, both=self.both_orders)
        return (drawn(count, id=request.id, seed=self.order_seed),)

    def _fitted(self, request: JudgeRequest, shown: Sequence[tuple[int, ...]]) -> tuple[JudgeRequest, int]:
        """The request with its prompt cut to fit in every order, and by how many characters."""
        engine = cast(CountingEngine, self.engine)
        request = self.template.with_places(request)  # a molecule stays when the text before its place is cut

        def without(count: int) -> JudgeRequest:
            return replace(request, prompt=cut_head(request.prompt, count)) if count else request

        def fits(count: int) -> bool:
            prompts = [self._prompt(without(count), order) for order in shown]
            rooms = [room_for_reply(self.sampling, prompt.answer, engine.max_context) for prompt in prompts]
            return all(
                engine.count_tokens(prompt) + room <= engine.max_context
                for prompt, room in zip(prompts, rooms, strict=True)
            )

        try:
            cut = fewest(fits, most_cut(request.prompt)) or 0
        except EngineError:  # it cannot be shown at all, and the engine will say why
            cut = 0
        return without(cut), cut

    async def _in_order(self, request: JudgeRequest, order: tuple[int, ...], until: float | None) -> _Seen:
        """Show the completions in one order, read every reply, count the votes."""
        try:
            prompt = self._prompt(request, order)
            self.engine.can.check(prompt)
        except EngineError as error:  # no judge of this kind can be shown such a request
            failure = Unscored(reason=error.reason, detail=str(error))
            return _Seen(OrderOutcome(order=order, outcome=failure, votes=()), kept=False)
        bought, kept = await self._buyer.replies(prompt, until, self._stopping(len(order)))
        votes = [Vote(outcome=restore(self._read(reply, len(order)), order), reply=reply) for reply in bought.replies]
        if self.stop is not None and not bought.failure:  # a full vote that was found says what a stopped one would
            votes = votes[: ends_at([vote.outcome for vote in votes], self.sampling.n, self.stop)]
        if bought.failure:  # the replies that never came are votes nobody can read, and count for the quorum
            votes += [Vote(outcome=bought.failure, reply=NEVER_CAME)] * (self.sampling.n - len(votes))
        outcome = self._count(votes)
        return _Seen(OrderOutcome(order=order, outcome=outcome, votes=tuple(votes)), kept)

    def _prompt(self, request: JudgeRequest, order: tuple[int, ...]) -> Prompt:
        prompt = self.template.render(show(request, order), prefill=self.prefill)
        if not self.engine.can.forced:
            return prompt
        return replace(prompt, answer=self.template.answer(len(order), prefill=self.prefill))

    def _read(self, reply: Reply, count: int) -> Outcome:
        """Scores in the order shown, or why there are none."""
        outcome = self.template.parse(reply, count=count)
        if self.aggregate == "expected" and isinstance(outcome, Verdict):
            return with_expected(reply, outcome, reasoning=self.template.reasoning)
        return outcome

    def _count(self, votes: list[Vote]) -> Outcome:
        if self.stop is not None:
            return label(votes)
        return count_votes(votes, "mean" if self.aggregate == "expected" else self.aggregate)

    def _stopping(self, count: int) -> Stopping | None:
        """What ends a vote on so many completions early. Each reply is read once, as it comes."""
        if self.stop is None or self.sampling.n == 1:
            return None
        stop, total, read = self.stop, self.sampling.n, dict[int, Outcome]()

        def ends(replies: Sequence[Reply]) -> int | None:
            read.update((reply.index, self._read(reply, count)) for reply in replies[len(read) :])
            first = list(takewhile(lambda index: index in read, range(total)))
            return ends_at([read[index] for index in first], total, stop)

        return Stopping(name_of_stop(stop), self.template.digest, at_once(total), ends)


class _Seen(NamedTuple):
    outcome: OrderOutcome
    kept: bool
    """Whether every reply came from the store."""
