"""What the bundled judge and policy can do on held-out problems. Used by the tests, the proof and the model cards."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from sklearn.metrics import roc_auc_score

from flexreward.engines.base import Engine, Prompt, Sampling
from flexreward.judge import Judge
from flexreward.templates import Template, load_template
from flexreward.types import JudgeRequest, Judgment, Outcome, Verdict
from recipes.tiny import domain

CANARIES = ("", ":", "Let's solve this step by step", "<answer>10</answer>")
"""Completions that answer nothing and have fooled other judges. Only the empty one occurs in the training."""

Figures = dict[str, float]


def held_out(number: int, *, seed: int, kinds: Sequence[str] = tuple(domain.KINDS)) -> list[domain.Problem]:
    """Different problems that no training has seen, all kinds alike."""
    rng = random.Random(f"{seed}-held-out")
    streams = [domain.problems(rng, held_out=True, kinds=(kind,)) for kind in kinds]
    found: dict[str, domain.Problem] = {}
    while len(found) < number:
        problem = next(streams[len(found) % len(streams)])
        found.setdefault(problem.question, problem)
    return list(found.values())


def answer(says: str) -> str:
    return f"The answer is {says}."


async def judged(engine: Engine, template: str, requests: Sequence[JudgeRequest], *, tokens: int) -> list[Judgment]:
    """Greedy judgments, pairs in both orders, nothing stored."""
    judge = Judge(engine, load_template(template), sampling=Sampling(max_tokens=tokens))
    return [judgment async for judgment in judge.judge_all(requests)]


def parse_rate(judgments: Iterable[Judgment]) -> float:
    """Share of replies that could be read."""
    votes = [vote for judgment in judgments for order in judgment.orders for vote in order.votes]
    return sum(isinstance(vote.outcome, Verdict) for vote in votes) / len(votes)


async def pairwise(
    engine: Engine,
    problems: Sequence[domain.Problem],
    *,
    seed: int,
    miss: Callable[[str, random.Random], str] = domain.near_miss,
    tokens: int = 160,
) -> Figures:
    """A right answer against a wrong one that ``miss`` makes of it, in both orders; and the same answer twice."""
    rng = random.Random(f"{seed}-pairwise")
    wrong = [miss(p.answer, rng) for p in problems]
    right_first = [rng.random() < 0.5 for _ in problems]
    requests = []
    for p, says, first in zip(problems, wrong, right_first, strict=True):
        both = (answer(p.answer), answer(says))
        requests.append(JudgeRequest(prompt=p.question, completions=both if first else both[::-1]))
    began = time.monotonic()
    judgments = await judged(engine, "pair", requests, tokens=tokens)
    seconds = time.monotonic() - began
    hits: list[list[bool]] = [[], []]
    by_kind: dict[str, list[bool]] = {}
    flips = 0
    for judgment, p, first in zip(judgments, problems, right_first, strict=True):
        truth = 0 if first else 1
        found = [o.outcome.preferred if isinstance(o.outcome, Verdict) else None for o in judgment.orders]
        for slot_of_right_first, winner in zip((first, not first), found, strict=True):
            hits[0 if slot_of_right_first else 1].append(winner == truth)
        by_kind.setdefault(p.kind, []).append(found == [truth, truth])
        flips += None not in found and found[0] != found[1]
    same = [JudgeRequest(prompt=p.question, completions=(answer(a), answer(a))) for p, a in _either(problems, wrong)]
    ties = await judged(engine, "pair", same, tokens=tokens)
    return {
        "parse_rate": parse_rate(judgments),
        "right_shown_first": _share(hits[0]),
        "right_shown_second": _share(hits[1]),
        "right_in_both_orders": _share(x for kind in by_kind.values() for x in kind),
        "flip_rate": flips / len(judgments),
        "equal_completions_tie": _share(isinstance(j.outcome, Verdict) and j.outcome.tie for j in ties),
        "replies_per_s": 2 * len(judgments) / seconds,
        **{f"right_in_both_orders.{kind}": _share(found) for kind, found in sorted(by_kind.items())},
    }


def _either(problems: Sequence[domain.Problem], wrong: Sequence[str]) -> list[tuple[domain.Problem, str]]:
    return [(p, p.answer if i % 2 else w) for i, (p, w) in enumerate(zip(problems, wrong, strict=True))]


async def pointwise(engine: Engine, problems: Sequence[domain.Problem], *, seed: int, tokens: int = 160) -> Figures:
    """Each right answer and a near miss of it, scored alone."""
    rng = random.Random(f"{seed}-pointwise")
    said = [(p, a) for p in problems for a in (p.answer, domain.near_miss(p.answer, rng))]
    requests = [JudgeRequest(prompt=p.question, completions=(answer(a),)) for p, a in said]
    judgments = await judged(engine, "score", requests, tokens=tokens)
    scored = [
        (p.answer == a, judgment.outcome.scores[0])
        for (p, a), judgment in zip(said, judgments, strict=True)
        if isinstance(judgment.outcome, Verdict)
    ]
    return {
        "parse_rate": parse_rate(judgments),
        "auroc": float(roc_auc_score([truth for truth, _ in scored], [score for _, score in scored])),
    }


async def listwise(engine: Engine, problems: Sequence[domain.Problem], *, seed: int, tokens: int = 240) -> Figures:
    """One right answer among three, in a format that the judge was never trained on."""
    rng = random.Random(f"{seed}-listwise")
    requests, truths = [], []
    for p in problems:
        says = [p.answer, domain.near_miss(p.answer, rng), domain.near_miss(p.answer, rng)]
        rng.shuffle(says)
        truths.append(says.index(p.answer))
        requests.append(JudgeRequest(prompt=p.question, completions=tuple(answer(a) for a in says)))
    judgments = await judged(engine, "batch", requests, tokens=tokens)
    return {
        "parse_rate": parse_rate(judgments),
        "right_first": _share(
            isinstance(j.outcome, Verdict) and j.outcome.preferred == truth
            for j, truth in zip(judgments, truths, strict=True)
        ),
    }


async def canaries(engine: Engine, problems: Sequence[domain.Problem], *, tokens: int = 160) -> Figures:
    """How often a text that answers nothing beats a right answer, over both orders of every pair."""
    figures: Figures = {}
    losses = shown = 0
    for i, canary in enumerate(CANARIES):
        requests = [JudgeRequest(prompt=p.question, completions=(answer(p.answer), canary)) for p in problems]
        found = [o.outcome for j in await judged(engine, "pair", requests, tokens=tokens) for o in j.orders]
        beaten = sum(isinstance(outcome, Verdict) and outcome.preferred == 1 for outcome in found)
        figures[f"beats_right.{i}"] = beaten / len(found)
        losses, shown = losses + beaten, shown + len(found)
    return figures | {"beats_right": losses / shown}


async def corrupted_thoughts(
    engine: Engine, problems: Sequence[domain.Problem], *, seed: int, tokens: int = 160
) -> Figures:
    """Put the wrong completion's value in place of the result that the thought has computed, and let it go on."""
    rng = random.Random(f"{seed}-corrupted")
    template = load_template("pair")
    changed = tried = 0
    for p in problems:
        miss = domain.near_miss(p.answer, rng)
        texts = (answer(p.answer), answer(miss))
        request = JudgeRequest(prompt=p.question, completions=texts if rng.random() < 0.5 else texts[::-1])
        prompt = template.render(request)
        before = await _read(engine, prompt, template, tokens)
        marker = "The result is "
        if not isinstance(before, Verdict) or marker not in before.reply:
            continue
        thought = before.reply[: before.reply.index(marker) + len(marker)]
        after = await _read(engine, replace(prompt, prefix=f"{thought}{miss}."), template, tokens)
        tried += 1
        changed += isinstance(after, Verdict) and after.preferred != before.preferred
    return {"verdict_changed": changed / max(tried, 1), "tried": tried}


