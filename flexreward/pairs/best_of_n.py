"""Best-of-N: what a judge's choice among N of k sampled completions is worth on average, from one sampling.

By scores it is exact: for each N the average runs over all subsets of size N and over all draws among completions that
share the best score, by counting and not by sampling. An unscored completion ranks below every scored one, and where a
subset holds no scored one, the choice is uniform. Other ways to choose bring their own chances
(``flexreward.pairs.contest``).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb, inf
from typing import Any, NamedTuple

NUM_SHUFFLES = 16
NUM_RESAMPLES = 2000


class Draws(NamedTuple):
    """A choice among N."""

    chances: tuple[float, ...]
    """Of each completion to be chosen."""
    pools: Sequence[Sequence[int]]
    """Out of which the N were drawn, each as often: the oracle chooses from the same."""


class Prompt(NamedTuple):
    """The completions of one prompt."""

    scores: tuple[float | None, ...]
    """The judge's, ``None`` where it could not be read."""
    truth: tuple[float, ...]
    """How good each really is; 1 for right and 0 for wrong gives accuracies."""
    draws: Mapping[int, Draws] | None = None
    """What a choice among N comes to, by N, where that does not follow from the scores."""


class Estimate(NamedTuple):
    """A mean over prompts with its 95 % interval (percentiles of a bootstrap over prompts)."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """What choosing among N is worth, each by N."""

    num_prompts: int
    judge: dict[int, Estimate]
    oracle: dict[int, Estimate]
    """The best true value among the N: what no judge can beat."""
    shuffled: dict[int, Estimate]
    """A judge whose scores were permuted within each prompt: gains nothing."""

    def as_json(self) -> dict[str, Any]:
        """``{"best_of_n": {"1": {"mean", "low", "high"}, ...}, "oracle": ..., "shuffled": ...}``."""
        lines = {"best_of_n": self.judge, "oracle": self.oracle, "shuffled": self.shuffled}
        return {"num_prompts": self.num_prompts} | {
            name: {str(n): estimate._asdict() for n, estimate in line.items()} for name, line in lines.items()
        }


def chances(scores: Sequence[float | None], n: int) -> list[float]:
    """The chance of each completion to be chosen among ``n`` drawn without replacement, ties drawn evenly.

    Completions with the same score have the same chance; a level is chosen when the subset holds some of it and none
    better.
    """
    k = len(scores)
    assert 1 <= n <= k
    ranks = [-inf if score is None else score for score in scores]
    chance: dict[float, float] = {}
    num_better = 0
    for level in sorted(set(ranks), reverse=True):
        num_level = ranks.count(level)
        chosen = comb(k - num_better, n) - comb(k - num_better - num_level, n)
        chance[level] = chosen / comb(k, n) / num_level
        num_better += num_level
    return [chance[rank] for rank in ranks]


def expected(prompt: Prompt, n: int) -> float:
    """The expected true value of the judge's choice among ``n``."""
    return sum(chance * truth for chance, truth in zip(_chances(prompt, n), prompt.truth, strict=True))


def _chances(prompt: Prompt, n: int) -> Sequence[float]:
    return chances(prompt.scores, n) if prompt.draws is None else prompt.draws[n].chances


def expected_best(prompt: Prompt, n: int) -> float:
    """The expected best true value among ``n``, drawn as the judge's were."""
    pools = [prompt.truth]
    if prompt.draws is not None:
        pools = [tuple(prompt.truth[i] for i in pool) for pool in prompt.draws[n].pools]
    best = [max(pool) if len(pool) == n else expected(Prompt(scores=pool, truth=pool), n) for pool in pools]
    return sum(best) / len(best)


def choice(scores: Sequence[float | None]) -> tuple[int, ...]:
    """Indices of the completions that share the best score, in their order; empty if none is scored."""
    scored = [score for score in scores if score is not None]
    return tuple(i for i, score in enumerate(scores) if scored and score == max(scored))


def curve(prompts: Sequence[Prompt], counts: Sequence[int], *, seed: int = 0) -> Curve:
    """The curve over ``counts``, the same prompts at each.

    Args:
        prompts: Each with at least ``max(counts)`` completions.
        seed: Of the shuffles and of the bootstrap.
    """
    rng = random.Random(seed)
    orders = [[rng.sample(range(len(p.scores)), len(p.scores)) for _ in range(NUM_SHUFFLES)] for p in prompts]

    def shuffled(at: int, n: int) -> float:
        # To shuffle the scores is to shuffle the chances that follow from them.
        prompt, chance = prompts[at], _chances(prompts[at], n)
        worth = (sum(chance[i] * truth for i, truth in zip(o, prompt.truth, strict=True)) for o in orders[at])
        return sum(worth) / NUM_SHUFFLES

    return Curve(
        num_prompts=len(prompts),
        judge={n: estimate([expected(prompt, n) for prompt in prompts], seed=seed) for n in counts},
        oracle={n: estimate([expected_best(prompt, n) for prompt in prompts], seed=seed) for n in counts},
        shuffled={n: estimate([shuffled(at, n) for at in range(len(prompts))], seed=seed) for n in counts},
    )


def estimate(values: Sequence[float], *, seed: int = 0) -> Estimate:
    """The mean of one value a prompt, with its interval."""
    import numpy as np

    values_P = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    num_each = max(1, 2**20 // len(values))  # resamples drawn at once, so that memory stays bounded
    rounds = -(-NUM_RESAMPLES // num_each)
    sizes = [min(num_each, NUM_RESAMPLES - i * num_each) for i in range(rounds)]
    means = np.concatenate([rng.choice(values_P, (size, len(values_P))).mean(axis=1) for size in sizes])
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(float(values_P.mean()), float(low), float(high))
