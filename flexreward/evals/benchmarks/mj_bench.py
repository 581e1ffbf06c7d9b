"""MJ-Bench: which of two generated images is better, for what was asked (alignment), for safety, for quality.

Source: MJ-Bench/MJ-Bench:inference.py and its data (Chen et al. 2024, arXiv 2407.04842); jongwooko/flex-judge:
test/mj_bench_vllm.py for how Flex-Judge was drawn. What the hub holds under that name was replaced in 2025: the old set
has splits, the new one categories. Bias, the fourth perspective, compares no two images and is not here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from flexreward.errors import SampleError
from flexreward.evals.base import Benchmark, Drawn, Figures, Row, Scores, Source
from flexreward.evals.media_rows import Names, medium
from flexreward.evals.recount import choices
from flexreward.evals.rows import field, text_field
from flexreward.evals.source import Folder
from flexreward.evals.table import Table
from flexreward.evals.winners import said
from flexreward.files.columns import shown
from flexreward.files.rows import Row as FileRow
from flexreward.types import JudgeRequest

NEW = {"alignment": ("composition", "visualization"), "safety": (), "quality": ("quality",)}
"""The categories of the new set that each perspective's prompt fits."""

GITHUB = {
    "alignment": ("alignment/benchmark/*/*_test.json", "alignment_*_test.json"),
    "safety": ("safety/benchmark/*/*.json",),
    "quality": ("quality/*/captions_*.json", "captions_*.json", "quality_*_captions.json"),
}

FOLDERS = ("image", "images", "quality/human/examples_human", "examples_human", "example_human")

LABELS: dict[object, tuple[float, float]] = {0: (1.0, 0.0), 1: (0.0, 1.0), 0.5: (1.0, 1.0)}
"""``label``: the index of the better image."""

BETTER = re.compile(r"BETTER IMAGE:\D*([012])")
CHOICES = {"1": (1.0, 0.0), "2": (0.0, 1.0), "0": (1.0, 1.0)}
RATINGS = re.compile(r"IMAGE-1 RATING:\D*([\d.]+).*IMAGE-2 RATING:\D*([\d.]+)", re.DOTALL)


def rows_of(perspective: str) -> Callable[[Folder], Iterator[Row]]:
    """The loader of one perspective, in whichever layout is there: the hub's old set, GitHub's files, the new set."""

    def rows(folder: Folder) -> Iterator[Row]:
        names = Names()
        old = f"data/{perspective}-*.parquet", f"{perspective}-*.parquet"
        if folder.find(*old):
            for number, row in enumerate(folder.rows(*old)):
                yield _row(folder, row, names(f"{perspective}/{number}"), str(row.fields.get("info") or ""))
        elif there := folder.find(*GITHUB[perspective]):
            for path in there:
                part = _part(path)
                for row in folder.rows(path.relative_to(folder.path).as_posix()):
                    yield _row(folder, row, names(f"{part}/{row.fields.get('id', row.number - 1)}"), part)
        else:
            yield from _new(folder, perspective, names)

    return rows


def _new(folder: Folder, perspective: str, names: Names) -> Iterator[Row]:
    """The new set: rows say their category, and the id is ``category/number`` from 0 over the whole set."""
    if not NEW[perspective]:
        raise SampleError(f"{folder.path}: holds no {perspective} images, which only the old set has; {folder.remedy}")
    for number, row in enumerate(folder.rows("data/*.parquet", "*.parquet")):
        category = text_field(row, "category").lower()
        if category in NEW[perspective]:
            yield _row(folder, row, names(f"{category}/{number}"), category)


def _row(folder: Folder, row: FileRow, name: str, group: str) -> Row:
    if "label_0" in row.fields:
        score = field(row, "label_0")
        label: object = 1 - score if isinstance(score, int | float) else score
    else:
        label = field(row, "label")
    if isinstance(label, bool) or not isinstance(label, int | float) or label not in LABELS:
        raise SampleError(f"{row.where}: label is {shown(label)}, expected 0 or 1; copy the file again")
    images = tuple(medium(folder, row, f"image{i}", f"image_{i}", under=FOLDERS) for i in (0, 1))
    model = str(row.fields.get("model") or "")
    return Row(
        request=JudgeRequest(id=name, prompt=text_field(row, "caption"), completions=images),
        human=LABELS[label],
        group=group,
        systems=(model, model) if model else (),
    )


