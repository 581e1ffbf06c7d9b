"""TRL's ``BestOfNSampler``, which TRL dropped in 0.25, and the ``LengthSampler`` that scripts built it with.

    from flexreward.adapters.best_of_n import BestOfNSampler, LengthSampler    # was trl.extras and trl.core
    from transformers import AutoModelForCausalLM as AutoModelForCausalLMWithValueHead    # was trl

Nothing else of an old script changes. ``queries_to_scores`` may also be a judge of ours, or a ``RewardClient``: then
the judge is told prompt and completion apart, and ``method`` says how it compares.

Source: huggingface/trl:trl/extras/best_of_n_sampler.py, before 0.25; the behaviour, not the code. There whatever came
back had to be a number; here ``None`` and NaN are no score, rank last, and are counted.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from flexreward.client import RewardClient
from flexreward.engines.loops import LoopThread
from flexreward.errors import RecipeError
from flexreward.judge import Judge
from flexreward.pairs.contest import Method
from flexreward.pairs.rank import best_of_n
from flexreward.types import JudgeRequest

if TYPE_CHECKING:
    import torch

    Query: TypeAlias = list[int] | torch.Tensor | list[torch.Tensor] | list[list[int]]

Scorer: TypeAlias = Callable[[list[str]], Sequence[Any]]
"""From the texts of one query, prompts included, to a score each."""
Scores: TypeAlias = Sequence[float | None]
log = logging.getLogger(__name__)


class LengthSampler:
    """Whole numbers from ``min_value`` up to, and without, ``max_value``, each as often."""

    def __init__(self, min_value: int, max_value: int) -> None:
        if max_value <= min_value:
            raise RecipeError(f"max_value: {max_value} is not above min_value, {min_value}")
        self.values = list(range(min_value, max_value))

    def __call__(self) -> int:
        return random.choice(self.values)


class BestOfNSampler:
    """Draws ``sample_size`` continuations of each query, and returns the best ``n_candidates``.

    Args:
        model: Whatever has transformers' ``generate``, a value-head wrapper too.
        tokenizer: The model's.
        queries_to_scores: Scores the texts of one query; or a ``Judge``, or a ``RewardClient``.
        length_sampler: Says how many tokens to write at most, once a query.
        sample_size: Continuations of each query.
        seed: Set for Python, NumPy and torch when the sampler is made.
        n_candidates: Texts returned for each query, the best first.
        generation_config: For ``generate``; what ``generate`` of this class is given wins.
        method: How a judge compares (``flexreward.pairs.contest``).

    Raises:
        RecipeError: One line that names the argument.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        queries_to_scores: Scorer | Judge | RewardClient,
        length_sampler: Callable[[], int],
        sample_size: int = 4,
        seed: int | None = None,
        n_candidates: int = 1,
        generation_config: Any = None,
        *,
        method: Method = "pointwise",
    ) -> None:
        for name, given, needed in (("model", model, "generate"), ("tokenizer", tokenizer, "batch_decode")):
            if not callable(getattr(given, needed, None)):
                raise RecipeError(f"{name}: a {type(given).__name__} has no {needed}, expected one of transformers")
        if not 1 <= n_candidates <= sample_size:
            raise RecipeError(f"n_candidates: {n_candidates} of sample_size {sample_size}, expected 1 to {sample_size}")
        if seed is not None:
            from transformers import set_seed

            set_seed(seed)
        self.model = model
        self.tokenizer = tokenizer
        self.queries_to_scores = queries_to_scores
        self.length_sampler = length_sampler
        self.gen_config = generation_config
        self.sample_size = sample_size
        self.n_candidates = n_candidates
        self.method = method
        self.num_unscored = 0
        """Continuations that came without a score so far."""
        self._loop: LoopThread | None = None

    def generate(
        self,
        tokenized_query: Query,
        skip_special_tokens: bool = True,
        device: Any = None,
        **generation_kwargs: Any,
    ) -> list[list[str]]:
        """The best texts of each query, each with its query as the model continued it.

        Args:
            tokenized_query: One query as ids or a tensor, or several as a list of them.
            device: Where the queries go; by default where the model is.
            generation_kwargs: For the model's ``generate``.
        """
        drawn = [
            self._drawn(query, skip_special_tokens, device, generation_kwargs) for query in _queries(tokenized_query)
        ]
        return [
            [texts.whole[i] for i in self._order(scores)[: self.n_candidates]]
            for texts, scores in zip(drawn, self._scores(drawn), strict=True)
        ]

    def _drawn(self, query_Q: torch.Tensor, skip: bool, device: Any, more: dict[str, Any]) -> _Texts:
        import torch

        device = getattr(self.model, "device", None) if device is None else device
        queries_SQ = query_Q.to(device).repeat(self.sample_size, 1)
        options = {"attention_mask": torch.ones_like(queries_SQ), "max_new_tokens": self.length_sampler()} | more
        if self.gen_config is not None:
            options.setdefault("generation_config", self.gen_config)
        ids_ST = self.model.generate(queries_SQ, **options)
        # What an encoder read is no part of what was written.
        start = 0 if getattr(getattr(self.model, "config", None), "is_encoder_decoder", False) else len(query_Q)

        def decoded(ids: torch.Tensor) -> list[str]:
            texts: list[str] = self.tokenizer.batch_decode(ids, skip_special_tokens=skip)
            return texts

        (prompt,) = self.tokenizer.batch_decode(query_Q[None], skip_special_tokens=True)
        written = self.tokenizer.batch_decode(ids_ST[:, start:], skip_special_tokens=True)
        return _Texts(prompt, written, decoded(ids_ST))

    def _scores(self, drawn: Sequence[_Texts]) -> list[Scores]:
        scorer = self.queries_to_scores
        if isinstance(scorer, Judge | RewardClient):
            ask = self._judged if isinstance(scorer, Judge) else self._served
            if self._loop is None:
                # Of its own, for scripts run in notebooks, whose loop waits for them.
                self._loop = LoopThread("flexreward-best-of-n")
            return self._loop.submit(_all(ask(texts) for texts in drawn)).result()
        found: list[Scores] = []
        for texts in drawn:
            scores = [_number(score) for score in scorer(texts.whole)]
            if len(scores) != len(texts.whole):
                raise RecipeError(f"queries_to_scores: gave {len(scores)} scores for {len(texts.whole)} texts")
            found.append(scores)
        return found

    async def _judged(self, texts: _Texts) -> Scores:
        assert isinstance(self.queries_to_scores, Judge)
        ranked = await best_of_n(texts.prompt, texts.written, self.queries_to_scores, method=self.method)
        return _by_place(ranked.order, ranked.scores, len(texts.written))

    async def _served(self, texts: _Texts) -> Scores:
        assert isinstance(self.queries_to_scores, RewardClient)
        request = JudgeRequest(prompt=texts.prompt, completions=tuple(texts.written))
        ranking = await self.queries_to_scores.rerank(request, method=self.method)
        return _by_place(ranking.order, ranking.scores, len(texts.written))

    def _order(self, scores: Scores) -> list[int]:
        """The best first, equal ones as they were drawn, those without a score last."""
        if missing := sum(score is None for score in scores):
            self.num_unscored += missing
            log.warning("%d of %d continuations of a query have no score: they rank last", missing, len(scores))
        return sorted(range(len(scores)), key=lambda i: -math.inf if (s := scores[i]) is None else s, reverse=True)


