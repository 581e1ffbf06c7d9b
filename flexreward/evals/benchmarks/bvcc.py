"""BVCC, the main track of the VoiceMOS Challenge 2022: how natural synthetic speech sounds, from 1 to 5.

Data and figures: Cooper and Yamagishi 2021 (arXiv 2105.02373), Huang et al. 2022 (arXiv 2203.11389); for the judge:
jongwooko/flex-judge:test/{bvcc_vllm,evaluate}.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from flexreward.evals.base import Benchmark, Drawn, Figures, Row, Scores, Source
from flexreward.evals.media_rows import medium
from flexreward.evals.mos import ANSWER, PROMPT, columns_of, mos_figures, score_field, system_scores
from flexreward.evals.rows import text_field
from flexreward.evals.source import Folder
from flexreward.evals.table import Table
from flexreward.types import JudgeRequest

SPOKEN = re.compile(r"(?:score|rating)(?:\s+is|\s*[:=]\s*)?\s*(\d+\.?\d*)", re.IGNORECASE)
ANY = re.compile(r"\b[1-5](?:\.\d*)?\b")
WAV = ("DATA/wav", "main/DATA/wav", "wav")


def rows(folder: Folder) -> Iterator[Row]:
    """The id is the file's stem; the system what stands before its ``-``."""
    scores = system_scores(folder, "DATA/mydata_system.csv", "mydata_system.csv")
    for row in folder.rows("DATA/sets/test_mos_list.txt", "test_mos_list.txt", columns=("wav", "score")):
        stem = PurePosixPath(text_field(row, "wav")).stem
        system = stem.partition("-")[0]
        yield Row(
            request=JudgeRequest(
                id=stem,
                prompt=PROMPT,
                completions=(medium(folder, row, "wav", kind="audio", under=WAV),),
            ),
            human=(score_field(row, "score"),),
            systems=(system,),
            columns=columns_of(system, scores),
        )


def published(table: Table) -> Figures:
    """Correlations and error over recordings and over systems, as the challenge counts them.

    Quirks: a reply that cannot be read is a 0.0, the constant of Flex-Judge's script for a text without numbers; that
    script rounds labels to one decimal and its figures to three (``..._labels_rounded``). Systems are compared with the
    publisher's own list of scores where it lies beside, else with the means of their labels.
    """
    return mos_figures(table, missing=0.0, rounded=True, systems=True)


def read(reply: str, count: int) -> Scores | None:
    """As Flex-Judge's script reads: the first answer in tags, else ``score: 3``, else the first number from 1 to 5.

    Quirk: a reply without any number is a 0.0, which enters every figure.
    """
    if found := ANSWER.search(reply) or SPOKEN.search(reply):
        return (float(found[1]),)
    number = ANY.search(reply)
    return (float(number[0]) if number else 0.0,)


BVCC = Benchmark(
    name="bvcc",
    title="BVCC (VoiceMOS Challenge 2022, main track)",
    task="rating",
    template="mos-bvcc",
    source=Source(
        files=("DATA/sets/test_mos_list.txt", "DATA/mydata_system.csv", "test_mos_list.txt"),
        num_rows=1066,
        remedy="unpack https://zenodo.org/records/10691660 there and assemble its audio (DATA/sets, DATA/wav)",
    ),
    rows=rows,
    drawn=Drawn(temperature=0.5, top_p=0.95),
    published=published,
    quirks=(
        "a reply that cannot be read is a 0.0 (the script first takes any number from 1 to 5 in it)",
        "Flex-Judge rounds labels to one decimal: its figures over recordings are the ones with _labels_rounded",
        "systems are compared with the publisher's own list of their scores, where it lies beside",
    ),
    headline="system_spearman",
    read=read,
    read_scale=(0.0, 5.0),
    key="file name without .wav",
)