def _part(path: Path) -> str:
    """``actions`` of ``alignment/benchmark/actions/actions_test.json``, ``human`` of ``captions_human.json``."""
    name = path.stem.removesuffix("_test").removesuffix("_captions")
    return name.removeprefix("captions_").removeprefix("alignment_").removeprefix("quality_")


def published(table: Table) -> Figures:
    """Accuracy over all replies, those of both orders pooled.

    ``accuracy`` ("with tie"): a tie of the judge is wrong. ``accuracy_where_decided`` ("without tie"): it is left out.

    Quirks: what cannot be read is a tie, and so leaves the second figure; how Flex-Judge's two orders were merged is
    not published, and pooling them is what its rate of ties fits.
    """
    figures: dict[str, float] = {}
    groups = table.by_group() if len(table.group_names) > 1 else {}
    for name, part in {"": table, **groups}.items():
        choice_NOK = choices(part.votes_NOKC)
        asked_NOK = np.broadcast_to((part.first_NO >= 0)[..., None], choice_NOK.shape)
        decided_NOK = asked_NOK & (choice_NOK >= 0)
        num_right = int((decided_NOK & (choice_NOK == said(part)[:, None, None])).sum())
        for figure, num in (("accuracy", asked_NOK.sum()), ("accuracy_where_decided", decided_NOK.sum())):
            figures[f"{figure}/{name}" if name else figure] = num_right / int(num) if num else float("nan")
    return figures


def read(reply: str, count: int) -> Scores | None:
    """``BETTER IMAGE: 1`` (0 is a tie), else the two ratings before it; or two bare numbers, a score model's."""
    if better := BETTER.search(reply):
        return CHOICES[better[1]]
    if ratings := RATINGS.search(reply):
        return _numbers(*ratings.groups())
    return _numbers(*reply.split()) if len(reply.split()) == count else None


def _numbers(one: str, other: str) -> Scores | None:
    try:
        return float(one), float(other)
    except ValueError:
        return None


MJ_BENCH = Benchmark(
    name="mj-bench",
    title="MJ-Bench, alignment",
    task="pair",
    template="mj-align",
    source=Source(
        files=("data/*.parquet", *GITHUB["alignment"]),
        hub="MJ-Bench/MJ-Bench",
        licence="MIT, to be accepted on the hub",
        remedy="accept the terms of https://huggingface.co/datasets/MJ-Bench/MJ-Bench and copy its data/ there, or the "
        "folders alignment, safety and quality of https://github.com/MJ-Bench/MJ-Bench",
    ),
    rows=rows_of("alignment"),
    drawn=Drawn(orders="both", temperature=0.6, top_p=0.95, image_size=(336, 336)),
    published=published,
    quirks=(
        "the replies of both orders are counted one by one",
        "a reply that cannot be read is a tie, which is wrong with ties and left out without",
        "every image is brought to 336 x 336 pixels, whatever its shape (here by --protocol published alone)",
    ),
    headline="accuracy",
    read=read,
    read_scale=(0.0, 10.0),
    key="part/id, or split/number from 0",
)

MJ_BENCH_SAFETY = replace(
    MJ_BENCH,
    name="mj-bench-safety",
    title="MJ-Bench, safety",
    template="mj-safe",
    source=replace(MJ_BENCH.source, files=("data/*.parquet", *GITHUB["safety"])),
    rows=rows_of("safety"),
)

MJ_BENCH_QUALITY = replace(
    MJ_BENCH,
    name="mj-bench-quality",
    title="MJ-Bench, quality",
    template="mj-qual",
    source=replace(MJ_BENCH.source, files=("data/*.parquet", *GITHUB["quality"])),
    rows=rows_of("quality"),
)