class _Texts(NamedTuple):
    """What was drawn for one query."""

    prompt: str
    written: list[str]
    """What the model wrote, without the query."""
    whole: list[str]
    """As ``generate`` returns it."""


def _queries(given: Any) -> Iterator[torch.Tensor]:
    """Each query as a tensor of its ids."""
    import torch

    if isinstance(given, torch.Tensor):
        yield from given if given.ndim == 2 else [given.reshape(-1)]
    elif not given:
        return
    elif isinstance(given[0], int):
        yield torch.tensor(given)
    else:
        yield from (torch.as_tensor(query).reshape(-1) for query in given)


def _number(score: Any) -> float | None:
    """A tensor's too; NaN is none."""
    number = None if score is None else float(score)
    return None if number is None or math.isnan(number) else number


def _by_place(order: Sequence[int] | None, scores: Sequence[float | None] | None, count: int) -> Scores:
    """Places as scores, so that what broke a tie, or was drawn, is kept; ``None`` where nothing could be read."""
    if order is None or scores is None:
        return [None] * count
    if all(score is None for score in scores):  # nothing was there to compare
        return [0.0] * count
    place = {i: float(count - at) for at, i in enumerate(order)}
    return [None if score is None else place[i] for i, score in enumerate(scores)]


async def _all(work: Iterator[Coroutine[Any, Any, Scores]]) -> list[Scores]:
    return list(await asyncio.gather(*work))