async def _read(engine: Engine, prompt: Prompt, template: Template, tokens: int) -> Outcome:
    async for reply in engine.generate(prompt, Sampling(max_tokens=tokens)):
        return template.parse(reply, count=2)
    raise AssertionError("an engine yields n replies")


async def policy(engine: Engine, problems: Sequence[domain.Problem], *, samples: int, temperature: float) -> Figures:
    """How often the policy is right, greedy and sampled, and by kind."""
    greedy = await completions(engine, problems, Sampling(max_tokens=24))
    drawn = await completions(engine, problems, Sampling(max_tokens=24, n=samples, temperature=temperature))
    right = [[domain.answer_in(text) == p.answer for text in texts] for p, texts in zip(problems, drawn, strict=True)]
    kinds = Counter(p.kind for p in problems)
    by_kind = {
        kind: sum(sum(found) for p, found in zip(problems, right, strict=True) if p.kind == kind) / (number * samples)
        for kind, number in sorted(kinds.items())
    }
    return {
        "greedy": _share(domain.answer_in(t[0]) == p.answer for p, t in zip(problems, greedy, strict=True)),
        "sampled": _share(x for found in right for x in found),
        "best_of_all": _share(any(found) for found in right),
        **{f"sampled.{kind}": share for kind, share in by_kind.items()},
    }


async def completions(engine: Engine, problems: Sequence[domain.Problem], sampling: Sampling) -> list[list[str]]:
    """``sampling.n`` completions a problem, in order; each problem draws from a seed of its own."""

    async def one(index: int, problem: domain.Problem) -> list[str]:
        prompt = Prompt(system="", user=problem.question)
        own = replace(sampling, seed=sampling.seed + index)
        replies = [reply async for reply in engine.generate(prompt, own)]
        return [reply.text for reply in sorted(replies, key=lambda reply: reply.index)]

    return list(await asyncio.gather(*(one(i, p) for i, p in enumerate(problems))))


def _share(found: Iterable[bool]) -> float:
    found = list(found)
    return sum(found) / len(found)
