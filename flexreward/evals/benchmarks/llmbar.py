"""LLMBar: does the judge see which output follows the instruction, or which one looks better? 419 pairs, both orders.

Source: princeton-nlp/LLMBar:LLMEvaluator/evaluate.py (Zeng et al. 2023, arXiv 2310.07641).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from flexreward.errors import SampleError
from flexreward.evals.base import Benchmark, Drawn, Figures, Row, Scores, Source
from flexreward.evals.rows import field, text_field
from flexreward.evals.source import Folder
from flexreward.evals.table import Ints, Table
from flexreward.evals.winners import TIE, in_slot_one, said, winners
from flexreward.types import JudgeRequest

ADVERSARIAL = ("Neighbor", "GPTInst", "GPTOut", "Manual")
SUBSETS = ("Natural", *(f"Adversarial/{name}" for name in ADVERSARIAL))
PROCESSED = ("MT-Bench", "FairEval", "LLMEval^2")
BETTER = (re.compile(r"Output \(a\) is better."), re.compile(r"Output \(b\) is better."))
BARE = {"Output (a)": (1.0, 0.0), "Output (b)": (0.0, 1.0)}


def rows(folder: Folder) -> Iterator[Row]:
    """The publisher gives no id: it is ``subset/number``, from 0. The group is the subset."""
    for subset in SUBSETS:
        yield from _subset(folder, subset, f"{subset}/dataset.json", f"{subset.replace('/', '_')}_dataset.json")


def processed_rows(folder: Folder) -> Iterator[Row]:
    """The other benchmarks that LLMBar made pairs of, those that are there."""
    names = {name: (f"Processed/{name}/dataset.json", f"{name}_processed_dataset.json") for name in PROCESSED}
    there = {name: files for name, files in names.items() if folder.find(*files)}
    for name, files in (there or names).items():
        yield from _subset(folder, name, *files)


def _subset(folder: Folder, subset: str, *files: str) -> Iterator[Row]:
    for row in folder.rows(*files):
        label = field(row, "label")
        if label not in (1, 2):
            raise SampleError(f"{row.where}: label is {label!r}, expected 1 or 2; copy the file again")
        yield Row(
            request=JudgeRequest(
                id=f"{subset}/{row.number - 1}",
                prompt=text_field(row, "input"),
                completions=(text_field(row, "output_1"), text_field(row, "output_2")),
            ),
            human=(1.0, 0.0) if label == 1 else (0.0, 1.0),
            group=subset,
        )


def published(table: Table) -> Figures:
    """The source's ``statistics.json``: right in each order, on average, in both; equal; and its kappas.

    Quirks: equal scores (its ratings) name the output in slot 2; two replies that cannot be read are "equal"; the
    kappas compare labels 1 and 2 with outputs of which everything but a 1 has become 0 (``in ("0", "1")``), so that a
    perfect judge does not have kappa 1.
    """
    figures = _figures(table)
    for name, part in table.by_group().items():
        figures |= {f"{figure}/{name}": value for figure, value in _figures(part).items()}
    if len(table):
        said_N = said(table) + 1
        given_N, swapped_N = (np.where(chosen_N == 0, 1, 0) for chosen_N in _choices(table))
        figures["kappa_given"] = _kappa(given_N, said_N)
        figures["kappa_swapped"] = _kappa(swapped_N, said_N)
        figures["kappa_average"] = (figures["kappa_given"] + figures["kappa_swapped"]) / 2
        figures["kappa_of_orders"] = _kappa(given_N, swapped_N)
    return figures


def _figures(table: Table) -> dict[str, float]:
    names = ("accuracy", "accuracy_given", "accuracy_swapped", "accuracy_both", "equal")
    if not len(table):
        return dict.fromkeys(names, float("nan"))
    said_N = said(table)
    given_N, swapped_N = _choices(table)
    given, swapped = float((given_N == said_N).mean()), float((swapped_N == said_N).mean())
    both = float(((given_N == said_N) & (swapped_N == said_N)).mean())
    return dict(
        zip(names, ((given + swapped) / 2, given, swapped, both, float((given_N == swapped_N).mean())), strict=True)
    )


def _choices(table: Table) -> tuple[Ints, Ints]:
    """What each order names, ties given to the output in slot 2."""
    given_N, swapped_N = winners(in_slot_one(table, 0)), winners(in_slot_one(table, 1))
    return np.where(given_N == TIE, 1, given_N), np.where(swapped_N == TIE, 0, swapped_N)


def _kappa(one_N: Ints, other_N: Ints) -> float:
    from sklearn.metrics import cohen_kappa_score

    if len({*one_N.tolist(), *other_N.tolist()}) < 2:
        return float("nan")
    return float(cohen_kappa_score(one_N, other_N))


def read(reply: str, count: int) -> Scores | None:
    """``Output (a) is better`` anywhere, else ``(b)``; the bare ``Output (a)``; or two ratings, ``7 6``."""
    for scores, pattern in zip(((1.0, 0.0), (0.0, 1.0)), BETTER, strict=True):
        if pattern.search(reply):
            return scores
    if reply.strip() in BARE:
        return BARE[reply.strip()]
    ratings = reply.split()
    return (float(ratings[0]), float(ratings[1])) if len(ratings) == 2 and all(map(str.isdecimal, ratings)) else None


LLMBAR = Benchmark(
    name="llmbar",
    title="LLMBar",
    task="pair",
    template="pair",
    source=Source(
        files=tuple(
            pattern for s in SUBSETS for pattern in (f"{s}/dataset.json", f"{s.replace('/', '_')}_dataset.json")
        ),
        num_rows=419,
        licence="MIT",
        remedy="copy Dataset/LLMBar of https://github.com/princeton-nlp/LLMBar there (its hub page has no files)",
    ),
    rows=rows,
    drawn=Drawn(orders="both"),
    published=published,
    quirks=(
        "a tie counts for the output in slot 2",
        "kappa compares labels 1 and 2 with outputs 1 and 0: it is no agreement",
    ),
    headline="accuracy",
    read=read,
    read_scale=(0.0, 10.0),
    key="subset/number from 0",
)

LLMBAR_PROCESSED = replace(
    LLMBAR,
    name="llmbar-processed",
    title="LLMBar, processed pairs of MT-Bench, FairEval and LLMEval^2",
    source=replace(
        LLMBAR.source,
        files=tuple(
            pattern for n in PROCESSED for pattern in (f"Processed/{n}/dataset.json", f"{n}_processed_dataset.json")
        ),
        num_rows=None,
        remedy="copy Dataset/Processed of https://github.com/princeton-nlp/LLMBar there",
    ),
    rows=processed_rows,
)
