"""A model that completes prompts, each at every temperature, by way of the ledger: what was drawn is drawn once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from dataclasses import dataclass, replace
from typing import Any

from flexreward import __version__
from flexreward.config import open_engine
from flexreward.engines.base import Engine, Sampling
from flexreward.errors import EngineError
from flexreward.files.samples import Origin, Sample
from flexreward.fingerprint import digest, sampling_fields
from flexreward.inflight import map_in_order, together
from flexreward.ledger import Ledger
from flexreward.ledger.buyer import Buyer
from flexreward.policy.asking import conversation_of, prompt_of
from flexreward.policy.recipe import PolicyRecipe
from flexreward.types import Message, Reason, Reply, Unscored


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What a policy made of one prompt."""

    sample: Sample
    """As conversations, its completions those of the first temperature first: what a trainer shows in the policy's chat
    template is then what the policy has read."""
    failure: Unscored | None = None
    """Why it has none; such a prompt is counted by the reason, and nothing is judged of it."""
    prompt_tokens: int = 0
    """Read, a shared prefill counted once for each temperature."""
    completion_tokens: int = 0
    cached: bool = False
    """Whether everything came from the store."""


class Policy:
    """Draws completions.

    Args:
        recipe: How many, at which temperatures.
        engine: One that ``open_engine`` made of this recipe; or another's, so that policy and judge share a model.
        ledger: Where completions are found again.
    """

    def __init__(self, recipe: PolicyRecipe, *, engine: Engine | None = None, ledger: Ledger | None = None) -> None:
        self.recipe = recipe
        self.engine = engine or open_engine(recipe)
        base = Sampling(top_p=recipe.top_p, max_tokens=recipe.max_tokens, n=recipe.completions, seed=recipe.seed)
        self._samplings = [replace(base, temperature=float(temperature)) for temperature in recipe.temperatures]
        ledger = ledger or Ledger(None)
        self._buyers = [Buyer(self.engine, one, ledger, namespace="") for one in self._samplings]

    @property
    def num_completions(self) -> int:
        """Of each prompt."""
        return len(self._samplings) * self.recipe.completions

    @property
    def header(self) -> dict[str, Any]:
        """The first line of what is sampled: everything that the completions depend on besides the prompt."""
        fields = {
            **self.engine.identity,
            "sampling": [sampling_fields(one) for one in self._samplings],
            **({"system": self.recipe.system} if self.recipe.system else {}),
        }
        return {"flexreward": __version__, "policy": {"fingerprint": digest(fields), **fields}}

    def complete_all(
        self, samples: Iterable[Sample] | AsyncIterable[Sample], *, max_in_flight: int | None = None
    ) -> AsyncIterator[Drawn]:
        """One for each sample, in order; samples are taken only as there is room (see ``map_in_order``)."""
        return map_in_order(self.complete, samples, max_in_flight=max_in_flight or self.recipe.max_in_flight)

    async def complete(self, sample: Sample) -> Drawn:
        """The completions of one prompt, the same whenever it is asked.

        Raises:
            SampleError: The policy cannot be shown such a prompt.
            EngineError: The engine failed, in a way that may pass. What a prompt is to blame for is a ``failure``.
        """
        prompt = prompt_of(sample, self.recipe.system, molecules="molecule" in self.engine.can.modalities)
        sample = replace(sample, prompt=conversation_of(sample, self.recipe.system))
        try:
            self.engine.can.check(prompt)
        except EngineError as error:
            return Drawn(sample=sample, failure=Unscored(reason=error.reason, detail=str(error)))
        until = None
        if self.recipe.deadline_s is not None:
            until = asyncio.get_running_loop().time() + self.recipe.deadline_s
        bought = await together(*(buyer.replies(prompt, until) for buyer in self._buyers))
        purchases = [one.purchase for one in bought]
        for purchase in purchases:
            if (failure := purchase.failure) and failure.reason is Reason.ENGINE:
                raise EngineError(failure.detail)
            if failure:
                return Drawn(sample=sample, failure=failure)
        return Drawn(
            sample=replace(
                sample,
                completions=tuple(_turn(reply) for purchase in purchases for reply in purchase.replies),
                origins=tuple(
                    Origin(
                        finish_reason=reply.finish_reason,
                        temperature=purchase.sampling.temperature,
                        seed=purchase.sampling.seed,
                    )
                    for purchase in purchases
                    for reply in purchase.replies
                ),
            ),
            prompt_tokens=sum(purchase.replies[0].prompt_tokens for purchase in purchases),
            completion_tokens=sum(reply.completion_tokens for purchase in purchases for reply in purchase.replies),
            cached=all(one.kept for one in bought),
        )


def _turn(reply: Reply) -> tuple[Message, ...]:
    text = reply.text.encode("utf-8", "replace").decode()  # half a character would not come back from a file
    return (Message(role="assistant", content=text),)
