"""One reply with its expected score, against the same reply without, and against the mean of eight.

The bundled judge scores right answers and near misses to problems that no training has seen, each answer alone, eight
replies at temperature 1 from one prefill. The first of them is read as it is written and by expectation, so the two
differ in nothing else; the mean is over all eight. ``auroc``: of a score against being right. ``told_apart``: the share
of problems whose two answers get different scores, 1 less the ties. ``distinct``: the same for any two answers to
different problems, of which one reply's whole points tell few apart. It says that a score orders more, not that it does
so well: that is for ``auroc`` to say, and the bundled judge, sure on these problems, leaves little room there.
"""

from __future__ import annotations

import asyncio
import importlib
import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flexreward.bench import Bar, Interval
from flexreward.config import open_engine, resolve_judge
from flexreward.engines.base import Engine, Sampling
from flexreward.errors import RecipeError
from flexreward.expected import TOP, expectations
from flexreward.judge import Judge
from flexreward.templates import load_template
from flexreward.types import JudgeRequest, Judgment, Verdict

NUM_PROBLEMS = 160
NUM_VOTES = 8
NUM_DRAWS = 500
MAX_TOKENS = 160
ONE, EXPECTED, MEAN, EXPECTED_MEAN = range(4)


class Read(NamedTuple):
    """P problems, two answers each (right, wrong), four ways to score them: ONE, EXPECTED, MEAN, EXPECTED_MEAN."""

    scores_P24: NDArray[np.float64]
    known: float
    """Mean share of the probability that the engine's alternatives account for."""
    num_asked: int
    """Problems asked; those with an unreadable first reply or too few readable ones are left out."""


def bars() -> dict[str, Bar]:
    """All bars, with the bundled judge."""
    return bars_of(asyncio.run(_bundled()))


async def _bundled() -> Read:
    # Before the model is loaded for nothing.
    problems = problem_pairs(NUM_PROBLEMS)
    engine = open_engine(resolve_judge("tiny"))
    try:
        return await read(engine, problems)
    finally:
        await engine.close()


def problem_pairs(number: int) -> list[tuple[JudgeRequest, JudgeRequest]]:
    """Held-out problems of the bundled judge's small world, each with a right answer and a near miss.

    Raises:
        RecipeError: There are no recipes beside the package.
    """
    try:
        measure: Any = importlib.import_module("recipes.tiny.measure")
        domain: Any = importlib.import_module("recipes.tiny.domain")
    except ImportError as error:
        raise RecipeError(f"bench expected: {error}; run it where recipes/tiny lies, in a checkout") from error
    rng = random.Random("expected")
    pairs = []
    for problem in measure.held_out(number, seed=7):
        said = (problem.answer, domain.near_miss(problem.answer, rng))
        right, wrong = (JudgeRequest(prompt=problem.question, completions=(measure.answer(a),)) for a in said)
        pairs.append((right, wrong))
    return pairs


async def read(engine: Engine, pairs: Sequence[tuple[JudgeRequest, JudgeRequest]]) -> Read:
    """Every answer scored in all four ways."""
    sampling = Sampling(temperature=1.0, max_tokens=MAX_TOKENS, logprobs=TOP)
    judge = Judge(engine, load_template("score"), sampling=sampling, votes=NUM_VOTES)
    known: list[float] = []
    asked = [request for pair in pairs for request in pair]
    found = [_scores(judge, judgment, known) async for judgment in judge.judge_all(asked)]
    both = [pair for pair in zip(found[::2], found[1::2], strict=True) if None not in pair]
    return Read(np.array(both, dtype=np.float64), float(np.mean(known)), len(pairs))


def _scores(judge: Judge, judgment: Judgment, known: list[float]) -> tuple[float, ...] | None:
    """In the order of ONE to EXPECTED_MEAN; ``None`` where one of them cannot be had."""
    votes = judgment.orders[0].votes
    if not isinstance(judgment.outcome, Verdict) or not isinstance(votes[0].outcome, Verdict):
        return None
    expected = []
    for vote in votes:
        if isinstance(vote.outcome, Verdict):
            found = expectations(vote.reply, scale=judge.template.scale, reasoning=judge.template.reasoning)
            if found is None:
                raise AssertionError("the engine reports log-probabilities of what it writes")
            expected.append(found[0].score)
            known.append(found[0].known)
    return votes[0].outcome.scores[0], expected[0], judgment.outcome.scores[0], float(np.mean(expected))


def bars_of(found: Read) -> dict[str, Bar]:
    """Ratios with 95 % bootstrap intervals over problems, all figures from the same draws; the baseline is the other's.

    ``answered`` is the share of problems that could be read; ``probability_known`` as in ``Read``.
    """
    num = len(found.scores_P24)
    rng = np.random.default_rng(0)
    draws = [rng.integers(num, size=num) for _ in range(NUM_DRAWS)]
    made: dict[str, Bar] = {}
    figures: dict[str, Callable[[NDArray[np.float64]], float]]
    figures = {"auroc": auroc, "told_apart": told_apart, "distinct": distinct}
    for name, figure in figures.items():
        values = [figure(found.scores_P24[:, :, way]) for way in range(4)]
        # A row that was drawn twice would tie with itself; without those an interval is too wide, not too narrow.
        drawn_rows = [np.unique(rows) for rows in draws] if name == "distinct" else draws
        drawn = np.array([[figure(found.scores_P24[rows][:, :, way]) for way in range(4)] for rows in drawn_rows])
        for said, way, other in (
            ("expected_over_one", EXPECTED, ONE),
            ("expected_over_mean_of_8", EXPECTED, MEAN),
            ("mean_of_8_over_one", MEAN, ONE),
            ("expected_mean_of_8_over_mean_of_8", EXPECTED_MEAN, MEAN),
        ):
            low, high = np.quantile(drawn[:, way] / drawn[:, other], [0.025, 0.975])
            value = values[way] / values[other]
            made[f"{name}_{said}"] = Bar(
                value=value, goal=None, baseline=values[other], n=num, interval=Interval(float(low), float(high))
            )
    share = num / found.num_asked
    made["answered"] = Bar(value=share, goal=None, baseline=1.0, n=found.num_asked, interval=Interval(share, share))
    known = Interval(found.known, found.known)
    made["probability_known"] = Bar(value=found.known, goal=None, baseline=1.0, n=num, interval=known)
    return made


def auroc(scores_P2: NDArray[np.float64]) -> float:
    """Chance that a right answer's score is above a wrong one's, over all pairs of any problems; ties count half."""
    right_P, wrong_P = scores_P2[:, 0], np.sort(scores_P2[:, 1])
    below, up_to = (np.searchsorted(wrong_P, right_P, side=side) for side in ("left", "right"))
    return float((below + up_to).mean() / (2 * len(wrong_P)))


def told_apart(scores_P2: NDArray[np.float64]) -> float:
    """Share of problems whose right and wrong answer have different scores."""
    return float((scores_P2[:, 0] != scores_P2[:, 1]).mean())


def distinct(scores_P2: NDArray[np.float64]) -> float:
    """Chance that answers to two different problems have different scores."""
    _, counts = np.unique(scores_P2, return_counts=True)
    num = scores_P2.size
    within = 2 * (scores_P2[:, 0] != scores_P2[:, 1]).sum()
    return float((num**2 - (counts**2).sum() - within) / (num * (num - 2)))
