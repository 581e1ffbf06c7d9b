"""NISQA's test sets: how good speech sounds after a call, by listeners, from 1 to 5.

Data: gabrielmittag/NISQA (Mittag et al. 2021, arXiv 2104.09494). Figures: jongwooko/flex-judge:test/{nisqa_vllm,
evaluate}.py, over the 712 recordings of three of its four test sets.
"""

from __future__ import annotations

from collections.abc import Iterator

from flexreward.evals.base import Benchmark, Drawn, Figures, Row, Source
from flexreward.evals.media_rows import medium
from flexreward.evals.mos import PROMPT, mos_figures, read_mos, score_field
from flexreward.evals.rows import text_field
from flexreward.evals.source import Folder
from flexreward.evals.table import Table
from flexreward.types import JudgeRequest

SETS = ("FOR", "LIVETALK", "P501")
LISTS = tuple(f"NISQA_TEST_{name}/NISQA_TEST_{name}_file.csv" for name in SETS)


def rows(folder: Folder) -> Iterator[Row]:
    """The sets that are there. The id is ``set/filename_deg``, the group the set, the system its condition."""
    there = {name: path for name, path in zip(SETS, LISTS, strict=True) if folder.find(path)}
    if not there:
        folder.files(*LISTS)
    for name, path in there.items():
        base = folder.file(path).parent.relative_to(folder.path).as_posix()
        for row in folder.rows(path):
            condition = f"{name}/{row.fields.get('con') or ''}"
            yield Row(
                request=JudgeRequest(
                    id=f"{name}/{text_field(row, 'filename_deg')}",
                    prompt=PROMPT,
                    completions=(medium(folder, row, "filepath_deg", kind="audio", under=(base, f"{base}/deg")),),
                ),
                human=(score_field(row, "mos"),),
                group=name,
                systems=(condition,),
            )


def published(table: Table) -> Figures:
    """Correlations and error over recordings: of all sets pooled, and of each; nothing over systems.

    Quirks: a reply that cannot be read is a 3.0; Flex-Judge's script rounds labels to one decimal and its figures to
    three (``..._labels_rounded``).
    """
    figures = dict(mos_figures(table, missing=3.0, rounded=True, systems=False))
    for name, part in table.by_group().items():
        found = mos_figures(part, missing=3.0, rounded=True, systems=False)
        figures |= {f"{figure}/{name}": value for figure, value in found.items()}
    return figures


NISQA = Benchmark(
    name="nisqa",
    title="NISQA test sets (FOR, LIVETALK, P501)",
    task="rating",
    template="mos",
    source=Source(
        files=LISTS,
        num_rows=712,
        licence="NISQA Corpus terms",
        remedy="unpack the NISQA Corpus of https://github.com/gabrielmittag/NISQA/wiki there",
    ),
    rows=rows,
    drawn=Drawn(temperature=0.6, top_p=0.95),
    published=published,
    quirks=(
        "a reply that cannot be read is a 3.0",
        "Flex-Judge rounds labels to one decimal: its figures are the ones with _labels_rounded",
    ),
    headline="pearson",
    read=read_mos,
    read_scale=(1.0, 5.0),
    key="set/filename_deg",
)
