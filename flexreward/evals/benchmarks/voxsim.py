"""VoxSim: how alike two recordings' voices are, from 1 to 6, by listeners.

Data: kaistmm/voxsim_trainer (Ahn et al. 2024, arXiv 2407.18505). Figures: jongwooko/flex-judge:test/{voxsim_vllm,
evaluate}.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from flexreward.evals.base import Benchmark, Drawn, Figures, Row, Source
from flexreward.evals.media_rows import Names, medium
from flexreward.evals.mos import mos_figures, read_mos, score_field
from flexreward.evals.rows import text_field
from flexreward.evals.source import Folder
from flexreward.evals.table import Table
from flexreward.types import JudgeRequest

COLUMNS = ("wav1", "wav2", "same_speaker", "listener", "score")
CLAIM = "The given two audios are from the same speaker."
"""What is judged: the template shows the two recordings and this claim, and asks for the claim's score."""


def rows(folder: Folder) -> Iterator[Row]:
    """The id is ``wav1 wav2``, the group whether the speaker is the same."""
    names = Names()
    for row in folder.rows("voxsim_test_list.txt", columns=COLUMNS):
        one, other = text_field(row, "wav1"), text_field(row, "wav2")
        yield Row(
            request=JudgeRequest(
                id=names(f"{one} {other}"),
                prompt="Do these two recordings have the same speaker?",
                completions=(CLAIM,),
                media=tuple(medium(folder, row, name, kind="audio", under=("wav",)) for name in ("wav1", "wav2")),
            ),
            human=(score_field(row, "score"),),
            group="same" if text_field(row, "same_speaker") == "1" else "different",
        )


def published(table: Table) -> Figures:
    """Correlations and error over pairs of recordings.

    Quirks: a reply that cannot be read is a 3.5; people's scale goes from 1 to 6 and the prompt's from 1 to 5.
    """
    return mos_figures(table, missing=3.5, rounded=False, systems=False)


VOXSIM = Benchmark(
    name="voxsim",
    title="VoxSim",
    task="rating",
    template="ss",
    source=Source(
        files=("voxsim_test_list.txt",),
        num_rows=2776,
        remedy="copy data/voxsim_test_list.txt of https://github.com/kaistmm/voxsim_trainer there, and VoxCeleb1's "
        "recordings into wav/",
    ),
    rows=rows,
    drawn=Drawn(temperature=0.6, top_p=0.95),
    published=published,
    quirks=(
        "a reply that cannot be read is a 3.5",
        "people's scale goes from 1 to 6 and the prompt's from 1 to 5, so that the error cannot be 0",
    ),
    headline="pearson",
    read=read_mos,
    read_scale=(1.0, 5.0),
    key="wav1 wav2",
)
