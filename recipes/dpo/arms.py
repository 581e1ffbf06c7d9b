"""The pairs of each arm of the proof: what the judge says, and the controls, from one set of judged pairs."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from flexreward.files.outcomes import encode, read_outcomes
from flexreward.files.whole import replaced
from recipes.dpo.biased import one_order, write_biased
from recipes.tiny import domain

Pair: TypeAlias = Mapping[str, Any]
"""``prompt``, ``chosen`` and ``rejected`` as conversations, and the ``answer`` that is right."""
ARMS = ("judged", "random", "truth", "single", "consistent")
SHARE = 0.7
"""Of the orders in which the judge that is made to follow the place prefers slot 1."""


def write_arms(folder: Path, seed: int, number: int) -> dict[str, int]:
    """``ARM-SEED.jsonl`` in ``folder`` from the prompts of one seed; how many pairs they hold.

    Args:
        number: Of the prompts of a seed.
    """
    rng = random.Random(seed)

    def of_seed(rows: Iterable[Pair]) -> list[Pair]:
        return [row for row in rows if int(row["id"].partition("#")[0][1:]) // number == seed]

    turned = folder / "biased" / "pair_outcomes.jsonl"
    write_biased(folder / "pairs" / "pair_outcomes.jsonl", turned, share=SHARE)
    every = of_seed(all_pairs(folder))
    by_id = {pair["id"]: pair for pair in every}
    judged = of_seed(lines(folder / "pairs" / "train.jsonl"))
    truth = [swapped(pair) if right(pair, "rejected") else pair for pair in every if differs(pair)]
    coins = [swapped(pair) if rng.random() < 0.5 else pair for pair in every]
    single = decided(of_seed(one_order(turned)), by_id)
    consistent = decided(of_seed(read_outcomes(turned)), by_id)
    many, few = min(map(len, (judged, truth, coins))), min(map(len, (single, consistent)))
    arms = {"judged": (judged, many), "random": (coins, many), "truth": (truth, many)}
    arms |= {"single": (single, few), "consistent": (consistent, few)}
    for arm in ARMS:
        pairs, count = arms[arm]
        with replaced(folder / f"{arm}-{seed}.jsonl") as file:
            for pair in rng.sample(pairs, count):
                file.write(encode({name: pair[name] for name in ("prompt", "chosen", "rejected")}))
    return {"judged": many, "biased": few}


def all_pairs(folder: Path) -> Iterator[Pair]:
    """Every judged pair, the earlier completion as the chosen one."""
    samples = {row["id"]: row for row in read_outcomes(folder / "pairs" / "sampled.jsonl")}
    for row in read_outcomes(folder / "pairs" / "pair_outcomes.jsonl"):
        name, _, places = row["id"].partition("#")
        sample = samples[name]
        chosen, rejected = (sample["completions"][int(i)] for i in places.split("-"))
        texts = {"prompt": sample["prompt"], "chosen": chosen, "rejected": rejected}
        yield {"id": row["id"], **texts, "answer": sample["answer"]}


def decided(rows: Iterable[Pair], by_id: Mapping[str, Pair]) -> list[Pair]:
    """The pairs of which all orders that were bought name one winner, that winner chosen."""
    found = []
    for row in rows:
        winners = {_winner(order["scores"]) for order in row["orders"]}
        if winners in ({0}, {1}):
            pair = by_id[row["id"]]
            found.append(pair if winners == {0} else swapped(pair))
    return found


def _winner(scores: Sequence[float] | None) -> int | None:
    return None if not scores or scores[0] == scores[1] else int(scores[1] > scores[0])


def swapped(pair: Pair) -> Pair:
    return {**pair, "chosen": pair["rejected"], "rejected": pair["chosen"]}


def right(pair: Pair, side: str) -> bool:
    """Whether that completion gives the known answer."""
    return bool(domain.answer_in(pair[side][-1]["content"]) == pair["answer"])


def differs(pair: Pair) -> bool:
    """Whether one of the two is right and the other wrong."""
    return right(pair, "chosen") != right(pair, "rejected")


def agreement(folder: Path) -> float:
    """How often the chosen completion of a kept pair is the right one, of those of which one is right."""
    found = [right(pair, "chosen") for pair in lines(folder / "pairs" / "train.jsonl") if differs(pair)]
    return sum(found) / len(found)


def lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        yield from map(json.loads, file)
