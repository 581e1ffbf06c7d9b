"""SOMOS: how natural synthetic speech of 200 systems sounds, from 1 to 5. Split 1, clean votes.

Data: Maniati et al. 2022 (arXiv 2204.03040). Figures: jongwooko/flex-judge:test/{somos_vllm,evaluate}.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from flexreward.evals.base import Benchmark, Drawn, Figures, Row, Source
from flexreward.evals.media_rows import medium
from flexreward.evals.mos import PROMPT, columns_of, mos_figures, read_mos, score_field, system_scores
from flexreward.evals.rows import text_field
from flexreward.evals.source import Folder
from flexreward.evals.table import Table
from flexreward.types import JudgeRequest

LIST = "split1/clean/test_mos_list.txt"


def rows(folder: Folder) -> Iterator[Row]:
    """The id is the file's stem; the system what stands after its last ``_``."""
    scores = system_scores(folder, "split1/clean/test_system.csv", "test_system.csv")
    for row in folder.rows(f"training_files/{LIST}", LIST):
        stem = PurePosixPath(text_field(row, "utteranceId")).stem
        system = stem.rpartition("_")[2]
        yield Row(
            request=JudgeRequest(
                id=stem,
                prompt=PROMPT,
                completions=(medium(folder, row, "utteranceId", kind="audio"),),
            ),
            human=(score_field(row, "mean"),),
            systems=(system,),
            columns=columns_of(system, scores),
        )


def published(table: Table) -> Figures:
    """Correlations and error over recordings and over systems.

    Quirks: a reply that cannot be read is a 3.0; Flex-Judge's script rounds labels to one decimal and its figures to
    three (``..._labels_rounded``). Systems are compared with the publisher's own list of scores where it lies beside,
    else with the means of their labels.
    """
    return mos_figures(table, missing=3.0, rounded=True, systems=True)


SOMOS = Benchmark(
    name="somos",
    title="SOMOS (split 1, clean)",
    task="rating",
    template="mos",
    source=Source(
        files=(f"training_files/{LIST}", f"training_files/{LIST.replace('mos_list.txt', 'system.csv')}"),
        num_rows=3000,
        licence="CC BY-NC-SA 4.0",
        remedy="unpack https://zenodo.org/records/7378801 there (training_files/ and audios/)",
    ),
    rows=rows,
    drawn=Drawn(temperature=0.5, top_p=0.95),
    published=published,
    quirks=(
        "a reply that cannot be read is a 3.0",
        "Flex-Judge rounds labels to one decimal: its figures over recordings are the ones with _labels_rounded",
        "systems are compared with the publisher's own list of their scores, where it lies beside",
    ),
    headline="system_spearman",
    read=read_mos,
    read_scale=(1.0, 5.0),
    key="file name without .wav",
)
